//! A kernel bundle.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| banger_image::fuzz::kernel_bundle(bytes));
