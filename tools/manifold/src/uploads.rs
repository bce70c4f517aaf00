//! What waits to be uploaded, in the words of the control protocol; and the end of a daemon that has uploads to see through.

use std::sync::Arc;
use std::time::Duration;

use manifold_backends::{SourceSpec, Writes};
use manifold_catalog::SourceId;
use manifold_vfs::{
    AttributePolicy, Conflict, MoveReport, MoveState, UploadEvent, UploadListener, UploadReport, UploadState,
    WritePolicy, WriteSettings,
};

use crate::control::text::Text;
use crate::control::uploads::{ConflictFacts, MoveFacts, UploadCounts, UploadFacts, UploadsFacts};
use crate::control::{PAGE_MAX, Reply};
use crate::events::{Hub, What};
use crate::failure::{Failure, Result};
use crate::library::Library;
use crate::open::OpenLibrary;
use crate::print::{count, say};
use crate::settings::Settings;
use crate::time::{now_ns, rfc3339};

/// How long a daemon that ends waits for uploads. What is not uploaded by then is safe, and goes on with the next start.
const DRAIN_PATIENCE: Duration = Duration::from_mins(1);

/// Says how remote sources are written to.
pub(crate) fn write_settings(library: &Library, settings: &Settings, hub: &Hub) -> WriteSettings {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    WriteSettings {
        folder: library.staging_folder(),
        bytes: settings.staging.bytes,
        host,
        clock: Arc::new(now_ns),
        listener: listener(hub.clone()),
        policies: std::collections::HashMap::new(),
    }
}

fn listener(hub: Hub) -> UploadListener {
    Arc::new(move |event| {
        hub.tell(match event {
            UploadEvent::Conflict(Conflict { path, kept_as, .. }) => What::UploadConflict {
                path: Text(path),
                kept_as: Text(kept_as),
            },
            UploadEvent::Refused {
                path, error, remedy, ..
            } => What::UploadRefused {
                path: Text(path),
                error,
                remedy,
            },
            UploadEvent::MoveRefused {
                path, error, remedy, ..
            } => What::MoveRefused {
                path: Text(path),
                error,
                remedy,
            },
        });
    })
}

/// Says what becomes of writes to a source.
pub(crate) fn policy(spec: &SourceSpec) -> WritePolicy {
    match spec.writing() {
        Writes::Off => WritePolicy::Off,
        Writes::Back => WritePolicy::Back,
        Writes::Through => WritePolicy::Through,
    }
}

/// Says what becomes of attributes that a source cannot store.
pub(crate) fn attribute_policy(spec: &SourceSpec) -> AttributePolicy {
    if spec.keeps_attributes() {
        AttributePolicy::Keep
    } else {
        AttributePolicy::Refuse
    }
}

impl OpenLibrary {
    /// Counts what is staged.
    pub(crate) fn upload_counts(&self) -> Result<UploadCounts> {
        let Some(usage) = self.vfs.staging_usage() else {
            // Without a daemon, nobody works on them.
            let waiting = self.catalog.staged_all()?.len() as u64;
            let moves = self.catalog.moves()?.len() as u64;
            return Ok(UploadCounts {
                waiting,
                moves,
                ..UploadCounts::default()
            });
        };
        let (tally, moves) = (self.vfs.upload_tally(), self.vfs.moves());
        let is_refused = |it: &&MoveReport| matches!(it.state, MoveState::Refused { .. });
        Ok(UploadCounts {
            waiting: usage.files,
            under_way: tally.under_way,
            delayed: tally.delayed,
            refused: tally.refused,
            staged_bytes: usage.used,
            limit_bytes: usage.limit,
            done: self.vfs.uploaded(),
            conflicts: self.vfs.conflicts().len() as u64,
            moves: moves.len() as u64,
            moves_refused: moves.iter().filter(is_refused).count() as u64,
            to_move: moves.iter().map(|it| it.left).sum(),
            moved: self.vfs.moved(),
        })
    }

    /// Lists what is staged.
    pub(crate) fn uploads(&self, skip: u64) -> Result<Reply> {
        if self.vfs.staging_usage().is_none() {
            return Err(
                Failure::new(format!("the library '{}' is not mounted", self.library.name()))
                    .hint("what waits goes on with: manifold up"),
            );
        }
        let sources = self.sources()?;
        let uri = |source: Option<SourceId>| {
            let record = sources.iter().find(|record| Some(record.id) == source);
            record.map_or_else(String::new, |record| record.name.clone())
        };
        let mut rest = self
            .vfs
            .uploads()
            .into_iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX));
        let page = rest.by_ref().take(PAGE_MAX as usize);
        let uploads = page.map(|report| facts(uri(report.source), report)).collect();
        let conflicts = self.vfs.conflicts().into_iter().map(|conflict| ConflictFacts {
            at: rfc3339(conflict.at_ns),
            path: Text(conflict.path),
            kept_as: Text(conflict.kept_as),
        });
        let moves = self.vfs.moves().into_iter();
        Ok(Reply::Uploads(Box::new(UploadsFacts {
            uploads,
            more: rest.next().is_some(),
            conflicts: conflicts.collect(),
            moves: moves
                .map(|report| move_facts(uri(Some(report.source)), report))
                .collect(),
        })))
    }

    /// Sees uploads through that can be, for a while.
    pub(crate) async fn drain_uploads(&self) {
        let mut told = None;
        let waiting = self.vfs.drain_uploads(DRAIN_PATIENCE, |waiting| {
            if waiting > 0 && told.is_none() {
                say(format_args!(
                    "waiting for {} (Ctrl-C ends at once; nothing is lost by that)",
                    count(waiting, "upload")
                ));
                told = Some(waiting);
            }
        });
        let waiting = waiting.await;
        if waiting > 0 {
            let files = count(waiting, "file");
            say(format_args!(
                "{files} not uploaded yet; safe here, and uploaded after the next start"
            ));
        }
    }
}

fn move_facts(source: String, report: MoveReport) -> MoveFacts {
    let (state, error, remedy) = match report.state {
        MoveState::Waiting => ("waiting", None, None),
        MoveState::UnderWay => ("under-way", None, None),
        MoveState::Delayed { error } => ("delayed", Some(error), None),
        MoveState::Refused { error, remedy } => ("refused", Some(error), Some(remedy)),
    };
    MoveFacts {
        id: report.id.0,
        path: Text(report.path),
        source,
        from: Text(report.from),
        moved: report.moved,
        left: report.left,
        state: state.to_owned(),
        error,
        remedy,
    }
}

fn facts(source: String, report: UploadReport) -> UploadFacts {
    let (state, sent, error, remedy) = match report.state {
        UploadState::Open => ("open", None, None, None),
        UploadState::Waiting => ("waiting", None, None, None),
        UploadState::UnderWay { sent } => ("under-way", Some(sent), None, None),
        UploadState::Delayed { error } => ("delayed", None, Some(error), None),
        UploadState::Refused { error, remedy } => ("refused", None, Some(error), Some(remedy)),
    };
    UploadFacts {
        id: report.id.0,
        path: Text(report.path),
        source,
        size: report.size,
        staged: report.staged,
        state: state.to_owned(),
        sent,
        error,
        remedy,
    }
}
