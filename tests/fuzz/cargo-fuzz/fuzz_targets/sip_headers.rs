//! Runs [`floortape_fuzz::sip_headers`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::sip_headers(data));
