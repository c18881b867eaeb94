//! Runs [`kuboard_fuzz::version`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kuboard_fuzz::version(input));
