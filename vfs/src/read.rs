//! Reading: what is in memory is answered at once, the rest is brought within the deadline, and what comes next is fetched ahead.
//!
//! Always true: an answer is made of blocks of the one version that the handle is bound to; it is short only at the end of that version.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use manifold_backends::ObjectPath;
use manifold_backends::local::LocalFile;
use manifold_catalog::{EntryId, SourceId};
use tokio::time::Instant;

use crate::cache::Shape;
use crate::counters::{add, take};
use crate::error::Cause;
use crate::fetch::{Fetcher, Object, Wanted};
use crate::handle::{OpenFile, OpenObject, Readahead};
use crate::prefetch::{Bounds, RunId};
use crate::vfs::Core;
use crate::{Answer, Error, Handle};

impl Core {
    pub(crate) fn read(self: &Arc<Self>, handle: Handle, offset: u64, length: u32) -> Answer<Bytes> {
        let Some(file) = self.files.get(handle) else {
            return Answer::err(Error::BadHandle);
        };
        let open = match &*file {
            OpenFile::Local(id, source, local) => {
                return self.read_local((handle, *id), *source, local, offset, length);
            }
            OpenFile::Kernels(..) => return Answer::err(Error::BadHandle),
            OpenFile::Object(open) => open,
        };
        if let Some(staged) = self.staged(open) {
            return self.read_staged(handle, &staged, offset, length);
        }
        let object = open.object();
        let shape = object.shape;
        let range = offset..offset.saturating_add(u64::from(length)).min(shape.size);
        if range.is_empty() {
            return Answer::ok(Bytes::new());
        }
        let (run, ahead) = self.note_read(open, &object, range.clone());
        let answer = if let Some(bytes) = self.read_memory(shape, &range) {
            add(&self.tally.reads_ready, 1);
            add(&self.tally.bytes_read, bytes.len() as u64);
            open.readahead.lock().stream.answered(run);
            Answer::ok(bytes)
        } else if let Some(error) = self.files.was_late(handle, object.id, &range) {
            open.readahead.lock().stream.answered(run);
            Answer::err(error)
        } else {
            add(&self.tally.reads_waited, 1);
            self.read_later(handle, &file, &object, range, run)
        };
        // After the reader's own blocks, so that they stand before these in the queue.
        if let Some((blocks, abandoned)) = ahead {
            self.fetcher.ahead(&object, blocks, &abandoned);
        }
        answer
    }

    /// Reads from a file of this machine, as far as it goes: at once what needs no disk, the rest within the deadline.
    fn read_local(
        self: &Arc<Self>,
        reader: (Handle, EntryId),
        source: SourceId,
        file: &Arc<LocalFile>,
        offset: u64,
        length: u32,
    ) -> Answer<Bytes> {
        if let Some(result) = file.read_now(offset, length) {
            add(&self.tally.reads_ready, 1);
            self.count_read(&result);
            return Answer::Ready(result.map_err(|error| Error::from_backend(&Arc::new(error))));
        }
        add(&self.tally.reads_waited, 1);
        let (core, file) = (Arc::clone(self), Arc::clone(file));
        let range = offset..offset.saturating_add(u64::from(length));
        self.wait_once(reader, range, async move {
            let deadline = core.settings.data_deadline;
            let reading = file.read(offset, length);
            // Only what may hang tells of its source's health; a disk that takes its time does not.
            let result = if file.may_hang() {
                let asked = core.indexer.ask(source, file.path(), deadline, reading);
                asked.await.map_err(Error::from_index)
            } else {
                match tokio::time::timeout(deadline, reading).await {
                    Ok(read) => read.map_err(|error| Error::from_backend(&Arc::new(error))),
                    Err(_) => Err(silence(file.path(), deadline)),
                }
            };
            core.count_read(&result);
            if matches!(result, Err(Error::TimedOut(_))) {
                add(&core.tally.reads_timed_out, 1);
            }
            result
        })
    }

    /// Waits for a read, unless whoever reads has waited for the same bytes already.
    pub(crate) fn wait_once(
        self: &Arc<Self>,
        (handle, id): (Handle, EntryId),
        range: Range<u64>,
        reading: impl Future<Output = Result<Bytes, Error>> + Send + 'static,
    ) -> Answer<Bytes> {
        if let Some(error) = self.files.was_late(handle, id, &range) {
            return Answer::err(error);
        }
        let (core, begun) = (Arc::clone(self), Instant::now());
        Answer::Pending(Box::pin(async move {
            let result = reading.await;
            if let Err(error) = &result {
                core.note_late(id, range, begun, error);
            }
            result
        }))
    }

