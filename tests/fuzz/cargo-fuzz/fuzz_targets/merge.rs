//! Runs [`floortape_fuzz::merge`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::merge(data));
