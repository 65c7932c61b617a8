#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| reelay::fuzz::run("ledger", bytes));
