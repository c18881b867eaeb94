//! Runs [`kuboard_fuzz::challenge`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kuboard_fuzz::challenge(input));
