//! What is logged, and how: lines on stderr, from `MANIFOLD_LOG`, the settings, or the command's own measure.
//!
//! Always true: a bare level is for Manifold's own crates. Others stay at `warn`, since at lower levels some of them
//! log requests whole, with the credentials in their headers.

use std::io::{self, IsTerminal};
use std::os::linux::fs::MetadataExt;

use tracing_subscriber::EnvFilter;

use crate::failure::{Failure, Result};
use crate::progress::LogWriter;
use crate::settings::Level;

const OWN: [&str; 6] = [
    "manifold",
    "manifold_backends",
    "manifold_catalog",
    "manifold_fuse",
    "manifold_index",
    "manifold_vfs",
];

/// Starts logging. `asked` is what `MANIFOLD_LOG` holds, and wins over `level`.
pub(crate) fn start(level: Level, asked: Option<&str>) -> Result<()> {
    let filter = match asked.filter(|text| !text.is_empty()) {
        None => own(level),
        Some(word) if Level::parse(word).is_some() => own(Level::parse(word).unwrap_or(level)),
        Some(directives) => directives.to_owned(),
    };
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Failure::usage(format!("MANIFOLD_LOG cannot be understood: {error}")))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(LogWriter)
        .with_ansi(io::stderr().is_terminal());
    // The journal stamps each line itself.
    let started = if to_journal() {
        lines.without_time().try_init()
    } else {
        lines.try_init()
    };
    started.map_err(|error| Failure::new(format!("cannot start logging: {error}")))
}

fn own(level: Level) -> String {
    let crates: Vec<_> = OWN.iter().map(|name| format!("{name}={}", level.as_str())).collect();
    format!("warn,{}", crates.join(","))
}

/// Tells whether stderr goes to the journal: systemd names its device and inode (systemd.exec(5), `JOURNAL_STREAM`).
fn to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else {
        return false;
    };
    stream == format!("{}:{}", stderr.st_dev(), stderr.st_ino())
}
