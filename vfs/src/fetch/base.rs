//! What shows through of the object that a staged file was made from.

use std::sync::Arc;

use bytes::Bytes;
use manifold_backends::Version;
use manifold_catalog::EntryId;

use super::{Fetcher, Object, Wanted};
use crate::Error;
use crate::read::{blocks_of, within};
use crate::staging::Rest;

/// Fills a buffer that begins at `offset` of a staged file with what is to be taken from its base: bytes of that version, or
/// an error.
pub(crate) async fn fill(
    fetcher: &Arc<Fetcher>,
    id: EntryId,
    rest: &Rest,
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), Error> {
    let version = Version::from_stored(&rest.base.version);
    let object = Object::of_version(&fetcher.catalog, &fetcher.indexer, id, version, rest.base.size)?;
    let object = Arc::new(object);
    for range in &rest.ranges {
        let mut coming = Vec::new();
        let mut copy = |index: u64, block: &Bytes| {
            let part = &block[within(object.shape, index, range)];
            let block_start = index * u64::from(object.shape.block_size);
            let at = (range.start.max(block_start) - offset) as usize;
            buffer[at..at + part.len()].copy_from_slice(part);
        };
        for (index, wanted) in fetcher.want(&object, blocks_of(object.shape, range)) {
            match wanted {
                Wanted::Here(block) => copy(index, &block),
                Wanted::Coming { wait, .. } => coming.push((index, wait)),
            }
        }
        for (index, wait) in coming {
            copy(index, &fetcher.bring(&object, index, wait).await?);
        }
    }
    Ok(())
}
