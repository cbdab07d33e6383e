//! Runs [`floortape_fuzz::thinned`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::thinned(data));
