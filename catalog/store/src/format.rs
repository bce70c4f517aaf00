//! The format of the catalog's file: its tables, and the rows in them (docs/catalog-format.md tells it byte by byte).
//!
//! Everything here is a pure function of bytes. Every decoder takes any bytes: what cannot be a row is
//! [`Malformed`], never a panic.

mod cold;
mod crossings;
mod hot;
mod kept;
mod keys;
mod links;
mod moves;
mod origins;
mod parts;
mod pins;
mod records;
mod renames;
mod sent;
mod staged;

use redb::TableDefinition;

pub(crate) use cold::{Cold, ColdView};
pub(crate) use crossings::{CROSSING_TEXT_MAX, CrossingRow, MarkRow};
pub(crate) use hot::{HOT_BYTES, HotRow};
pub use kept::KEPT_ATTRIBUTES_MAX;
pub(crate) use kept::KeptRow;
pub(crate) use keys::{
    ChildKey, child_name, child_parent, content_id, content_key, content_range, identity_id, identity_key,
    identity_range, name_fault, owned_id, owned_key, owned_range, subtree_range,
};
pub use links::LINK_TARGET_MAX;
pub(crate) use links::LinkRow;
pub(crate) use moves::{MoveRow, MovedRow, PLACES_MAX};
pub(crate) use origins::{ORIGINS_MAX, OriginPlace, OriginsRow, left_id, left_key, left_name, left_range};
pub(crate) use parts::{PART_TEXT_MAX, PartUploadRow, SentPartRow, part_key, part_place, part_range};
pub(crate) use pins::PinRow;
pub(crate) use records::{ScanRow, SourceRow, TOTALS_BYTES, TotalsRow, decode_state, encode_state};
pub(crate) use renames::RenameRow;
pub use sent::SentState;
pub(crate) use sent::{decode_sent, encode_sent, is_sent};
pub(crate) use staged::decode_staged;
pub use staged::{STAGED_BYTES_MAX, STAGED_ROW_MAX};

/// The format that this program writes.
pub(crate) const FORMAT: u64 = 10;
/// The format that brought contents and pins.
pub(crate) const FORMAT_OF_PINS: u64 = 2;
/// The oldest format that this program brings up to date.
pub(crate) const OLDEST_FORMAT: u64 = 1;

/// Parent of the root, and of what has departed: no entry has this id.
pub(crate) const NOWHERE: u64 = 0;

pub(crate) type ChildrenTable = TableDefinition<'static, &'static [u8], &'static [u8; HOT_BYTES]>;
pub(crate) type OwnedKey = &'static [u8; 12];
pub(crate) type PartKey = &'static [u8; 12];
pub(crate) type IdentityKey = &'static [u8; 28];
pub(crate) type ContentKey = &'static [u8; 40];

/// Numbers of the catalog itself, by name.
pub(crate) const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
/// Parent and name to everything `stat` needs.
pub(crate) const CHILDREN: ChildrenTable = TableDefinition::new("children");
/// Id to parent, name, version and the rest.
pub(crate) const ENTRIES: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("entries");
/// Id of a directory to what is known of it as a whole.
pub(crate) const DIRECTORIES: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("directories");
/// Source and id of the directories that are still to be listed.
pub(crate) const QUEUE: TableDefinition<'static, OwnedKey, ()> = TableDefinition::new("queue");
/// Source, identity and id.
pub(crate) const IDENTITIES: TableDefinition<'static, IdentityKey, ()> = TableDefinition::new("identities");
/// Content and id.
pub(crate) const CONTENTS: TableDefinition<'static, ContentKey, ()> = TableDefinition::new("contents");
/// Id of what is pinned, to how.
pub(crate) const PINS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("pins");
/// Id of a policy that pins, to what its maker wrote.
pub(crate) const PIN_POLICIES: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("pin_policies");
/// Id of what has changes that its source does not have yet, to what their maker wrote of them.
pub(crate) const STAGED: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("staged");
/// Id of what is staged and short, to the bytes that were written.
pub(crate) const STAGED_BYTES: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("staged_bytes");
/// Id of what the catalog keeps more of than a hot row holds, to that.
pub(crate) const KEPT: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("kept");
/// Id of a directory whose objects are still to follow it, to the places where they lie.
pub(crate) const MOVES: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("moves");
/// Id of a file that lies elsewhere than its directory does, to where.
pub(crate) const MOVED: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("moved");
/// Id of a symbolic link, to where it points.
pub(crate) const LINKS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("links");
/// Id of a file that was moved here from another source, to where its former objects still are.
pub(crate) const ORIGINS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("origins");
/// Directory, raw name, and id of a file that has left something there under that name.
pub(crate) const LEFT: TableDefinition<'static, &'static [u8], ()> = TableDefinition::new("left");
/// Number of an upload in parts that was begun and has not ended, to what it is.
pub(crate) const PART_UPLOADS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("part_uploads");
/// Number of such an upload and of a part of it, to what the source has confirmed.
pub(crate) const SENT_PARTS: TableDefinition<'static, PartKey, &'static [u8]> = TableDefinition::new("sent_parts");
/// Id of a file or link whose copy is given its name, to where and how.
pub(crate) const CROSSINGS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("crossings");
/// Id of a directory that its source was asked to rename, to where.
pub(crate) const RENAMES: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("renames");
/// Source and id of what has left the tree, to the time when it did.
pub(crate) const DEPARTED: TableDefinition<'static, OwnedKey, i64> = TableDefinition::new("departed");
/// The sources.
pub(crate) const SOURCES: TableDefinition<'static, u32, &'static [u8]> = TableDefinition::new("sources");
/// Entries and bytes of each source.
pub(crate) const TOTALS: TableDefinition<'static, u32, &'static [u8; TOTALS_BYTES]> = TableDefinition::new("totals");
/// The last scan of each source.
pub(crate) const SCANS: TableDefinition<'static, u32, &'static [u8]> = TableDefinition::new("scans");

