//! Runs [`kuboard_fuzz::review`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kuboard_fuzz::review(input));
