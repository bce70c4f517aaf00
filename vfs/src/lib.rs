//! The file system of a library, as no kernel in particular sees it: resolve, handles, blocks, prefetch.
//!
//! It answers what the catalog knows at once, and brings bytes of sources through a block cache. Each adaptor under
//! `mount/` turns one kernel's requests into calls of [`Vfs`], and [`Event`]s into that kernel's notifications.
//!
//! Always true here:
//! - no type of a kernel, of `OpenDAL` or of SMB is named;
//! - a request is answered within its deadline, whatever its source does;
//! - the bytes of one read are of one version;
//! - memory for file contents stays within one budget.

mod answer;
mod attributes;
pub mod cache;
mod change;
mod counters;
mod directory;
mod error;
mod events;
mod fetch;
mod handle;
mod hash;
mod look;
mod moves;
mod open;
mod pins;
mod places;
mod prefetch;
mod read;
mod recent;
mod room;
mod settings;
pub mod staging;
mod sync;
mod temporaries;
mod turns;
mod union;
mod upload;
mod vfs;

pub use answer::Answer;
pub use attributes::{Attributes, FilesystemTotals, NameMatch, Room};
pub use cache::BlockCache;
pub use change::remote::WriteSettings;
pub use change::{Created, Creation, Requester, Writing};
pub use counters::{Counters, SourceCounters};
pub use directory::{Cursor, DirectoryHandle, DirectoryItem};
pub use error::{Cause, Error};
pub use events::{Event, EventStream, Received, Settling};
pub use fetch::Waiting;
pub use handle::{Access, Backing, Handle, Opened};
pub use manifold_backends::local::{AttributeChange, Durable, Making, NewTime, RenameMode, Seek, SetMode, WriteAt};
pub use manifold_catalog::{EntryId, Kind, PolicyId, SourceId};
pub use manifold_index::{ByWord, Histogram, HistogramPicture};
pub use moves::{MoveReport, MoveState};
pub use pins::{PinPolicy, PinProblem, PinReport, PinRule, PinTotals, RuleReport};
pub use recent::KEPT_FRESH;
pub use settings::{CrossSourceRename, Settings};
pub use staging::StagingUsage;
pub use union::{PlaceRule, Placement, Union, UnionReport};
pub use upload::{
    AttributePolicy, Conflict, UploadEvent, UploadListener, UploadReport, UploadState, UploadTally, WritePolicy,
};
pub use vfs::Vfs;
