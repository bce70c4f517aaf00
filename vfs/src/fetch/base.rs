//! What shows through of the object that a staged file was made from.

use std::sync::Arc;

use bytes::Bytes;
use manifold_backends::{Presence, Version};
use manifold_catalog::EntryId;

use super::{Fetcher, Object, Wanted};
use crate::Error;
use crate::error::Cause;
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
    let (catalog, indexer, size) = (&fetcher.catalog, &fetcher.indexer, rest.base.size);
    let place = if rest.base.is_origin {
        catalog.origin_place(id)
    } else {
        catalog.object_path(id)
    };
    if let Some((source, _)) = place.map_err(Error::from_catalog)? {
        // Whether it was connected in time is seen next.
        let _in_time = tokio::time::timeout(fetcher.deadline, indexer.until_connected(source)).await;
    }
    let object = if rest.base.is_origin {
        Object::of_origin(catalog, indexer, id, version, size)?
    } else {
        Object::of_version(catalog, indexer, id, version, size)?
    };
    let backend = indexer.backend(object.source);
    if backend.is_some_and(|backend| backend.as_local().is_some()) {
        return fill_from_disk(fetcher, &object, rest, offset, buffer).await;
    }
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

/// The same from a file of this machine, which needs no cache.
async fn fill_from_disk(
    fetcher: &Fetcher,
    object: &Object,
    rest: &Rest,
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), Error> {
    let (path, block_size) = (fetcher.current_path(object)?, object.shape.block_size);
    let most = object.run_max * u64::from(block_size);
    for range in &rest.ranges {
        let mut at = range.start;
        while at < range.end {
            let part = at..range.end.min(at + most);
            let (version, deadline) = (&object.version, fetcher.deadline);
            let asked = fetcher
                .indexer
                .read(object.source, &path, version, part.clone(), block_size, deadline);
            let Presence::Found(blocks) = asked.await.map_err(Error::from_index)? else {
                return Err(Error::Stale);
            };
            let bytes = blocks.concat();
            if bytes.len() as u64 != part.end - part.start {
                return Err(Error::Io(Cause::new("the disk gave other bytes than it was asked for")));
            }
            let place = (at - offset) as usize;
            buffer[place..place + bytes.len()].copy_from_slice(&bytes);
            at = part.end;
        }
    }
    Ok(())
}
