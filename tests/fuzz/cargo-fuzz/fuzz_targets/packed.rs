//! Runs [`floortape_fuzz::packed`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::packed(data));