    /// Takes note of a read that failed, if that took so long that a second would not be done within the deadline either.
    fn note_late(&self, id: EntryId, range: Range<u64>, begun: Instant, error: &Error) {
        if begun.elapsed() >= self.settings.data_deadline / 2 {
            self.files.note_late(id, range, error);
        }
    }

    fn count_read<E>(&self, result: &Result<Bytes, E>) {
        let bytes = result.as_ref().map_or(0, |bytes| bytes.len() as u64);
        add(&self.tally.bytes_read, bytes);
    }

    /// Learns from a read what to fetch ahead.
    fn note_read(
        &self,
        open: &OpenObject,
        object: &Object,
        range: Range<u64>,
    ) -> (RunId, Option<(Range<u64>, crate::fetch::Abandoned)>) {
        let shape = object.shape;
        let block_size = u64::from(shape.block_size);
        let bounds = Bounds {
            size: shape.size,
            block_size,
            window_max: self.window_max(object),
        };
        let mut readahead = open.readahead.lock();
        let seen = readahead.stream.read(range, bounds);
        if seen.closed {
            self.abandon(&mut readahead);
        }
        if seen.open && !readahead.open {
            readahead.open = true;
            self.windows.fetch_add(1, Ordering::Relaxed);
        }
        let abandoned = Arc::clone(&readahead.abandoned);
        drop(readahead);
        if seen.closed {
            self.fetcher.forget_abandoned(object);
        }
        let blocks = seen.ahead.map(|it| it.start / block_size..it.end.div_ceil(block_size));
        (seen.run, blocks.map(|blocks| (blocks, abandoned)))
    }

