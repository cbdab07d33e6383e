//! Runs [`floortape_fuzz::tar`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::tar(data));
