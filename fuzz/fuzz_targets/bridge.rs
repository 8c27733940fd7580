//! See `wharf_fuzz::bridge`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf_fuzz::bridge::run(data));
