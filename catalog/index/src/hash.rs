//! Reads files of their sources in full, to learn their contents: one when it is asked for, or bit by bit all of those that
//! may have a copy elsewhere.
//!
//! Two files can only hold the same bytes if they have the same size, and a copy helps a reader only where it lies in
//! another source. So the job behind reads no file but those whose size is that of a file of another source. It keeps no
//! list: what is done stands in the catalog, and each round goes through the catalog in the order of ids.
//!
//! Always true:
//! - a content is recorded only if every byte of it was read under one version, which the source and the catalog still had
//!   in the end;
//! - none is recorded for a version that another change may have within the grain of its source's times: it is read a while
//!   after the version was first seen, so that what changes after that has another;
//! - the job makes one request at a time, in the scan's share of its source, and never faster than its rate.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use manifold_backends::{Error, ErrorKind, ObjectPath, Operation, Presence, Version};
use manifold_catalog::{Details, EntryId, FileFacts, Hashed, Kind, SourceId};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::indexer::Target;
use crate::{IndexError, Indexer};

/// The most bytes of one request.
const CHUNK_MAX: u64 = 4 << 20;
/// How many entries are looked at at once.
const PAGE: usize = 4_096;
/// How long after a round the next one looks whether anything is new.
const ROUND_EVERY: Duration = Duration::from_mins(5);
/// What was changed longer ago than that, by this machine's clock, is taken to be left alone: no source's clock is so wrong.
const LONG_AGO_NS: i64 = 24 * 60 * 60 * 1_000_000_000;
const MINUTE_NS: i64 = 60 * 1_000_000_000;
/// Of a size that more than one source has.
const SEVERAL: SourceId = SourceId::LIBRARY;

/// Which files the job behind reads, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSettings {
    /// Files of this machine.
    pub local: bool,
    /// Files of other sources: each candidate is fetched in full.
    pub remote: bool,
    /// Bytes a second; 0: as fast as it goes.
    pub rate: u64,
}

/// A version of a file, and when it was there already.
#[derive(Clone, Debug)]
struct Sighting {
    version: Box<[u8]>,
    at: Instant,
}

/// Lets a reader have so many bytes a second.
struct Pace {
    rate: u64,
    free_at: Instant,
}

impl Pace {
    fn new(rate: u64) -> Self {
        let free_at = Instant::now();
        Self { rate, free_at }
    }

    /// Waits until as much time has passed as what was read before may take.
    async fn wait(&mut self, bytes: u64) {
        if self.rate > 0 {
            sleep_until(self.free_at).await;
            let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
            self.free_at = self.free_at.max(Instant::now()) + cost;
        }
    }
}

impl Indexer {
    /// Gives the BLAKE3 of a file, which is read in full where it is not known, and recorded.
    ///
    /// # Errors
    /// The file could not be read to its end, or changed while it was read.
    pub async fn hash(&self, id: EntryId) -> Result<[u8; 32], IndexError> {
        self.hash_at(id, &mut Pace::new(0), None).await
    }

    /// Learns the contents of files that may have a copy in another source, from now on and until the indexer is stopped.
    pub fn hash_in_background(self: &Arc<Self>, settings: HashSettings) {
        if !settings.local && !settings.remote {
            return;
        }
        let indexer = Arc::clone(self);
        let job = async move {
            let cancel = indexer.stopping();
            tokio::select! {
                () = cancel.cancelled() => {}
                () = indexer.hash_rounds(settings) => {}
            }
        };
        self.tasks.spawn_on(job, &self.runtime);
    }

    async fn hash_rounds(&self, settings: HashSettings) {
        let mut before = None;
        loop {
            // A round over a library that is as it was would find what it found before.
            let now = self.catalog().totals().ok();
            if now.is_none() || now != before {
                match self.hash_round(settings).await {
                    Ok(0) => {}
                    Ok(hashed) => tracing::info!(files = hashed, "learnt what files hold that may have copies"),
                    Err(error) => tracing::warn!(%error, "cannot look for files that may have copies"),
                }
                before = now;
            }
            sleep(ROUND_EVERY).await;
        }
    }

    /// Hashes every file once that may have a copy in another source. Gives the number of those that were learnt.
    ///
    /// A file that cannot be read is left for the next round, and so is the rest of a source that does not answer.
    ///
    /// # Errors
    /// The catalog failed.
    pub async fn hash_round(&self, settings: HashSettings) -> Result<u64, IndexError> {
        let sizes = self.sizes().await?;
        let mut pace = Pace::new(settings.rate);
        let mut given_up = Vec::new();
        let (mut hashed, mut after) = (0, None);
        loop {
            let (files, next) = self.files(after).await?;
            let is_candidate = |file: &FileFacts| {
                let is_wanted = file.unhashed && file.size > 0 && self.may_hash(file.source, settings);
                is_wanted && sizes.get(&file.size).is_some_and(|it| *it == SEVERAL)
            };
            let candidates: Vec<_> = files.into_iter().filter(is_candidate).collect();
            // All of them are seen before the first has to be waited for.
            let sightings = self.sightings(candidates.iter().map(|file| file.id).collect()).await?;
            for (file, sighting) in candidates.into_iter().zip(sightings) {
                if given_up.contains(&file.source) {
                    continue;
                }
                match self.hash_at(file.id, &mut pace, sighting).await {
                    Ok(_) => hashed += 1,
                    Err(error) => {
                        tracing::debug!(id = file.id.0, %error, "a file could not be hashed");
                        if error.is_about_source() {
                            given_up.push(file.source);
                        }
                    }
                }
            }
            if next.is_none() {
                return Ok(hashed);
            }
            after = next;
        }
    }

