//! Runs [`floortape_fuzz::segment`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::segment(data));
