//! A tar of a kernel's modules directory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| banger_image::fuzz::kernel_modules(bytes));