    fn may_hash(&self, source: SourceId, settings: HashSettings) -> bool {
        self.backend(source).is_some_and(|backend| {
            if backend.as_local().is_some() {
                settings.local
            } else {
                settings.remote
            }
        })
    }

    /// Gives the sizes of all files, with the source that alone has files of that size.
    async fn sizes(&self) -> Result<HashMap<u64, SourceId>, IndexError> {
        let mut sizes = HashMap::new();
        let mut after = None;
        loop {
            let (files, next) = self.files(after).await?;
            for file in files {
                let of = sizes.entry(file.size).or_insert(file.source);
                if *of != file.source {
                    *of = SEVERAL;
                }
            }
            if next.is_none() {
                return Ok(sizes);
            }
            after = next;
        }
    }

    async fn files(&self, after: Option<EntryId>) -> Result<(Vec<FileFacts>, Option<EntryId>), IndexError> {
        self.blocking(move |catalog| Ok(catalog.files(after, PAGE)?)).await
    }

    /// Tells which versions files have now.
    async fn sightings(&self, ids: Vec<EntryId>) -> Result<Vec<Option<Sighting>>, IndexError> {
        self.blocking(move |catalog| {
            let mut sightings = Vec::with_capacity(ids.len());
            for id in ids {
                let details = catalog.details(id)?;
                sightings.push(details.map(|details| Sighting::of(&details)));
            }
            Ok(sightings)
        })
        .await
    }

    /// Waits until whatever changes a file from now on gives it another version than the one that was seen.
    async fn let_settle(&self, target: &Target, sighting: &Sighting, modified_ns: i64) -> Result<(), IndexError> {
        let Some(grain) = Version::from_stored(&sighting.version).grain() else {
            return Ok(());
        };
        if modified_ns < self.clock().now_ns().saturating_sub(LONG_AGO_NS) {
            return Ok(());
        }
        if target.source.backend.capabilities().tells_minutes && modified_ns % MINUTE_NS == 0 {
            return Err(target.changed(
                "it was changed within the last day, and its source tells of minutes alone: another change could not be seen; ask again tomorrow",
            ));
        }
        sleep_until(sighting.at + 2 * grain).await;
        Ok(())
    }

    async fn hash_at(&self, id: EntryId, pace: &mut Pace, seen: Option<Sighting>) -> Result<[u8; 32], IndexError> {
        let target = self.target(id)?.filter(|target| target.kind == Kind::File);
        let target = target.ok_or(IndexError::NotFound(id.0))?;
        let details = self.catalog().details(id)?.ok_or(IndexError::NotFound(id.0))?;
        let entry = self.catalog().entry(id)?.ok_or(IndexError::NotFound(id.0))?;
        if let Some(content) = details.content {
            return Ok(content);
        }
        let sighting = seen.filter(|seen| seen.version == details.version);
        let sighting = sighting.unwrap_or_else(|| Sighting::of(&details));
        self.let_settle(&target, &sighting, entry.modified_ns).await?;
        let version = Version::from_stored(&details.version);
        let content = self.read_all(&target, &version, entry.size, pace).await?;
        // What is read in parts may have been written to in between, within the grain of the source's times.
        let asked = target.source.backend.stat(&target.path);
        let seen = timeout(self.settings().stat_timeout, asked).await;
        let seen = seen.map_err(|_| target.timed_out(self.settings().stat_timeout))??;
        let same = matches!(&seen, Presence::Found(seen) if seen.version == version && seen.size == entry.size);
        let hashed = Hashed {
            id,
            version: details.version,
            size: entry.size,
            content,
        };
        if same
            && self
                .blocking(move |catalog| Ok(catalog.set_contents(&[hashed])?))
                .await?
                == 1
        {
            return Ok(content);
        }
        Err(target.changed("it changed while it was read"))
    }

    async fn read_all(
        &self,
        target: &Target,
        version: &Version,
        size: u64,
        pace: &mut Pace,
    ) -> Result<[u8; 32], IndexError> {
        let chunk = u64::from(target.source.backend.capabilities().read_size_max).clamp(1, CHUNK_MAX);
        let patience = self.settings().listing_idle_timeout;
        let mut hasher = Box::new(blake3::Hasher::new());
        let mut at = 0;
        while at < size {
            let range = at..(at + chunk).min(size);
            pace.wait(range.end - range.start).await;
            let _turn = target.source.background_turn().await?;
            let read = self.read(
                target.source.id,
                &target.path,
                version,
                range.clone(),
                chunk as u32,
                patience,
            );
            let blocks = match read.await? {
                Presence::Found(blocks) => blocks,
                Presence::Absent => return Err(IndexError::NotFound(target.directory.0)),
            };
            if blocks.iter().map(|block| block.len() as u64).sum::<u64>() != range.end - range.start {
                return Err(target.changed("the source gave another number of bytes than was asked for"));
            }
            hasher = self
                .blocking(move |_| {
                    for block in &blocks {
                        hasher.update(block);
                    }
                    Ok(hasher)
                })
                .await?;
            at = range.end;
        }
        Ok(hasher.finalize().into())
    }
}

impl Sighting {
    fn of(details: &Details) -> Self {
        Self {
            version: details.version.clone(),
            at: Instant::now(),
        }
    }
}

impl Target {
    fn timed_out(&self, after: Duration) -> IndexError {
        IndexError::TimedOut {
            source_name: self.source.backend.name().to_owned(),
            path: self.path.to_string(),
            after,
        }
    }

    fn changed(&self, why: &'static str) -> IndexError {
        let (name, path): (_, ObjectPath) = (self.source.backend.name().to_owned(), self.path.clone());
        Error::new(ErrorKind::VersionChanged, Operation::Read, name, path, why).into()
    }
}
