//! Runs [`floortape_fuzz::evidence`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::evidence(data));
