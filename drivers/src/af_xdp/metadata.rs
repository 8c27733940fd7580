//! What travels in front of a frame to the kernel: `struct xsk_tx_metadata` of linux/if_xdp.h.
//!
//! With it the kernel sends a frame on as CHECKSUM_PARTIAL: over a veth nobody ever computes the
//! sum, and a real device computes it in hardware where it can.

use wharf_engine::offload::PartialChecksum;

/// Bytes of metadata before each frame, as registered with the UMEM.
pub const TX_METADATA_LEN: u32 = 24;

/// Same, for slices.
pub const TX_METADATA_BYTES: usize = TX_METADATA_LEN as usize;

/// A request to the kernel about the frame that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxMetadata {
    /// Where to finish a checksum.
    pub checksum: PartialChecksum,
}

impl TxMetadata {
    /// The bytes to place right before the frame: flags (u64), checksum start and offset (u16
    /// each), and zeros; all in host byte order. TX descriptors then carry XDP_TX_METADATA, see
    /// [`TxFrame::metadata`](super::TxFrame::metadata).
    pub fn to_bytes(self) -> [u8; TX_METADATA_BYTES] {
        let mut bytes = [0; TX_METADATA_BYTES];
        let flags = u64::from(libc::XDP_TXMD_FLAGS_CHECKSUM);
        bytes[0..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.checksum.start.to_ne_bytes());
        bytes[10..12].copy_from_slice(&self.checksum.offset.to_ne_bytes());
        bytes
    }

    /// Writes the metadata to the end of the headroom before a frame of `frame_len` bytes.
    /// False, and nothing written, when the headroom is too short; when the checksum field lies
    /// outside the frame, to which the kernel answers EINVAL for ever and the queue stands still;
    /// or when the frame is padded, because the kernel sums up to its end. Then
    /// [`finish`](wharf_engine::offload::finish) the checksum in software.
    #[must_use]
    pub fn write(self, headroom: &mut [u8], frame_len: usize) -> bool {
        let field_end = usize::from(self.checksum.start) + usize::from(self.checksum.offset) + 2;
        match headroom.last_chunk_mut::<TX_METADATA_BYTES>() {
            Some(place) if field_end <= frame_len && usize::from(self.checksum.end) == frame_len => {
                *place = self.to_bytes();
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_kernels() {
        let metadata = TxMetadata { checksum: PartialChecksum { start: 0x1234, offset: 0x56, end: 0x2000 } };
        let bytes = metadata.to_bytes();
        assert_eq!(u64::from_ne_bytes(bytes[..8].try_into().expect("8 bytes")), 2);
        assert_eq!(std::mem::offset_of!(libc::xsk_tx_metadata, flags), 0);
        assert_eq!(std::mem::offset_of!(libc::xsk_tx_metadata, xsk_tx_metadata_union), 8);
        assert_eq!(std::mem::offset_of!(libc::xsk_tx_metadata_request, csum_start), 0);
        assert_eq!(std::mem::offset_of!(libc::xsk_tx_metadata_request, csum_offset), 2);
        assert_eq!(bytes[8..12], [0x1234u16.to_ne_bytes(), 0x56u16.to_ne_bytes()].concat());
        assert_eq!(bytes[12..], [0; 12]);
    }

    #[test]
    fn only_what_the_kernel_accepts_is_written() {
        let metadata = |end| TxMetadata { checksum: PartialChecksum { start: 34, offset: 16, end } };
        let mut headroom = [0xaa; 40];
        assert!(!metadata(60).write(&mut headroom[..23], 60));
        assert!(!metadata(51).write(&mut headroom, 51), "the field ends at 52");
        assert!(!metadata(54).write(&mut headroom, 60), "padded");
        assert_eq!(headroom, [0xaa; 40]);
        assert!(metadata(54).write(&mut headroom, 54));
        assert_eq!(headroom[..16], [0xaa; 16]);
        assert_eq!(headroom[16..], metadata(54).to_bytes());
    }
}
