//! The catalog of a library: which entries there are, what stands in their rows, and which sources they came from.
//!
//! It owns one redb file and everything in it. It is synchronous, has one writer at a time, reads no clock and no
//! environment, and asks no source anything: what it is told, it keeps; what it was not told, it says that it does not
//! know. Always true of it:
//! - an id is given to one entry and never again, whatever crashes in between;
//! - a child disappears only through a complete listing of its directory, through a removal that was made by way of
//!   the mount, or with its source; and what is staged only if whoever staged it says so;
//! - a listing that may be older than a change made through the mount is not applied;
//! - a file that cannot be read as a catalog is never written to;
//! - no read transaction outlives the call that needed it, nor the next commit.

mod branch;
mod catalog;
mod change;
mod check;
mod contents;
mod crossings;
mod edit;
mod entry;
mod error;
mod fold;
mod follow;
mod format;
mod keep;
mod links;
mod listing;
mod load;
mod moves;
mod origins;
mod pages;
mod parts;
mod pins;
mod read;
mod renames;
mod reserve;
mod rows;
mod source;
mod sources;
mod staged;
mod storage;
mod store;
mod ticket;
mod tree;

pub use branch::Branch;
pub use catalog::{Catalog, CheckReport, CompleteListing, Found, Options, Totals, TotalsOf};
pub use change::{Change, Subscription};
pub use crossings::{Crossing, Mark};
pub use entry::{
    ChangedFile, Details, DirectoryState, Entry, EntryId, Failure, FileFacts, Hashed, Kind, NewChild, Pin, PolicyId,
    Replaces, SeenAttributes, SourceId,
};
pub use error::{Error, OpenError, Result, SourceError};
#[doc(hidden)]
pub use format::decode_any;
pub use format::{KEPT_ATTRIBUTES_MAX, LINK_TARGET_MAX, STAGED_BYTES_MAX, STAGED_ROW_MAX, SentState};
pub use keep::{AttributeMustBe, AttributeRefused, Keep};
pub use links::{KnownLink, LinkTarget};
pub use load::{BulkLoader, LoadedDirectory};
pub use moves::{Copied, Move, Moved};
pub use origins::{Across, ExtendedAttribute, Left, Origin, Origins, Unseen};
pub use pages::ChildPages;
pub use parts::{PartUpload, PartUploadId, SentPart};
/// The longest version, in bytes.
pub const VERSION_MAX: usize = 4096;

pub use renames::AskedRename;
pub use staged::WhenStaged;
pub use store::{LogLoss, examines_file};
pub use ticket::{ChangeGuard, Ticket};

pub use source::{NewSource, ScanState, SourceRecord};
