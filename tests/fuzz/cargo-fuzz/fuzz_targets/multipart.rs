//! Runs [`floortape_fuzz::multipart`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::multipart(data));
