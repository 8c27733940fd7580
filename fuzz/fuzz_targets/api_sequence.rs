//! See `wharf_fuzz::api_sequence`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf_fuzz::api_sequence::run(data));
