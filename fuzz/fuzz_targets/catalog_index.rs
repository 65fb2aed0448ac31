//! A catalog and its index.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| banger_image::fuzz::catalog_index(bytes));
