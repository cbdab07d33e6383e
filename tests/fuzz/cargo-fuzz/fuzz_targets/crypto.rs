//! Runs [`floortape_fuzz::crypto`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::crypto(data));
