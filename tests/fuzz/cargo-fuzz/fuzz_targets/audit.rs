//! Runs [`floortape_fuzz::audit`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::audit(data));
