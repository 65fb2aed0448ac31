//! A kernel's file, or its configuration.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| banger_image::fuzz::kernel(bytes));
