#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    kvsync::fuzzing::message(data);
});
