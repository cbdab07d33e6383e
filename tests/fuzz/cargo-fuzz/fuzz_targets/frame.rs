//! Runs [`floortape_fuzz::frame`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::frame(data));
