//! Runs [`kuboard_fuzz::documents`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kuboard_fuzz::documents(input));
