//! Runs [`kuboard_fuzz::manifest`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kuboard_fuzz::manifest(input));
