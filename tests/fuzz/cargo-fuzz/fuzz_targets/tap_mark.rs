//! Runs [`floortape_fuzz::tap_mark`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::tap_mark(data));
