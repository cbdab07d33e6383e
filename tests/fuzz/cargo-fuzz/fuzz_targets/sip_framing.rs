//! Runs [`floortape_fuzz::sip_framing`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floortape_fuzz::sip_framing(data));
