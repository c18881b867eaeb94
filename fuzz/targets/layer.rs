//! Runs [`kuboard_fuzz::layer`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kuboard_fuzz::layer(input));
