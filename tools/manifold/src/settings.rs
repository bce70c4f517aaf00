//! The settings of a library: one TOML file, checked as a whole when it is read.
//!
//! [`table`] is the only place that knows which settings there are: reading, the commented file that is written for a
//! new library, and `manifold settings` are all made from it. Always true: a file with anything unknown, of the wrong
//! type or out of range in it is refused with the place of every complaint, never read in part.

mod document;
mod table;
mod unions;
pub(crate) mod values;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::failure::{Failure, Result};

pub(crate) use document::Complaint;
pub(crate) use unions::UnionSettings;
pub(crate) use values::show_duration;

/// The settings in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) cache: Cache,
    pub(crate) deadlines: Deadlines,
    pub(crate) hash: Hash,
    pub(crate) log: Log,
    pub(crate) metrics: Metrics,
    pub(crate) mount: Mount,
    pub(crate) scan: Scan,
    pub(crate) secrets: Secrets,
    pub(crate) staging: Staging,
    pub(crate) unions: Vec<UnionSettings>,
    /// Which of them the file sets, as `table.name`.
    given: BTreeSet<String>,
}

/// Where blocks are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cache {
    /// The folder of the disk cache; `None`: in the library's state folder.
    pub(crate) directory: Option<PathBuf>,
    /// Bytes on disk of what is not pinned; 0 goes without a disk cache.
    pub(crate) disk_bytes: u64,
    /// Bytes of memory for file contents.
    pub(crate) memory_bytes: u64,
    /// Bytes on disk of what is pinned; 0: what the disk has.
    pub(crate) pinned_bytes: u64,
}

/// How long is waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// For a connection to a source.
    pub(crate) connect: Duration,
    /// For bytes of a file.
    pub(crate) data: Duration,
    /// For the listing of a directory that was never listed.
    pub(crate) metadata: Duration,
}

/// How it is learnt what files hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hash {
    /// From what lies whole in the disk cache.
    pub(crate) cached: bool,
    /// By reading local files in the background.
    pub(crate) local: bool,
    /// The same for files of other sources.
    pub(crate) remote: bool,
    /// Bytes a second that are read for that; 0: no limit.
    pub(crate) rate: u64,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    /// The least that is logged.
    pub(crate) level: Level,
}

/// Where metrics can be had, beside the control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metrics {
    /// A loopback address that answers HTTP; `None`: none does.
    pub(crate) listen: Option<SocketAddr>,
}

/// How the library is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Whether other users are let in.
    pub(crate) allow_other: bool,
    /// Whether the kernel may read and write files by itself.
    pub(crate) passthrough: bool,
    /// Whether nothing can be changed through the mount.
    pub(crate) read_only: bool,
    /// The mount point; `None`: `~/Manifold`, with the library's name where it has one.
    pub(crate) point: Option<PathBuf>,
    /// Bytes that the kernel reads ahead.
    pub(crate) readahead: u64,
    /// What a rename from one source to another comes to.
    pub(crate) rename: Rename,
}

/// How sources are scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Directories of one source that are listed at once.
    pub(crate) concurrency: u32,
    /// What scans do while this machine runs on its battery.
    pub(crate) on_battery: RunOrWait,
    /// What scans of other machines do while the network is metered.
    pub(crate) on_metered: RunOrWait,
    /// Directories of one source that are listed in a second at most; 0: as many as can be.
    pub(crate) rate: u32,
    /// After how long the whole of a source is listed again.
    pub(crate) every: Duration,
}

/// How secrets are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Secrets {
    /// Whether the system's keyring is used where there is one.
    pub(crate) keyring: bool,
}

/// Where what was written waits for its upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Staging {
    /// The most bytes that wait.
    pub(crate) bytes: u64,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Gives the word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// Finds the level of a word.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }
}

/// Whether something goes on or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunOrWait {
    Run,
    Wait,
}

impl RunOrWait {
    const ALL: [Self; 2] = [Self::Run, Self::Wait];

    /// Gives the word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Wait => "wait",
        }
    }

    /// Finds what a word stands for.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == word)
    }
}

/// What a rename from one source to another comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rename {
    Copy,
    Strict,
}

impl Rename {
    const ALL: [Self; 2] = [Self::Copy, Self::Strict];

    /// Gives the word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Strict => "strict",
        }
    }

    /// Finds what a word stands for.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == word)
    }
}

/// One setting, to be shown.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    /// `table.name`.
    pub(crate) key: String,
    /// The value in force, as it would stand in the file.
    pub(crate) value: String,
    /// Whether the file sets it.
    pub(crate) given: bool,
    /// What it means.
    pub(crate) meaning: &'static str,
}

impl Settings {
    /// Reads a file of settings; the defaults hold where there is none. `home` stands for `~`.
    pub(crate) fn load(file: &Path, home: Option<&Path>) -> Result<Self> {
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(Failure::new(format!(
                    "cannot read the settings {}: {error}",
                    file.display()
                )));
            }
        };
        Self::parse(&bytes, home).map_err(|complaints| {
            let lines: Vec<String> = complaints
                .iter()
                .map(|complaint| format!("{}:{complaint}", file.display()))
                .collect();
            Failure::new(lines.join("\n"))
                .hint("`manifold settings --defaults` prints every setting with its meaning and default")
        })
    }

    /// Reads settings, or says everything that is wrong with them.
    pub(crate) fn parse(bytes: &[u8], home: Option<&Path>) -> Result<Self, Vec<Complaint>> {
        document::parse(bytes, home)
    }

    /// Lists every setting with its value.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        let mut copy = self.clone();
        let keys = table::KEYS.iter().map(|key| Shown {
            key: key.full_name(),
            value: key.show(&mut copy),
            given: self.given.contains(&key.full_name()),
            meaning: key.meaning,
        });
        let unions = (!self.unions.is_empty()).then(|| Shown {
            key: "union".to_owned(),
            value: unions::show(&self.unions),
            given: true,
            meaning: "Directories of the library at which the sources that are attached beneath are shown as one.",
        });
        keys.chain(unions).collect()
    }
}

impl Default for Settings {
    fn default() -> Self {
        table::defaults()
    }
}

/// Gives the text of a file in which every setting stands with its default, commented out.
pub(crate) fn template() -> String {
    let mut text = String::from(
        "# Settings of this Manifold library. Every setting stands here with its default.\n\
         # To change one, take away the `#` before its name. `manifold settings` shows what holds.\n\
         # A daemon reads this file when it starts.\n",
    );
    let mut current = "";
    for key in table::KEYS {
        if key.table != current {
            current = key.table;
            text.extend(["\n[", current, "]\n"]);
        }
        text.extend(["# ", key.meaning, "\n#", key.name, " = ", key.default, "\n"]);
    }
    text.push_str(unions::TEMPLATE);
    text
}

/// Writes the commented file where there is none yet. Tells whether it was written.
pub(crate) fn create(file: &Path) -> io::Result<bool> {
    let opened = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    match opened {
        // A file that was cut short by a full disk would say less than all; none at all is better.
        Ok(mut opened) => match opened.write_all(template().as_bytes()) {
            Ok(()) => Ok(true),
            Err(error) => {
                fs::remove_file(file)?;
                Err(error)
            }
        },
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
