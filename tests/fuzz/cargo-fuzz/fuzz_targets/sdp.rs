//! Runs [`floortape_fuzz::sdp`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::sdp(data));
