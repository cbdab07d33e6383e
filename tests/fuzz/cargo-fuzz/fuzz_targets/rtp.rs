//! Runs [`floortape_fuzz::rtp`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::rtp(data));
