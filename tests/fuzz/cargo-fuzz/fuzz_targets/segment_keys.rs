//! Runs [`floortape_fuzz::segment_keys`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::segment_keys(data));
