//! The Transmission Control Protocol (RFC 9293).

use super::{U16, U32};
use std::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The control bits of a TCP segment (RFC 9293, section 3.1).
#[derive(
    Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// Reset the connection.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// Push.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// The acknowledgment number counts.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// The urgent pointer counts.
    pub const URG: TcpFlags = TcpFlags(0x20);
    /// Congestion echo (RFC 3168).
    pub const ECE: TcpFlags = TcpFlags(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: TcpFlags = TcpFlags(0x80);

    /// True when all bits of `flags` are set.
    #[inline(always)]
    pub const fn contains(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// True when some bit of `flags` is set.
    #[inline(always)]
    pub const fn intersects(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 != 0
    }
}

impl std::ops::BitOr for TcpFlags {
    type Output = TcpFlags;

    fn bitor(self, other: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 | other.0)
    }
}

/// The names of the bits that are set: `SYN|ACK`.
impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (bit, name) in ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"].iter().enumerate() {
            if self.0 & 1 << bit != 0 {
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpFlags({self})")
    }
}

/// The fixed part of a TCP header, 20 bytes. Options may follow, see [`header_len`](TcpHeader::header_len).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TcpHeader {
    /// From which port.
    pub src_port: U16,
    /// To which port.
    pub dst_port: U16,
    /// The number of the first data byte, or of the SYN.
    pub sequence: U32,
    /// The number of the next byte that the sender expects, if ACK is set.
    pub acknowledgment: U32,
    /// Header length in units of 4 bytes in the high 4 bits; the others are reserved.
    pub data_offset: u8,
    /// Control bits.
    pub flags: TcpFlags,
    /// How many bytes the sender is willing to receive, before scaling.
    pub window: U16,
    /// Over pseudo header, header and payload.
    pub checksum: U16,
    /// Where urgent data end, if URG is set.
    pub urgent: U16,
}

impl TcpHeader {
    /// Length in bytes, without options.
    pub const LEN: usize = size_of::<TcpHeader>();

    /// Bytes of the header with its options: 20 to 60, below 20 if the segment is malformed.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_of_a_handshake() {
        let bytes = [
            0x01, 0xbb, 0xd4, 0x31, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x60, 0x52, 0xfa, 0xf0,
            0xbe, 0xef, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4,
        ];
        let (header, options) = TcpHeader::ref_from_prefix(&bytes).unwrap();
        assert_eq!((header.src_port.get(), header.dst_port.get()), (443, 54321));
        assert_eq!((header.sequence.get(), header.acknowledgment.get()), (0x1234_5678, 0x9abc_def0));
        assert_eq!(header.header_len(), TcpHeader::LEN + options.len());
        assert!(header.flags.contains(TcpFlags::SYN | TcpFlags::ACK));
        assert!(!header.flags.contains(TcpFlags::SYN | TcpFlags::FIN));
        assert!(
            header.flags.intersects(TcpFlags::SYN | TcpFlags::FIN) && !header.flags.intersects(TcpFlags::RST)
        );
        assert_eq!(header.flags.to_string(), "SYN|ACK|ECE");

        let (other, _) = etherparse::TcpHeader::from_slice(&bytes).unwrap();
        assert_eq!((other.source_port, other.destination_port), (443, 54321));
        assert_eq!((other.sequence_number, other.acknowledgment_number), (0x1234_5678, 0x9abc_def0));
        assert_eq!((other.syn, other.ack, other.ece, other.fin, other.cwr), (true, true, true, false, false));
        assert_eq!((other.window_size, other.checksum), (header.window.get(), header.checksum.get()));
        assert_eq!((other.header_len(), other.urgent_pointer), (header.header_len(), header.urgent.get()));
    }
}
