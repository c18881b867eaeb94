//! Runs [`kuboard_fuzz::feeds`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kuboard_fuzz::feeds(input));
