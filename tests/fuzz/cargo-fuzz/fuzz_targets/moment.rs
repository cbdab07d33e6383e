//! Runs [`floortape_fuzz::moment`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::moment(data));
