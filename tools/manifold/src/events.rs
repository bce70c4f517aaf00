//! What happens in a mounted library, for those who follow it over the control socket.
//!
//! Owns the hub that events are handed out from, and the task that puts the indexer's events into words for others. Always
//! true: nobody who follows holds anything up; one that falls too far behind is told how many events it has missed.

use std::sync::Arc;

use manifold_catalog::SourceId;
use manifold_index::ScanEnd;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::control::status::Problem;
use crate::control::text::Text;
use crate::open::OpenLibrary;
use crate::status::said;
use crate::time::{now_ns, rfc3339};

/// The most events that a follower may be behind.
const BEHIND_MAX: usize = 256;

/// Something that happened. Its form is described in `docs/control.md` and only grows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// When, RFC 3339.
    pub(crate) at: String,
    /// What.
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What happened. No field is called `to`: on the socket that stands beside these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum What {
    /// The library is mounted.
    Mounted {
        /// Where.
        point: Text,
    },
    /// It is being unmounted.
    Unmounting {
        /// Where it was.
        point: Text,
    },
    /// The catalog's write-ahead log was not as it should be when it was opened: what was saved last may be lost.
    CatalogLost {
        /// What was found.
        error: String,
        /// What to do.
        remedy: String,
    },
    /// A source is in another state.
    SourceState {
        /// Which.
        source: Named,
        /// How it was.
        was: String,
        /// How it is.
        state: String,
        /// What is wrong, if anything is.
        problem: Option<Problem>,
    },
    /// A scan has begun, or goes on where it stood.
    ScanBegan {
        /// Of which source.
        source: Named,
        /// Counts its scans, from 1.
        generation: u64,
    },
    /// A scan has ended.
    ScanEnded {
        /// Of which source.
        source: Named,
        /// `finished`; `stopped`: it goes on when the source is connected again; `failed`.
        end: String,
        /// Directories that could not be listed, where it finished.
        failed: Option<u64>,
        /// Why it failed.
        reason: Option<String>,
    },
    /// A part of the tree is being listed anew, since somebody has asked for it.
    RescanBegan {
        /// What was asked for.
        path: Text,
    },
    /// That has ended.
    RescanEnded {
        /// What was asked for.
        path: Text,
        /// Directories that were listed.
        listed: u64,
        /// Directories that could not be listed.
        failed: u64,
        /// Why the first of them could not.
        reason: Option<String>,
    },
    /// A file was changed here and at its source; both versions are kept.
    UploadConflict {
        /// Where the source's version stands in the tree.
        path: Text,
        /// The name under which the local version is kept, in the same directory.
        kept_as: Text,
    },
    /// A source does not take a file; it stays staged.
    UploadRefused {
        /// Where it stands in the tree.
        path: Text,
        /// Why.
        error: String,
        /// What to do.
        remedy: String,
    },
    /// Another has changed what a file was moved from, before it had arrived or been taken away.
    MoveUndone {
        /// Where the file stands in the tree, or stood.
        path: Text,
        /// What became of it.
        what: String,
    },
    /// What a file was moved from cannot be taken away, though its copy has arrived; both are there.
    OriginalRefused {
        /// Where the file stands in the tree.
        path: Text,
        /// Why.
        error: String,
        /// What to do.
        remedy: String,
    },
    /// The objects of a renamed directory cannot follow it; it stays as it is.
    MoveRefused {
        /// Where it stands in the tree.
        path: Text,
        /// Why.
        error: String,
        /// What to do.
        remedy: String,
    },
    /// The follower was too slow to hear of everything.
    Missed {
        /// How many events it has missed.
        events: u64,
    },
}

/// Which source it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    /// Its id within the library.
    pub(crate) id: u32,
    /// Its URI; empty for one that has just been removed.
    pub(crate) uri: String,
    /// Where it is attached.
    pub(crate) attach: Text,
}

/// Hands events out.
#[derive(Clone, Debug)]
pub(crate) struct Hub(broadcast::Sender<Event>);

/// Hears of everything from the time it was made.
#[derive(Debug)]
pub(crate) struct Follower(broadcast::Receiver<Event>);

impl Hub {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BEHIND_MAX))
    }

    /// Tells all who follow.
    pub(crate) fn tell(&self, what: What) {
        // Nobody may be following.
        let _heard_or_not = self.0.send(Event {
            at: rfc3339(now_ns()),
            what,
        });
    }

    /// Follows from now on.
    pub(crate) fn follow(&self) -> Follower {
        Follower(self.0.subscribe())
    }
}

impl Follower {
    /// Waits for the next event; `None` when there will be no more.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(events)) => Some(Event {
                at: rfc3339(now_ns()),
                what: What::Missed { events },
            }),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Hands the indexer's events on, in words for others, for as long as the library is open.
pub(crate) async fn forward(open: Arc<OpenLibrary>) {
    let mut events = open.indexer.subscribe();
    loop {
        match events.recv().await {
            Ok(event) => open.events.tell(in_words(&open, event)),
            Err(RecvError::Lagged(events)) => open.events.tell(What::Missed { events }),
            Err(RecvError::Closed) => return,
        }
    }
}

fn in_words(open: &OpenLibrary, event: manifold_index::Event) -> What {
    match event {
        manifold_index::Event::Health(change) => What::SourceState {
            source: named(open, change.source),
            was: change.from.as_str().to_owned(),
            state: change.to.as_str().to_owned(),
            problem: change.problem.map(|problem| said(&problem, change.at_ns)),
        },
        manifold_index::Event::ScanBegan { source, generation } => What::ScanBegan {
            source: named(open, source),
            generation,
        },
        manifold_index::Event::ScanEnded { source, end } => {
            let (word, failed, reason) = match end {
                ScanEnd::Finished { failed } => ("finished", Some(failed), None),
                ScanEnd::Stopped => ("stopped", None, None),
                ScanEnd::Failed(error) => ("failed", None, Some(error.to_string())),
            };
            What::ScanEnded {
                source: named(open, source),
                end: word.to_owned(),
                failed,
                reason,
            }
        }
    }
}

fn named(open: &OpenLibrary, id: SourceId) -> Named {
    let sources = open.sources().unwrap_or_default();
    let record = sources.into_iter().find(|record| record.id == id);
    let (uri, attach) = record.map_or_else(Default::default, |record| (record.name, record.attach));
    Named {
        id: id.0,
        uri,
        attach: Text(attach),
    }
}
