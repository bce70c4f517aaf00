//! Any bytes as any row of the catalog: decoded or refused, never a panic, and what was read is read again.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| manifold_catalog::decode_any(bytes));
