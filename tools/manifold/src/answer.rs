//! What a library answers to each request, whether the daemon is asked or the command works by itself.

use std::ops::ControlFlow;
use std::sync::Arc;

use manifold_catalog::{Kind, NewSource, SourceId, SourceRecord, WhenStaged};
use manifold_vfs::Cursor;
use manifold_vfs::cache::{ClearScope, SourceTag};

use crate::attach;
use crate::connections::{blocking, parse_spec};
use crate::control::status::SourceStatus;
use crate::control::text::Text;
use crate::control::{
    CacheFacts, EntryFacts, EntryLine, HashLine, Listing, PAGE_MAX, Reply, Request, SourceCache, Verified,
};
use crate::failure::{Failure, Result};
use crate::find::Look;
use crate::open::OpenLibrary;
use crate::print::{count, visible};
use crate::time::{rfc3339, told};

/// How many replicas of a file are named at most.
const REPLICAS_MAX: usize = 32;

impl OpenLibrary {
    /// Answers a request. Those about a daemon are answered as by a library that has none.
    pub(crate) async fn answer(self: Arc<Self>, request: Request) -> Result<Reply> {
        match request {
            Request::Status => {
                let status = blocking(move || self.status(None, None, None)).await?;
                Ok(Reply::Status(Box::new(status)))
            }
            Request::Sources => Ok(Reply::Sources {
                sources: self.source_statuses()?,
            }),
            Request::Spec { id } => Ok(Reply::Spec {
                spec: Box::new(parse_spec(&self.record(SourceId(id))?)?),
            }),
            Request::AddSource { spec, attach, .. } => {
                let record = self.add_source(*spec, attach).await?;
                Ok(Reply::Added {
                    source: Box::new(self.source_status(&record)?),
                })
            }
            Request::SetSource { id, spec, .. } => self.set_source(SourceId(id), &spec).await.map(|()| Reply::Done),
            Request::Reconnect { id } => self.reconnect(SourceId(id)).await.map(|()| Reply::Done),
            Request::RemoveSource { id } => self.remove_source(SourceId(id)).await.map(|()| Reply::Done),
            Request::Scan { id } => self.scan(id.map(SourceId)).map(|()| Reply::Done),
            Request::Rescan { path } => self.rescan(&path).await,
            Request::RescanProgress { job } => self.rescan_progress(job).await,
            Request::List { path, after, limit } => self.list(&path, after.as_ref(), limit).await.map(Reply::Listing),
            Request::Stat { path, look } => {
                let look = if look { Look::AtSource } else { Look::Known };
                self.stat(&path, look).await.map(|facts| Reply::Entry(Box::new(facts)))
            }
            Request::Hash { path } => self.hash(&path).await.map(Reply::Hashed),
            Request::CacheShow => self.cache_facts().map(Reply::Cache),
            Request::CacheClear { source, pinned } => {
                let bytes = blocking(move || {
                    if let Some(uri) = &source {
                        self.require_source(uri)?;
                    }
                    self.cache_clear(source.as_deref(), pinned)
                })
                .await?;
                Ok(Reply::Cleared { bytes })
            }
            Request::CacheVerify => {
                let report = blocking(move || {
                    let report = self.vfs.cache().verify();
                    self.vfs.pins_changed();
                    Ok(report)
                })
                .await?;
                Ok(Reply::Verified(Verified {
                    objects: report.objects,
                    blocks: report.blocks,
                    bytes: report.bytes,
                    bad_blocks: report.bad_blocks,
                }))
            }
            Request::Pin { paths, policy } => self.pin(&paths, policy).await.map(Reply::Pinned),
            Request::Unpin { paths, policies, gone } => self.unpin(&paths, &policies, gone).await.map(|()| Reply::Done),
            Request::Pins { skip } => self.pins(skip).await.map(|facts| Reply::Pins(Box::new(facts))),
            Request::Uploads { skip } => self.uploads(skip),
            Request::RetryUploads => Ok(Reply::Retried {
                uploads: self.vfs.retry_uploads(),
            }),
            Request::Events | Request::Metrics { .. } | Request::Stop => Err(Failure::new(format!(
                "the library '{}' is not mounted",
                self.library.name()
            ))),
        }
    }

