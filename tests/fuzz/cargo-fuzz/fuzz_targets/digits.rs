//! Runs [`floortape_fuzz::digits`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::digits(data));
