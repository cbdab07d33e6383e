//! Runs [`floortape_fuzz::handoff`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::handoff(data));
