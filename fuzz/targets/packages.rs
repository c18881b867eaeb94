//! Runs [`kuboard_fuzz::packages`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kuboard_fuzz::packages(input));
