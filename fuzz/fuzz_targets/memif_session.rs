//! See `wharf_fuzz::memif_session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf_fuzz::memif_session::run(data));
