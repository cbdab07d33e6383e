//! Runs [`floortape_fuzz::srtp`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::srtp(data));
