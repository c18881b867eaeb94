//! Runs [`kuboard_fuzz::range`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kuboard_fuzz::range(input));
