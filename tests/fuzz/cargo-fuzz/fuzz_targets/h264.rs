//! Runs [`floortape_fuzz::h264`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::h264(data));
