//! Any bytes may stand in a map file of the disk cache. `cargo +nightly fuzz run cache_map`, from this folder's parent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use manifold_vfs::cache::map;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(map::Map { header, blocks, .. }) = map::parse(bytes) {
        assert!(blocks.keys().all(|index| *index < header.block_count()));
        assert!(blocks.len() <= bytes.len() / map::RECORD_LEN);
    }
});
