//! Any bytes may stand in a journal row of the staging area. `cargo +nightly fuzz run staged_row`, from this folder's parent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use manifold_vfs::staging::row::Row;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(row) = Row::parse(bytes) {
        assert!(row.extents.end() <= row.size);
        assert!(row.base.as_ref().is_none_or(|base| base.shows <= base.size));
        let again = row.encode();
        assert_eq!(Row::parse(&again), Ok(row));
        // Of a former version, it is not the same bytes.
        assert!(again == bytes || bytes[0] != again[0]);
    }
});
