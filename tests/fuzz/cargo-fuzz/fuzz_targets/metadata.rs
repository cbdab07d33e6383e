//! Runs [`floortape_fuzz::metadata`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::metadata(data));
