//! VXLAN (RFC 7348).

use super::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A VXLAN header, 8 bytes (RFC 7348, section 5).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct VxlanHeader {
    /// Flags in the high 8 bits; the rest is reserved, "MUST be set to zero on transmission and ignored on receipt".
    pub flags: U32,
    /// VXLAN network identifier in the high 24 bits; the rest is reserved likewise.
    pub vni: U32,
}

impl VxlanHeader {
    /// Length in bytes.
    pub const LEN: usize = size_of::<VxlanHeader>();
    /// The flag "I": the identifier is valid.
    pub const VALID: u32 = 0x0800_0000;
    /// The largest identifier.
    pub const MAX_VNI: u32 = (1 << 24) - 1;

    /// A header for `vni`, of which the low 24 bits count.
    pub const fn new(vni: u32) -> VxlanHeader {
        VxlanHeader { flags: U32::new(VxlanHeader::VALID), vni: U32::new(vni << 8) }
    }

    /// The identifier.
    #[inline(always)]
    pub fn vni(&self) -> u32 {
        self.vni.get() >> 8
    }

    /// Whether the identifier is valid.
    #[inline(always)]
    pub fn is_valid(&self) -> bool {
        self.flags.get() & VxlanHeader::VALID != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_rfc_7348() {
        let header = VxlanHeader::ref_from_bytes(&[8, 0, 0, 0, 0x12, 0x34, 0x56, 0]).unwrap();
        assert!(header.is_valid());
        assert_eq!((header.vni(), *header), (0x12_3456, VxlanHeader::new(0x12_3456)));
        assert!(!VxlanHeader::ref_from_bytes(&[0xf7, 0, 0, 0, 0, 0, 1, 0]).unwrap().is_valid());
    }
}
