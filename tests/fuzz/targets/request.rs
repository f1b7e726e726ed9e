//! Any bytes as a request; see `oracle.rs` for what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portico::oracle::request(input));
