//! See `wharf_fuzz::startup_conf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf_fuzz::startup_conf::run(data));
