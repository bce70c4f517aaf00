//! The control protocol: what commands ask of a library, and what it answers.
//!
//! The same requests are answered by the daemon over its socket and, where none runs, by the command itself: there is
//! one [`Request`] for each thing that can be asked and one place that answers it ([`crate::answer`]). On the socket each is
//! one line of JSON; `docs/control.md` describes it for others. No secret ever travels here.

pub(crate) mod client;
pub(crate) mod pins;
pub(crate) mod server;
pub(crate) mod status;
pub(crate) mod text;
pub(crate) mod uploads;

use manifold_backends::SourceSpec;
use serde::{Deserialize, Serialize};

use crate::events::Event;
use crate::failure::Failure;
use crate::metrics::Family;
use pins::{Pinned, PinsFacts, Policy};
use status::{SourceStatus, Status};
use text::Text;
use uploads::UploadsFacts;

/// The version of the protocol. One that differs is refused by both sides.
pub(crate) const VERSION: u32 = 1;

/// The longest line, in bytes: a page of a listing with names of 255 bytes in their longest form.
pub(crate) const LINE_MAX: u64 = 4 << 20;

/// The most entries in one page of a listing.
pub(crate) const PAGE_MAX: u32 = 1000;

/// A line from a command.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// What is asked.
    #[serde(flatten)]
    pub(crate) request: Request,
}

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// How is everything?
    Status,
    /// Which sources are there?
    Sources,
    /// What is a source, to connect to it elsewhere? Without its secrets.
    Spec {
        /// Its id.
        id: u32,
    },
    /// Attach a source, at a path or, without one, under its own last name.
    AddSource {
        /// What it is; its secrets are in the store already.
        spec: Box<SourceSpec>,
        /// Where.
        attach: Option<Text>,
        /// Whether it is added though the daemon cannot use it.
        #[serde(default)]
        force: bool,
    },
    /// Change what a source is connected with, and connect it anew.
    SetSource {
        /// Its id.
        id: u32,
        /// What it is now; its secrets are in the store already.
        spec: Box<SourceSpec>,
        /// Whether it is changed though the daemon could not use it.
        #[serde(default)]
        force: bool,
    },
    /// Connect a source anew, with the secrets as they are now.
    Reconnect {
        /// Its id.
        id: u32,
    },
    /// Take a source away. Nothing is deleted at the source.
    RemoveSource {
        /// Its id.
        id: u32,
    },
    /// List everything anew.
    Scan {
        /// One source; all without it.
        id: Option<u32>,
    },
    /// List what stands at a path, and all beneath it, anew.
    Rescan {
        /// The path in the tree.
        path: Text,
    },
    /// How far has that come?
    RescanProgress {
        /// Its number.
        job: u64,
    },
    /// What is in a directory?
    List {
        /// Its path in the tree.
        path: Text,
        /// The last name of the page before.
        after: Option<Text>,
        /// Names in a page, at most [`PAGE_MAX`].
        limit: u32,
    },
    /// What is known of an entry?
    Stat {
        /// Its path in the tree.
        path: Text,
        /// Whether it is looked for at its source where it is not known.
        #[serde(default)]
        look: bool,
    },
    /// Which bytes does a file hold? It is read in full where that is not known.
    Hash {
        /// Its path in the tree.
        path: Text,
    },
    /// What is cached?
    CacheShow,
    /// Forget what is cached.
    CacheClear {
        /// Of one source, by its URI; of all without it.
        source: Option<String>,
        /// Of what is pinned, too.
        #[serde(default)]
        pinned: bool,
    },
    /// Read everything that is cached, and drop what is damaged.
    CacheVerify,
    /// Keep files, folders and what a policy means whole on this machine.
    Pin {
        /// Their paths in the tree.
        paths: Vec<Text>,
        /// A new policy.
        policy: Option<Policy>,
    },
    /// Keep them no longer.
    Unpin {
        /// Their paths in the tree.
        paths: Vec<Text>,
        /// The numbers of policies.
        policies: Vec<u64>,
        /// All pins of what is gone from the tree, too.
        #[serde(default)]
        gone: bool,
    },
    /// What is pinned, and how much of it is here?
    Pins {
        /// How many pins to pass over.
        skip: u64,
    },
    /// What waits to be uploaded?
    Uploads {
        /// How many files to pass over.
        skip: u64,
    },
    /// Try again what failed or was refused.
    RetryUploads,
    /// What happens from now on? Answered with done, and then a line for each event until one side hangs up.
    Events,
    /// What was counted since the daemon started?
    Metrics {
        /// In which form.
        #[serde(default)]
        form: MetricsForm,
    },
    /// Unmount, and end.
    Stop,
}

/// In which form metrics are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MetricsForm {
    /// As Prometheus reads them.
    #[default]
    Text,
    /// As JSON.
    Json,
}

/// A line from the library.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// What became of the request.
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// What became of a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// It was answered.
    Reply(Reply),
    /// It failed.
    Error(Failure),
}

