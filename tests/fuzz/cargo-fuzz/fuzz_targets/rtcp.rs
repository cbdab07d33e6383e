//! Runs [`floortape_fuzz::rtcp`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::rtcp(data));
