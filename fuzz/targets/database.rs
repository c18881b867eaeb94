//! Runs [`kuboard_fuzz::database`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kuboard_fuzz::database(input));
