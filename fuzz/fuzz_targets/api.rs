//! See `wharf_fuzz::api`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf_fuzz::api::run(data));
