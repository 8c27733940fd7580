//! See `wharf_fuzz::memif_messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf_fuzz::memif_messages::run(data));