    /// Closes a handle's window: what was asked for and has not gone out yet is not wanted any more.
    pub(crate) fn abandon(&self, readahead: &mut Readahead) {
        readahead.abandoned.store(true, Ordering::Relaxed);
        readahead.abandoned = Arc::default();
        if std::mem::take(&mut readahead.open) {
            self.windows.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Gives the widest window for one handle: its share of half the memory for blocks, and no more than keeps its source busy twice over.
    fn window_max(&self, object: &Object) -> u64 {
        let share = self.memory_for_blocks / 2 / self.windows.load(Ordering::Relaxed).max(1);
        let request = object.run_max * u64::from(object.shape.block_size);
        let busy = request.saturating_mul(u64::from(object.concurrency)).saturating_mul(2);
        self.settings.prefetch_bytes.min(share).min(busy)
    }

    /// Answers from memory alone, if all of it is there.
    fn read_memory(&self, shape: Shape, range: &Range<u64>) -> Option<Bytes> {
        let blocks = blocks_of(shape, range);
        if blocks.end - blocks.start == 1 {
            let block = self.cache.in_memory(shape.block(blocks.start))?;
            add(&self.tally.memory_hits, 1);
            return Some(block.slice(within(shape, blocks.start, range)));
        }
        if !blocks.clone().all(|index| self.cache.is_in_memory(shape.block(index))) {
            return None;
        }
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        for index in blocks.clone() {
            let block = self.cache.in_memory(shape.block(index))?;
            bytes.extend_from_slice(&block[within(shape, index, range)]);
        }
        add(&self.tally.memory_hits, blocks.end - blocks.start);
        Some(bytes.into())
    }

    /// Tells whether a handle is bound to another version, or place, than the one that could not be read, and binds it to that of the
    /// catalog where nobody has yet. While an entry of a remote source is open, it gets another version only by what is done
    /// through the mount; the catalog has that before those are told who have it open.
    fn is_bound_anew(&self, open: &OpenObject, object: &Arc<Object>) -> bool {
        if !Arc::ptr_eq(&open.object(), object) {
            return true;
        }
        // One that has lost its name, or changes in place, stays as it was opened.
        match Object::find(&self.catalog, &self.indexer, object.id) {
            Ok((now, _))
                if (&now.version, &now.path) != (&object.version, &object.path) && !self.is_local(object.source) =>
            {
                self.files.rebind(object.id, &Arc::new(now));
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    fn is_local(&self, source: SourceId) -> bool {
        let backend = self.indexer.backend(source);
        backend.is_some_and(|backend| backend.as_local().is_some())
    }

    fn read_later(
        self: &Arc<Self>,
        handle: Handle,
        file: &Arc<OpenFile>,
        object: &Arc<Object>,
        range: Range<u64>,
        run: RunId,
    ) -> Answer<Bytes> {
        let shape = object.shape;
        let wanted = self.fetcher.want(object, blocks_of(shape, &range));
        for (index, it) in &wanted {
            if matches!(it, Wanted::Coming { first: true, .. })
                && let OpenFile::Object(open) = &**file
            {
                open.readahead
                    .lock()
                    .stream
                    .missed(run, (index + 1) * u64::from(shape.block_size));
            }
        }
        let (core, file, object) = (Arc::clone(self), Arc::clone(file), Arc::clone(object));
        let begun = Instant::now();
        Answer::Pending(Box::pin(async move {
            let deadline = core.settings.data_deadline;
            let fetcher = Arc::clone(&core.fetcher);
            let mut leaving = Leaving::begin(&core.fetcher, &object);
            let assemble = async {
                if let [(index, _)] = wanted[..] {
                    let block = match wanted.into_iter().next() {
                        Some((_, Wanted::Here(block))) => block,
                        Some((_, Wanted::Coming { wait, .. })) => fetcher.bring(&object, index, wait).await?,
                        None => Bytes::new(),
                    };
                    return Ok(block.slice(within(shape, index, &range)));
                }
                // Each block is let go as soon as its part is copied: a reader that waits for one holds no other.
                let mut bytes = vec![0; (range.end - range.start) as usize];
                let mut coming = Vec::new();
                for (index, it) in wanted {
                    match it {
                        Wanted::Here(block) => copy_part(shape, index, &range, &block, &mut bytes),
                        Wanted::Coming { wait, .. } => coming.push((index, wait)),
                    }
                }
                for (index, wait) in coming {
                    let block = fetcher.bring(&object, index, wait).await?;
                    copy_part(shape, index, &range, &block, &mut bytes);
                }
                Ok(Bytes::from(bytes))
            };
            let result = tokio::time::timeout(deadline, assemble).await.unwrap_or_else(|_| {
                add(&core.tally.reads_timed_out, 1);
                let out_of_reach = core.indexer.out_of_reach(object.source).map(Error::from_index);
                Err(out_of_reach.unwrap_or_else(|| silence(&object.path, deadline)))
            });
            core.count_read(&result);
            leaving.answered = result.is_ok();
            drop(leaving);
            if let OpenFile::Object(open) = &*file {
                open.readahead.lock().stream.answered(run);
                // It was given another place at its source on the way, and its old one taken away; its bytes are the same.
                if matches!(result, Err(Error::Stale)) && core.is_bound_anew(open, &object) {
                    let length = (range.end - range.start) as u32;
                    return core.read(handle, range.start, length).wait().await;
                }
            }
            if let Err(error) = &result {
                core.note_late(object.id, range, begun, error);
            }
            result
        }))
    }
}

/// Takes what a reader has asked for out of the queue when he goes without it: his time is up, or he is gone himself. What
/// others wait for stays, and so does what has gone out.
struct Leaving<'a> {
    fetcher: &'a Fetcher,
    object: &'a Object,
    answered: bool,
}

impl<'a> Leaving<'a> {
    fn begin(fetcher: &'a Fetcher, object: &'a Object) -> Self {
        add(&fetcher.tally.reads_waiting, 1);
        Self {
            fetcher,
            object,
            answered: false,
        }
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        take(&self.fetcher.tally.reads_waiting, 1);
        if !self.answered {
            self.fetcher.forget_abandoned(self.object);
        }
    }
}

/// Names the blocks that hold a range, which is not empty.
pub(crate) fn blocks_of(shape: Shape, range: &Range<u64>) -> Range<u64> {
    let block_size = u64::from(shape.block_size);
    range.start / block_size..range.end.div_ceil(block_size)
}

/// Says which bytes of a block belong to a range that touches it.
pub(crate) fn within(shape: Shape, index: u64, range: &Range<u64>) -> Range<usize> {
    let start = index * u64::from(shape.block_size);
    let end = start + shape.block_len(index);
    (range.start.max(start) - start) as usize..(range.end.min(end) - start) as usize
}

fn copy_part(shape: Shape, index: u64, range: &Range<u64>, block: &[u8], bytes: &mut [u8]) {
    let part = &block[within(shape, index, range)];
    let at = (index * u64::from(shape.block_size)).saturating_sub(range.start) as usize;
    bytes[at..at + part.len()].copy_from_slice(part);
}

fn silence(path: &ObjectPath, deadline: Duration) -> Error {
    let after = deadline.as_secs_f32();
    Error::TimedOut(Cause::new(format!("read {path}: no answer within {after} s")))
}
