//! Runs [`kuboard_fuzz::reference`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kuboard_fuzz::reference(input));