/// The answers, each to the request of the same kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Sources`].
    Sources {
        /// In the order in which they were added.
        sources: Vec<SourceStatus>,
    },
    /// To [`Request::Spec`].
    Spec {
        /// What it is.
        spec: Box<SourceSpec>,
    },
    /// To [`Request::AddSource`].
    Added {
        /// The source as it is now.
        source: Box<SourceStatus>,
    },
    /// To [`Request::Rescan`] and [`Request::RescanProgress`].
    Rescan(RescanFacts),
    /// To [`Request::List`].
    Listing(Listing),
    /// To [`Request::Stat`].
    Entry(Box<EntryFacts>),
    /// To [`Request::Hash`].
    Hashed(HashLine),
    /// To [`Request::CacheShow`].
    Cache(CacheFacts),
    /// To [`Request::CacheClear`].
    Cleared {
        /// Bytes that were freed on disk.
        bytes: u64,
    },
    /// To [`Request::CacheVerify`].
    Verified(Verified),
    /// To [`Request::Pin`].
    Pinned(Pinned),
    /// To [`Request::Pins`].
    Pins(Box<PinsFacts>),
    /// To [`Request::Metrics`]: one of the two.
    Metrics {
        /// The text format of Prometheus, version 0.0.4.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        text: Option<String>,
        /// The same as JSON.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        families: Option<Vec<Family>>,
    },
    /// To [`Request::Uploads`].
    Uploads(Box<UploadsFacts>),
    /// To [`Request::RetryUploads`].
    Retried {
        /// How many there were.
        uploads: u64,
    },
    /// After the answer to [`Request::Events`], whenever something happens.
    Event(Event),
    /// To [`Request::SetSource`], [`Request::Reconnect`], [`Request::RemoveSource`], [`Request::Scan`], [`Request::Unpin`],
    /// [`Request::Events`] and [`Request::Stop`].
    Done,
}

/// How far the listing of a part of the tree has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RescanFacts {
    /// Its number.
    pub(crate) job: u64,
    /// Directories that were listed.
    pub(crate) listed: u64,
    /// What else was asked for by itself, and looked at.
    #[serde(default)]
    pub(crate) looked: u64,
    /// Directories that are known and not listed yet.
    pub(crate) waiting: u64,
    /// Directories that could not be listed.
    pub(crate) failed: u64,
    /// Why the first of them could not.
    pub(crate) failure: Option<String>,
    /// Whether it is over, and what it found is to be seen in the mount.
    pub(crate) ended: bool,
}

/// A page of a directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Listing {
    /// In the byte order of names.
    pub(crate) entries: Vec<EntryLine>,
    /// Whether there are more behind these.
    pub(crate) more: bool,
}

/// An entry in a listing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EntryLine {
    /// Its name.
    pub(crate) name: Text,
    /// Its inode number.
    pub(crate) id: u64,
    /// What it is.
    pub(crate) kind: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Last change, RFC 3339; `None` where the source does not tell.
    pub(crate) modified: Option<String>,
    /// Permission bits, in octal.
    pub(crate) mode: String,
}

/// All that is known of an entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EntryFacts {
    /// Its path in the tree.
    pub(crate) path: Text,
    /// Its inode number.
    pub(crate) id: u64,
    /// What it is.
    pub(crate) kind: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Last change of the bytes, RFC 3339.
    pub(crate) modified: Option<String>,
    /// Last change of the attributes, RFC 3339.
    pub(crate) changed: Option<String>,
    /// Birth, RFC 3339.
    pub(crate) created: Option<String>,
    /// Permission bits, in octal.
    pub(crate) mode: String,
    /// Owner and group; `None`: whoever mounts.
    pub(crate) owner: Option<(u32, u32)>,
    /// Hard links.
    pub(crate) links: u32,
    /// The source it comes from, by its URI; `None` for the library's own directories.
    pub(crate) source: Option<String>,
    /// Its path beneath the source's root, as the source calls it.
    pub(crate) object_path: Option<Text>,
    /// When the directory was last listed completely, RFC 3339.
    pub(crate) listed: Option<String>,
    /// Why its last listing failed.
    pub(crate) failure: Option<String>,
    /// The BLAKE3 of its bytes, in hex, where it is known for the present version.
    #[serde(default)]
    pub(crate) content: Option<String>,
    /// Other files of the library that are known to hold the same bytes: the first of them.
    #[serde(default)]
    pub(crate) replicas: Vec<Text>,
    /// Where other members of its union have the same name, which is hidden by it.
    #[serde(default)]
    pub(crate) hidden: Vec<Text>,
    /// Bytes of those.
    #[serde(default)]
    pub(crate) hidden_bytes: u64,
}

/// What a file holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HashLine {
    /// Its path in the tree.
    pub(crate) path: Text,
    /// Bytes.
    pub(crate) size: u64,
    /// The BLAKE3 of its bytes, in hex.
    pub(crate) content: String,
}

/// What is cached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CacheFacts {
    /// The folder of the disk cache.
    pub(crate) directory: Text,
    /// Bytes on disk of what is not pinned.
    pub(crate) disk_bytes: u64,
    /// The most that they may be.
    pub(crate) disk_limit_bytes: u64,
    /// Bytes on disk of what is pinned, which do not count against that limit.
    #[serde(default)]
    pub(crate) pinned_bytes: u64,
    /// The most that they may be; 0: what the disk has.
    #[serde(default)]
    pub(crate) pinned_limit_bytes: u64,
    /// Bytes in memory.
    pub(crate) memory_bytes: u64,
    /// The most that they may be.
    pub(crate) memory_limit_bytes: u64,
    /// What each source has on disk, for those that have anything.
    pub(crate) sources: Vec<SourceCache>,
}

/// What one source has in the disk cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceCache {
    /// Its URI; `None` where it is not of the library any more.
    pub(crate) uri: Option<String>,
    /// Objects with blocks on disk.
    pub(crate) objects: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// What verifying the disk cache came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verified {
    /// Objects looked at.
    pub(crate) objects: u64,
    /// Blocks that are as they were written.
    pub(crate) blocks: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Blocks that are not, and were dropped; they are fetched again when needed.
    pub(crate) bad_blocks: u64,
}
