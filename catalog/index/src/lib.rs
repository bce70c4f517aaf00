//! Fills the catalog from the sources: a directory that somebody opens is listed there and then; behind that, a scan
//! works through everything; and what changed is taken over as one change of the catalog.
//!
//! It owns the tasks that ask sources for listings, and nothing durable: what is known, and how far a scan has come, is
//! in the catalog. Always true here:
//! - the catalog learns of a directory's children only from a complete, successful listing that makes sense; all else
//!   changes nothing but the directory's state; one that may be older than a change made through the mount is taken again;
//! - one directory is listed once at a time, however many wait for it, and a waiter that leaves cancels nobody;
//! - one source's trouble costs the others nothing;
//! - symbolic links are described and never followed.

mod error;
mod expected;
mod flight;
mod hash;
mod health;
mod indexer;
mod links;
mod listing;
mod measure;
mod missing;
pub mod names;
mod overtaken;
mod reconcile;
mod scan;
mod settings;
mod skip;
mod source;
mod watch;

pub use error::IndexError;
pub use hash::HashSettings;
pub use health::{Event, HealthChange, HealthState, LatencyFacts, Problem, RequestFacts, RequestKind, SourceHealth};
pub use indexer::{BeforeListing, Indexer, OpenProbe};
pub use listing::seen_attributes;
pub use measure::{BUCKET_ENDS, ByWord, Histogram, HistogramPicture};
pub use scan::beneath::{SubtreeProgress, SubtreeScan};
pub use scan::{ScanEnd, ScanHandle, ScanProgress};
pub use settings::{Clock, IndexSettings, ScanHold, SourceOptions};
