//! See `wharf_fuzz::pg`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf_fuzz::pg::run(data));
