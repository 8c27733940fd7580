//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums and checksums are numbers as `get()` of a header field returns them. Inside, words are added in the order of
//! the machine and the result is swapped once, which is the same (RFC 1071, section 2 B).

use super::U16;
use super::ip4::{Ip4Header, IpProtocol};
use std::net::Ipv4Addr;

/// The ones' complement sum of the 16-bit words of `data`; a last odd byte counts as a word with a zero byte behind it.
/// 0 only if all bytes are 0. The checksum is its complement, see [`checksum`].
///
/// Of data in several parts, the sums are [`add`]ed; all parts but the last need an even length.
#[inline]
pub fn ones_complement_sum(data: &[u8]) -> u16 {
    let (words, rest) = data.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let last = match *rest {
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c] => [a, b, c, 0],
        _ => [0; 4],
    };
    u16::from_be(fold(sum + u64::from(u32::from_ne_bytes(last))))
}

/// The checksum of `data`, in which the checksum field itself is 0.
#[inline]
pub fn checksum(data: &[u8]) -> u16 {
    !ones_complement_sum(data)
}

/// Reduces a sum of words of 16 or 32 bits to 16 bits by adding what overflows at the other end. 0 only for 0.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32); // 33 bits
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32); // 17 bits
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The sum of two parts.
#[inline(always)]
pub const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// True if the checksum of an IPv4 header without options is right: with its checksum, the sum is all ones.
#[inline(always)]
pub fn header_checksum_ok(header: &[u8; Ip4Header::LEN]) -> bool {
    // Folding keeps the remainder by 0xffff, of which all ones is 0, and only a sum of 0 folds to 0. A number is a multiple
    // of 0xffff if its product with the inverse, modulo 2^64, is one of the first numbers.
    const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
    const _: () = assert!(INVERSE.wrapping_mul(0xffff) == 1);
    let sum = header_sum(header);
    (sum.wrapping_mul(INVERSE) <= u64::MAX / 0xffff) & (sum != 0)
}

/// The checksum for an IPv4 header without options; what its checksum field holds doesn't matter.
#[inline]
pub fn header_checksum(header: &Ip4Header) -> u16 {
    let sum = u16::from_be(fold(header_sum(&zerocopy::transmute!(*header))));
    // Take the field out again by adding its complement.
    !add(sum, !header.checksum.get())
}

/// The sum of the header's words by 0xffff, in the order of the machine: of 64 bits at a time, with the carry added again.
#[inline(always)]
fn header_sum(header: &[u8; Ip4Header::LEN]) -> u64 {
    let [a, b, c, d, e]: [[u8; 4]; 5] = zerocopy::transmute!(*header);
    let two = |a: [u8; 4], b: [u8; 4]| u64::from_ne_bytes(zerocopy::transmute!([a, b]));
    let add = |a: u64, b: u64| {
        let (sum, carry) = a.overflowing_add(b);
        sum + u64::from(carry)
    };
    add(add(two(a, b), two(c, d)), u32::from_ne_bytes(e).into())
}

/// The checksum after a 16-bit word that it covers has changed from `old` to `new` (RFC 1624, equation 3).
///
/// For UDP, an old checksum of 0 means none and must stay, and a result of 0 is sent as 0xffff.
#[inline(always)]
pub const fn update_u16(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(!checksum as u64 + !old as u64 + new as u64)
}

/// [`update_u16`] for two words at once: an address, a sequence number.
#[inline(always)]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    !fold(!checksum as u64 + !old as u64 + new as u64)
}

/// Takes one hop off the TTL of a forwarded packet (RFC 1812, section 5.3.1), and keeps the checksum right. The TTL must
/// not be 0: such a packet has been dropped before.
#[inline(always)]
pub fn decrement_ttl(header: &mut Ip4Header) {
    debug_assert!(header.ttl > 0);
    header.ttl = header.ttl.wrapping_sub(1);
    // Equation 3 for a word that shrinks by 0x100, reduced to one addition. A result of 0xffff becomes 0 as there. Such a
    // sum is the same in any order of bytes (RFC 1071, section 2), and 0x100 is 1 in the other one.
    let sum = u16::from_le_bytes(header.checksum.to_bytes());
    header.checksum = U16::from_bytes((sum.wrapping_add(1 + u16::from(sum >= 0xfffe))).to_le_bytes());
}