/// `meta`: the version of the format.
pub(crate) const META_FORMAT: &str = "format";
/// `meta`: ids from here on were never given to an entry.
pub(crate) const META_ID_LIMIT: &str = "id_limit";
/// `meta`: the name of the last durable commit, which the records of the write-ahead log carry that follow it.
pub(crate) const META_GENERATION: &str = "generation";
/// `meta`: the generation that the write-ahead log began with then; not there where none was needed.
pub(crate) const META_LOG: &str = "log";
/// `meta`: the id for the next source.
pub(crate) const META_NEXT_SOURCE: &str = "next_source";
/// `meta`: the id for the next policy that pins.
pub(crate) const META_NEXT_POLICY: &str = "next_policy";

/// Bytes that are no row of this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

/// Decodes bytes as each kind of row in turn and encodes again what could be read, for the fuzz target: any bytes are
/// taken, and what is read back is what was read first.
#[doc(hidden)]
pub fn decode_any(bytes: &[u8]) {
    if let Ok(row) = HotRow::decode(bytes) {
        let again = HotRow::decode(&row.encode()).expect("invariant: an encoded row decodes");
        assert_eq!(row, again);
    }
    if let Ok(row) = ColdView::decode(bytes) {
        let row = row.to_owned();
        let again = row.encode();
        assert_eq!(ColdView::decode(&again).map(ColdView::to_owned), Ok(row));
    }
    if let Ok(state) = decode_state(bytes) {
        assert_eq!(decode_state(&encode_state(&state)), Ok(state));
    }
    if let Ok(row) = SourceRow::decode(bytes) {
        assert_eq!(SourceRow::decode(&row.encode()), Ok(row));
    }
    if let Ok(row) = ScanRow::decode(bytes) {
        assert_eq!(ScanRow::decode(&row.encode()), Ok(row));
    }
    if let Ok(row) = PinRow::decode(bytes) {
        assert_eq!(PinRow::decode(&row.encode()), Ok(row));
    }
    if let Ok(row) = KeptRow::decode(bytes) {
        assert_eq!(row.encode(), bytes);
    }
    if let Ok(row) = MoveRow::decode(bytes) {
        assert_eq!(MoveRow::decode(&row.encode()), Ok(row));
    }
    if let Ok(row) = MovedRow::decode(bytes) {
        assert_eq!(MovedRow::decode(&row.encode()), Ok(row));
    }
    if let Ok(row) = LinkRow::decode(bytes) {
        assert_eq!(row.encode(), bytes);
    }
    if let Ok(row) = OriginsRow::decode(bytes) {
        assert_eq!(OriginsRow::decode(&row.encode()), Ok(row));
    }
    if let Ok(row) = PartUploadRow::decode(bytes) {
        assert_eq!(row.encode(), bytes);
    }
    if let Ok(row) = SentPartRow::decode(bytes) {
        assert_eq!(row.encode(), bytes);
    }
    if let Ok(row) = RenameRow::decode(bytes) {
        assert_eq!(row.encode(), bytes);
    }
    if let Ok(row) = CrossingRow::decode(bytes) {
        assert_eq!(row.encode(), bytes);
    }
    if let Ok(row) = decode_staged(bytes) {
        assert_eq!(row, bytes);
    }
    if let Some(Some(step)) = crate::store::wal::steps(bytes).next() {
        assert!(step.key.len() + step.value.map_or(0, <[u8]>::len) < bytes.len());
    }
    if let Ok(row) = TotalsRow::decode(bytes) {
        assert_eq!(TotalsRow::decode(&row.encode()), Ok(row));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode_any(&bytes);
        }

        #[test]
        fn any_bytes_of_a_plausible_length_are_decoded_without_panic(
            mut bytes in proptest::collection::vec(0u8..32, 12..120),
            length in 0u8..24,
        ) {
            bytes[9] = length;
            bytes[11] = 0;
            decode_any(&bytes);
        }

        #[test]
        fn a_cold_row_survives_its_encoding(
            parent: u64,
            name in proptest::collection::vec(any::<u8>(), 0..=255),
            version in proptest::collection::vec(any::<u8>(), 0..300),
            raw_name: Option<Vec<u8>>,
            created_ns: Option<i64>,
            device: u64,
            identity: Option<[u8; 16]>,
            content: Option<[u8; 32]>,
            attach_point: bool,
        ) {
            let cold = Cold {
                parent,
                name: name.into(),
                version: version.into(),
                raw_name: raw_name.map(Into::into),
                created_ns,
                device,
                identity,
                content,
                attach_point,
            };
            let bytes = cold.encode();
            prop_assert_eq!(ColdView::decode(&bytes).map(ColdView::to_owned), Ok(cold));
            for cut in 0..bytes.len() {
                prop_assert!(ColdView::decode(&bytes[..cut]).is_err());
            }
        }
    }
}
