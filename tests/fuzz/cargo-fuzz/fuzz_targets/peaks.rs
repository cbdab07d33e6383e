//! Runs [`floortape_fuzz::peaks`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::peaks(data));