/// The sum over the pseudo header of TCP and UDP (RFC 9293, section 3.1; RFC 768). `len` is the length of the segment
/// or datagram in bytes, its header included.
#[inline]
pub const fn pseudo_header_sum(src: Ipv4Addr, dst: Ipv4Addr, protocol: IpProtocol, len: u16) -> u16 {
    fold(src.to_bits() as u64 + dst.to_bits() as u64 + protocol.0 as u64 + len as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::{FromBytes, FromZeros, IntoBytes};

    /// Word by word, as RFC 1071 defines it.
    fn naive(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for word in data.chunks(2) {
            sum += u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        sum as u16
    }

    /// Bytes that are often at the edges of the arithmetic.
    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![Just(0u8), Just(0xff), Just(1), Just(0xfe), any::<u8>()]
    }

    fn word() -> impl Strategy<Value = u16> {
        prop_oneof![Just(0u16), Just(0xffff), Just(1), Just(0xfffe), Just(0xfeff), Just(0xff00), any::<u16>()]
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(ones_complement_sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn zero_and_all_ones_are_told_apart() {
        assert_eq!(ones_complement_sum(&[]), 0);
        assert_eq!(ones_complement_sum(&[0; 1500]), 0);
        assert_eq!(ones_complement_sum(&[0xff; 65_534]), 0xffff);
        assert_eq!(ones_complement_sum(&[0x80, 0, 0x7f, 0xff]), 0xffff);
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0xffff_ffff_0000_0001), 1);
        assert_eq!((add(0xffff, 0xffff), add(0, 0), add(0xffff, 1)), (0xffff, 0, 1));
    }

    /// The example of RFC 1624, section 4, where the older equation gives 0xffff.
    #[test]
    fn the_example_of_rfc_1624() {
        assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn every_ttl_and_checksum() {
        let mut header = Ip4Header::new_zeroed();
        header.version_ihl = Ip4Header::VERSION_IHL;
        for ttl in 1..=255u8 {
            for id in (0..=0xffffu16).step_by(51).chain([0xffff]) {
                header.ttl = ttl;
                header.id.set(id);
                header.checksum.set(header_checksum(&header));
                let expected =
                    update_u16(header.checksum.get(), u16::from(ttl) << 8, u16::from(ttl - 1) << 8);
                decrement_ttl(&mut header);
                assert_eq!((header.ttl, header.checksum.get()), (ttl - 1, expected));
                assert_eq!(header.checksum.get(), header_checksum(&header));
            }
        }
        // The checksum that comes to 0xffff by plain addition.
        (header.ttl, header.protocol.0) = (64, 0);
        header.checksum.set(0xfeff);
        decrement_ttl(&mut header);
        assert_eq!(header.checksum.get(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn sums_agree_with_the_definition(data in prop::collection::vec(byte(), 0..100)) {
            prop_assert_eq!(ones_complement_sum(&data), naive(&data));
            let other = etherparse::checksum::Sum16BitWords::new().add_slice(&data).ones_complement().to_be();
            prop_assert_eq!(checksum(&data), other);
        }

        #[test]
        fn sums_of_parts_add_up(data in prop::collection::vec(byte(), 0..100), at in 0usize..50) {
            let (a, b) = data.split_at((at * 2).min(data.len() & !1));
            prop_assert_eq!(add(ones_complement_sum(a), ones_complement_sum(b)), naive(&data));
        }

        #[test]
        fn header_checksums(mut bytes in prop::array::uniform20(byte()), flip in 0usize..160) {
            bytes[0] = Ip4Header::VERSION_IHL;
            let mut header = Ip4Header::read_from_bytes(&bytes).unwrap();
            let mut without = bytes;
            without[10..12].fill(0);
            let expected = !naive(&without);
            prop_assert_eq!(header_checksum(&header), expected);
            let (other, _) = etherparse::Ipv4Header::from_slice(&bytes).unwrap();
            if bytes[6] & 0x80 == 0 {
                // etherparse doesn't keep the reserved bit.
                prop_assert_eq!(other.calc_header_checksum(), expected);
            }
            header.checksum.set(expected);
            let mut bytes: [u8; 20] = header.as_bytes().try_into().unwrap();
            prop_assert!(header_checksum_ok(&bytes));
            bytes[flip / 8] ^= 1 << (flip % 8);
            prop_assert!(!header_checksum_ok(&bytes));
        }

        #[test]
        fn updates_agree_with_a_new_checksum(
            mut data in prop::collection::vec(word(), 4..20), at in any::<prop::sample::Index>(), new in (word(), word()),
        ) {
            let of = |data: &[u16]| checksum(&data.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>());
            data[0] = 0x4500; // all zero is the one case where no update can tell 0 from 0xffff
            let at = 1 + at.index(data.len() - 2);
            let old = (data[at], data[at + 1]);
            let before = of(&data);
            data[at] = new.0;
            prop_assert_eq!(update_u16(before, old.0, new.0), of(&data));
            data[at + 1] = new.1;
            let long = |(high, low): (u16, u16)| u32::from(high) << 16 | u32::from(low);
            prop_assert_eq!(update_u32(before, long(old), long(new)), of(&data));
        }

        #[test]
        fn pseudo_headers(src in any::<u32>(), dst in any::<u32>(), len in word()) {
            let bytes = [&src.to_be_bytes()[..], &dst.to_be_bytes(), &[0, 17], &len.to_be_bytes()].concat();
            prop_assert_eq!(pseudo_header_sum(src.into(), dst.into(), IpProtocol::UDP, len), naive(&bytes));
        }
    }
}
