//! Runs [`floortape_fuzz::store_keys`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::store_keys(data));
