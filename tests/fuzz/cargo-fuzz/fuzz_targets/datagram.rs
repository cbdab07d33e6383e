//! Runs [`floortape_fuzz::datagram`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::datagram(data));
