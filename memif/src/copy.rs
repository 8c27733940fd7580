//! Copies between shared and private memory.
//!
//! Exactly `len` bytes are read and written, in blocks of up to 64: a length that is no multiple of the block is
//! finished by a last block that overlaps the one before. So a short copy costs no byte loop, and no stale byte
//! behind a packet reaches the peer.

use std::ptr;

/// Whether the loops around the copies may run as compiled for AVX2, whose registers halve the moves.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2")
}

/// Up to here blocks beat a call of memcpy.
const INLINE: usize = 512;

/// # Safety
/// As [`ptr::copy_nonoverlapping`] of `N` bytes from `src + at` to `dst + at`, except that another process may
/// write the shared one of the two areas meanwhile; the bytes are then any mix.
#[inline(always)]
unsafe fn block<const N: usize>(src: *const u8, dst: *mut u8, at: usize) {
    // SAFETY: passed on to the caller.
    unsafe { ptr::copy_nonoverlapping(src.add(at), dst.add(at), N) }
}

/// Copies `len` bytes.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of `len` bytes, and they don't overlap. The shared one of the
/// two may be written by another process at the same time, so no reference to it may exist.
#[inline(always)]
pub(crate) unsafe fn copy(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: every block lies within `0..len`: its start is at most `len - N`.
    unsafe {
        // First the shortest frames: of them there are most.
        if len.wrapping_sub(32) <= 32 {
            block::<32>(src, dst, 0);
            block::<32>(src, dst, len - 32);
        } else if len > INLINE {
            ptr::copy_nonoverlapping(src, dst, len);
        } else if len > 64 {
            let last = len - 64;
            let mut at = 0;
            while at < last {
                block::<64>(src, dst, at);
                at += 64;
            }
            block::<64>(src, dst, last);
        } else {
            short(src, dst, len);
        }
    }
}

/// [`copy`] of fewer than 32 bytes: runts.
///
/// # Safety
/// As [`copy`].
#[inline]
unsafe fn short(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: as in `copy`.
    unsafe {
        if len >= 16 {
            block::<16>(src, dst, 0);
            block::<16>(src, dst, len - 16);
        } else if len >= 8 {
            block::<8>(src, dst, 0);
            block::<8>(src, dst, len - 8);
        } else if len >= 4 {
            block::<4>(src, dst, 0);
            block::<4>(src, dst, len - 4);
        } else {
            for at in 0..len {
                block::<1>(src, dst, at);
            }
        }
    }
}

/// Hints that the line at `address` will be read. Any address will do.
#[inline(always)]
pub(crate) fn prefetch_read(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on the cache, and does not fault.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// Hints that the line at `address` will be written. Any address will do.
#[inline(always)]
pub(crate) fn prefetch_write(address: *const u8) {
    // By hand: without a target feature of its own the intrinsic becomes a prefetch for reading, and the line comes twice.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `prefetch_read`; a processor of this architecture without the instruction takes it as no operation.
    unsafe {
        std::arch::asm!("prefetchw [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as in `prefetch_read`.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    unsafe fn copy_avx2(src: *const u8, dst: *mut u8, len: usize) {
        // SAFETY: passed on to the caller.
        unsafe { copy(src, dst, len) }
    }

    #[test]
    fn exactly_the_bytes_asked_for() {
        check(copy);
        #[cfg(target_arch = "x86_64")]
        if has_avx2() {
            check(copy_avx2);
        }
    }

    fn check(copy: unsafe fn(*const u8, *mut u8, usize)) {
        let src: Vec<u8> = (0..1200u32).map(|i| (i * 7 + 1) as u8 | 1).collect();
        for len in 0..=1100 {
            let mut dst = vec![0u8; 1200];
            // SAFETY: both have at least `len + 1` bytes from there on.
            unsafe { copy(src.as_ptr().add(3), dst.as_mut_ptr().add(5), len) };
            assert_eq!(dst[5..5 + len], src[3..3 + len], "{len}");
            assert!(dst[..5].iter().chain(&dst[5 + len..]).all(|b| *b == 0), "{len}");
        }
    }
}