    /// Finds a source by its id.
    pub(crate) fn record(&self, id: SourceId) -> Result<SourceRecord> {
        let found = self.sources()?.into_iter().find(|record| record.id == id);
        found.ok_or_else(|| Failure::new("that source is not in the library any more"))
    }

    /// Refuses a URI that is none of the library's.
    fn require_source(&self, uri: &str) -> Result<()> {
        let sources = self.sources()?;
        if sources.iter().any(|record| record.name == uri) {
            return Ok(());
        }
        let nearest = sources
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(uri, &a.name).total_cmp(&strsim::jaro_winkler(uri, &b.name)));
        let hint = nearest.map_or_else(
            || "it has none yet".to_owned(),
            |nearest| format!("the nearest that it has is {}", nearest.name),
        );
        Err(Failure::new(format!("the library has no source '{}'", visible(uri.as_bytes()))).hint(hint))
    }

    async fn add_source(
        self: &Arc<Self>,
        spec: manifold_backends::SourceSpec,
        attach: Option<Text>,
    ) -> Result<SourceRecord> {
        let this = Arc::clone(self);
        let record = blocking(move || {
            let present: Vec<_> = this.sources()?.iter().map(attach::Present::from).collect();
            attach::check_new(&spec, &present, this.library.state())?;
            let text = serde_json::to_string(&spec)
                .map_err(|error| Failure::new(format!("cannot write the source down: {error}")))?;
            let attach = match attach {
                Some(Text(path)) => attach::canonical(&path)?,
                None => attach::free_name(&spec.default_attach_name(), |path| {
                    Ok(this.catalog.resolve(path)?.is_some())
                })?,
            };
            let new = NewSource {
                name: spec.name().to_owned(),
                attach,
                spec: text,
                options: "{}".to_owned(),
            };
            let record = this.catalog.add_source(new)?;
            this.vfs.sources_changed()?;
            Ok(record)
        })
        .await?;
        if self.keeps_connections() {
            self.connections.keep(&record);
            self.indexer.until_connected(record.id).await;
        }
        Ok(record)
    }

    async fn set_source(self: &Arc<Self>, id: SourceId, spec: &manifold_backends::SourceSpec) -> Result<()> {
        let record = self.record(id)?;
        if record.name != spec.name() {
            return Err(Failure::new(format!(
                "{} and {} are two sources: one cannot become the other",
                record.name,
                spec.name()
            )));
        }
        let text = serde_json::to_string(spec)
            .map_err(|error| Failure::new(format!("cannot write the source down: {error}")))?;
        let this = Arc::clone(self);
        blocking(move || Ok(this.catalog.update_source(id, text, record.options)?)).await?;
        self.reconnect(id).await
    }

    async fn reconnect(&self, id: SourceId) -> Result<()> {
        let record = self.record(id)?;
        if self.keeps_connections() {
            self.connections.renew(&record).await;
        }
        Ok(())
    }

    async fn remove_source(self: Arc<Self>, id: SourceId) -> Result<()> {
        let record = self.record(id)?;
        let waiting = self.catalog.staged_of(id)?;
        if waiting > 0 {
            return Err(Failure::new(format!(
                "{waiting} changed files of {} are not uploaded yet, and would be lost",
                record.name
            ))
            .hint("wait until they are: manifold status shows what is left"));
        }
        let moves = self.catalog.moves()?.iter().filter(|one| one.source == id).count() as u64;
        if moves > 0 {
            return Err(Failure::new(format!(
                "what {} of {} hold is not all moved yet",
                count(moves, "renamed directory"),
                record.name
            ))
            .hint("wait until it is: manifold uploads shows what is left"));
        }
        let this = Arc::clone(&self);
        let under_way = blocking(move || this.settle_renames_of(id)).await?;
        if under_way > 0 {
            return Err(Failure::new(format!(
                "{} on the way from or to {} at this moment",
                count(under_way, "renamed file"),
                record.name
            ))
            .hint("close what is open of it, and try again"));
        }
        let origins = self.catalog.all_origins()?;
        let is_left = |it: &&manifold_catalog::Origins| it.places.iter().any(|place| place.source == id);
        let on_their_way = origins.iter().filter(is_left).count() as u64;
        if on_their_way > 0 {
            return Err(Failure::new(format!(
                "{} of {} not at the source yet to which it was moved, or not taken away here",
                count(on_their_way, "file"),
                record.name
            ))
            .hint("wait until it is: manifold uploads shows what is left"));
        }
        let begun = self.catalog.part_uploads()?;
        if !self.keeps_connections() && begun.iter().any(|(_, upload)| upload.source == id) {
            return Err(Failure::new(format!(
                "an upload to {} was broken off, and is not ended there: what was sent of it would stay there",
                record.name
            ))
            .hint("mount the library: it is ended then"));
        }
        // First, since it can fail for a reason of its own, such as a locked keyring: nothing has changed then.
        self.connections.forget_secrets(&record.name).await?;
        if self.keeps_connections() {
            self.vfs.end_uploads_of(id).await?;
        }
        self.connections.let_go(id);
        let this = Arc::clone(&self);
        blocking(move || {
            this.catalog.remove_source(id, WhenStaged::Refuse)?;
            this.vfs.sources_changed()?;
            if let Err(failure) = this.cache_clear(Some(&record.name), true) {
                // The blocks are found by nobody any more, and go when room is needed.
                tracing::warn!(source = record.name, "{}", failure.message());
            }
            Ok(())
        })
        .await
    }

    fn scan(&self, id: Option<SourceId>) -> Result<()> {
        if let Some(id) = id {
            self.record(id)?;
        }
        if !self.keeps_connections() {
            return Err(
                Failure::new("scans run in the daemon, and none runs").hint("mount the library: manifold mount")
            );
        }
        self.connections.hurry(id);
        for record in self.sources()? {
            if id.is_none_or(|id| id == record.id) && self.indexer.backend(record.id).is_some() {
                self.indexer.scan(record.id);
            }
        }
        Ok(())
    }

    async fn list(&self, path: &Text, after: Option<&Text>, limit: u32) -> Result<Listing> {
        let about = || visible(&path.0);
        let found = self.find(path, Look::Known).await?;
        if found.kind != Kind::Directory {
            return Err(Failure::new(format!("{}: not a directory", about())).hint("`manifold stat` tells what it is"));
        }
        self.connect_for(found.id).await?;
        let handle = self.vfs.open_directory(found.id).wait().await;
        let handle = handle.map_err(|error| Failure::from(error).about(about()))?;
        let limit = limit.clamp(1, PAGE_MAX) as usize;
        let mut listing = Listing {
            entries: Vec::new(),
            more: false,
        };
        let cursor = after.map_or(Cursor::Offset(0), |name| Cursor::AfterName(&name.0));
        let read = self.vfs.read_directory(handle, cursor, &mut |item| {
            if listing.entries.len() == limit {
                listing.more = true;
                return ControlFlow::Break(());
            }
            listing.entries.push(EntryLine {
                name: Text::new(item.name),
                id: item.attributes.id.0,
                kind: kind_word(item.attributes.kind).to_owned(),
                size: item.attributes.size,
                modified: told(item.attributes.modified_ns),
                mode: format!("{:04o}", item.attributes.mode),
            });
            ControlFlow::Continue(())
        });
        self.vfs.release_directory(handle);
        read.map_err(|error| Failure::from(error).about(about()))?;
        Ok(listing)
    }

    async fn stat(&self, path: &Text, look: Look) -> Result<EntryFacts> {
        let found = self.find(path, look).await?;
        let tree_path = self.catalog.tree_path(found.id)?.unwrap_or_else(|| path.0.clone());
        let place = self
            .catalog
            .object_path(found.id)?
            .filter(|(source, _)| *source != SourceId::LIBRARY);
        let details = self.catalog.details(found.id)?;
        // The library's own directories come from no listing.
        let state = match place {
            Some(_) => self.catalog.directory_state(found.id)?,
            None => None,
        };
        let source = match &place {
            Some((id, _)) => Some(self.record(*id)?.name),
            None => None,
        };
        let mut replicas = Vec::new();
        for replica in self.catalog.replicas(found.id, REPLICAS_MAX)? {
            replicas.extend(self.catalog.tree_path(replica)?.map(Text));
        }
        let (mut hidden, mut hidden_bytes) = (Vec::new(), 0);
        for other in self.vfs.hidden_by(found.id)? {
            hidden.extend(self.catalog.tree_path(other)?.map(Text));
            hidden_bytes += self.catalog.entry(other)?.map_or(0, |entry| entry.size);
        }
        let content = details.as_ref().and_then(|details| details.content);
        Ok(EntryFacts {
            path: Text(tree_path),
            id: found.id.0,
            kind: kind_word(found.kind).to_owned(),
            size: found.size,
            modified: told(found.modified_ns),
            changed: told(found.changed_ns),
            created: details.and_then(|details| details.created_ns).map(rfc3339),
            mode: format!("{:04o}", found.mode),
            owner: found.owner,
            links: found.links,
            source,
            object_path: place.map(|(_, path)| Text(path)),
            listed: state.as_ref().and_then(|state| state.listed_ns).map(rfc3339),
            failure: state.and_then(|state| state.failure).map(|failure| failure.message),
            content: content.map(|content| hex(&content)),
            replicas,
            hidden,
            hidden_bytes,
        })
    }

    /// Gives the content of a file, which is read in full where it is not known.
    async fn hash(&self, path: &Text) -> Result<HashLine> {
        let about = || visible(&path.0);
        let found = self.find(path, Look::AtSource).await?;
        if found.kind != Kind::File {
            let (what, hint) = (kind_word(found.kind), "only files have bytes to hash");
            return Err(Failure::new(format!("{}: a {what}", about())).hint(hint));
        }
        if !self.keeps_connections()
            && let Some(entry) = self.catalog.entry(found.id)?
        {
            let record = self.record(entry.source)?;
            self.connections.connect_now(&record).await?;
        }
        let content = self.indexer.hash(found.id).await;
        let content = content.map_err(|error| Failure::new(format!("{}: {error}", about())))?;
        Ok(HashLine {
            path: path.clone(),
            size: found.size,
            content: hex(&content),
        })
    }

    /// Says what is cached.
    pub(crate) fn cache_facts(&self) -> Result<CacheFacts> {
        let usage = self.vfs.cache().show();
        let names: Vec<_> = self
            .sources()?
            .into_iter()
            .map(|record| (SourceTag::new(&record.name), record.name))
            .collect();
        let sources = usage.sources.iter().map(|it| SourceCache {
            uri: names
                .iter()
                .find(|(tag, _)| *tag == it.source)
                .map(|(_, name)| name.clone()),
            objects: it.objects,
            bytes: it.bytes,
        });
        Ok(CacheFacts {
            directory: Text::new(self.library.cache_folder(&self.settings).as_os_str().as_encoded_bytes()),
            disk_bytes: usage.disk_used,
            disk_limit_bytes: usage.disk_limit,
            pinned_bytes: usage.pinned_used,
            pinned_limit_bytes: usage.pinned_limit,
            memory_bytes: usage.memory_used,
            memory_limit_bytes: usage.memory_limit,
            sources: sources.collect(),
        })
    }

    fn cache_clear(&self, source: Option<&str>, pinned: bool) -> Result<u64> {
        let scope = source.map_or(ClearScope::All, ClearScope::Source);
        let cleared = self.vfs.cache().clear(scope, pinned);
        if pinned {
            self.vfs.pins_changed();
        }
        cleared.map_err(|error| Failure::new(format!("cannot clear the whole cache: {error}")))
    }

    /// Gives each source as it is now.
    pub(crate) fn source_statuses(&self) -> Result<Vec<SourceStatus>> {
        self.sources()?
            .iter()
            .map(|record| self.source_status(record))
            .collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _written = write!(text, "{byte:02x}");
        text
    })
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Directory => "directory",
        Kind::File => "file",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharDevice => "character-device",
        Kind::BlockDevice => "block-device",
    }
}
