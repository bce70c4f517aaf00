//! The table of settings: names, defaults, meanings, bounds, and the field that each one fills.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    Cache, Deadlines, Hash, Level, Log, Metrics, Mount, Rename, RunOrWait, Scan, Secrets, Settings, Staging, values,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// One setting.
pub(super) struct Key {
    /// The table of the file that it stands in.
    pub(super) table: &'static str,
    /// Its name there.
    pub(super) name: &'static str,
    /// Its default, as it stands in the file.
    pub(super) default: &'static str,
    /// What it means, with its bounds.
    pub(super) meaning: &'static str,
    /// What its values look like, and the field they fill.
    pub(super) field: Field,
}

/// What the values of a setting look like, and the field they fill.
pub(super) enum Field {
    /// Bytes, within bounds or 0 where that is among them.
    Size(&'static [RangeInclusive<u64>], fn(&mut Settings) -> &mut u64),
    /// A span of time, within bounds.
    Duration(RangeInclusive<Duration>, fn(&mut Settings) -> &mut Duration),
    /// A whole number, within bounds.
    Count(RangeInclusive<u32>, fn(&mut Settings) -> &mut u32),
    /// `true` or `false`.
    Flag(fn(&mut Settings) -> &mut bool),
    /// An absolute path, or one that begins with `~/`; empty for the default.
    Path(fn(&mut Settings) -> &mut Option<PathBuf>),
    /// A word for how much is logged.
    Level(fn(&mut Settings) -> &mut Level),
    /// A loopback address with its port; empty for none.
    Loopback(fn(&mut Settings) -> &mut Option<SocketAddr>),
    /// `"run"` or `"wait"`.
    RunOrWait(fn(&mut Settings) -> &mut RunOrWait),
    /// `"copy"` or `"strict"`.
    Rename(fn(&mut Settings) -> &mut Rename),
}

/// Every setting; those of one table stand together.
pub(super) const KEYS: &[Key] = &[
    Key {
        table: "cache",
        name: "directory",
        default: "\"\"",
        meaning: "Folder of the disk cache, on a local disk; empty: `cache` in the library's state folder.",
        field: Field::Path(|it| &mut it.cache.directory),
    },
    Key {
        table: "cache",
        name: "disk_bytes",
        default: "\"20 GiB\"",
        meaning: "Most that the disk cache may occupy, without what is pinned; 0 goes without one (0, or 64 MiB to 1024 TiB).",
        field: Field::Size(&[0..=0, 64 * MIB..=1024 * TIB], |it| &mut it.cache.disk_bytes),
    },
    Key {
        table: "cache",
        name: "memory_bytes",
        default: "\"256 MiB\"",
        meaning: "Memory for file contents: half for cached blocks, half for requests and reading ahead (32 MiB to 1 TiB).",
        field: Field::Size(&[32 * MIB..=TIB], |it| &mut it.cache.memory_bytes),
    },
    Key {
        table: "cache",
        name: "pinned_bytes",
        default: "\"0 B\"",
        meaning: "Most that pinned files may occupy beside that; 0: what the disk has, but for a part that stays free (0 to 1024 TiB).",
        field: Field::Size(&[0..=1024 * TIB], |it| &mut it.cache.pinned_bytes),
    },
    Key {
        table: "deadlines",
        name: "connect",
        default: "\"5 s\"",
        meaning: "How long a connection to a source may take to be made (100 ms to 5 min).",
        field: Field::Duration(Duration::from_millis(100)..=Duration::from_mins(5), |it| {
            &mut it.deadlines.connect
        }),
    },
    Key {
        table: "deadlines",
        name: "data",
        default: "\"10 s\"",
        meaning: "How long an application waits for bytes of a source before its read fails (1 s to 10 min).",
        field: Field::Duration(Duration::from_secs(1)..=Duration::from_mins(10), |it| {
            &mut it.deadlines.data
        }),
    },
    Key {
        table: "deadlines",
        name: "metadata",
        default: "\"10 s\"",
        meaning: "How long it waits for a directory that was never listed before (1 s to 10 min).",
        field: Field::Duration(Duration::from_secs(1)..=Duration::from_mins(10), |it| {
            &mut it.deadlines.metadata
        }),
    },
    Key {
        table: "hash",
        name: "cached",
        default: "true",
        meaning: "Hash what lies whole in the disk cache, so that its copies elsewhere are recognised.",
        field: Field::Flag(|it| &mut it.hash.cached),
    },
    Key {
        table: "hash",
        name: "local",
        default: "true",
        meaning: "Hash local files whose size is that of a file of another source, by reading them in the background.",
        field: Field::Flag(|it| &mut it.hash.local),
    },
    Key {
        table: "hash",
        name: "rate",
        default: "\"32 MiB\"",
        meaning: "Bytes a second that are read in the background to be hashed; 0: no limit (0, or 64 KiB to 1 TiB).",
        field: Field::Size(&[0..=0, 64 * KIB..=TIB], |it| &mut it.hash.rate),
    },
    Key {
        table: "hash",
        name: "remote",
        default: "false",
        meaning: "The same for files of other sources: each that may have a copy is fetched in full, once.",
        field: Field::Flag(|it| &mut it.hash.remote),
    },
    Key {
        table: "log",
        name: "level",
        default: "\"info\"",
        meaning: "What the daemon logs: \"error\", \"warn\", \"info\", \"debug\" or \"trace\"; MANIFOLD_LOG overrides it.",
        field: Field::Level(|it| &mut it.log.level),
    },
    Key {
        table: "metrics",
        name: "listen",
        default: "\"\"",
        meaning: "Address of this machine alone that answers GET /metrics, such as 127.0.0.1:9469, to any of its users; empty: none.",
        field: Field::Loopback(|it| &mut it.metrics.listen),
    },
    Key {
        table: "mount",
        name: "allow_other",
        default: "false",
        meaning: "Let other users in, each to what its permissions let them; needs user_allow_other in /etc/fuse.conf.",
        field: Field::Flag(|it| &mut it.mount.allow_other),
    },
    Key {
        table: "mount",
        name: "passthrough",
        default: "true",
        meaning: "Let the kernel read and write local files, and read wholly cached ones, by itself, where it may.",
        field: Field::Flag(|it| &mut it.mount.passthrough),
    },
    Key {
        table: "mount",
        name: "point",
        default: "\"\"",
        meaning: "Where the library is mounted if the command names no place; empty: ~/Manifold.",
        field: Field::Path(|it| &mut it.mount.point),
    },
    Key {
        table: "mount",
        name: "read_only",
        default: "false",
        meaning: "Let nothing be changed through the mount, whatever its sources allow.",
        field: Field::Flag(|it| &mut it.mount.read_only),
    },
    Key {
        table: "mount",
        name: "readahead",
        default: "\"4 MiB\"",
        meaning: "How far the kernel reads ahead of a sequential reader, where we may set it (0 to 64 MiB).",
        field: Field::Size(&[0..=64 * MIB], |it| &mut it.mount.readahead),
    },
    Key {
        table: "mount",
        name: "rename",
        default: "\"copy\"",
        meaning: "Rename of a file to another source: \"copy\" shows it there at once, copies, verifies and removes the original; \"strict\": EXDEV.",
        field: Field::Rename(|it| &mut it.mount.rename),
    },
    Key {
        table: "scan",
        name: "concurrency",
        default: "8",
        meaning: "How many directories of one source are listed at once in the background (1 to 64).",
        field: Field::Count(1..=64, |it| &mut it.scan.concurrency),
    },
    Key {
        table: "scan",
        name: "every",
        default: "\"24 h\"",
        meaning: "After how long the whole of a source is listed again; what is in use is kept fresh anyway (1 min to 8760 h).",
        field: Field::Duration(Duration::from_mins(1)..=Duration::from_hours(8760), |it| {
            &mut it.scan.every
        }),
    },
    Key {
        table: "scan",
        name: "on_battery",
        default: "\"run\"",
        meaning: "Whether scans \"run\" or \"wait\" while this machine runs on its battery.",
        field: Field::RunOrWait(|it| &mut it.scan.on_battery),
    },
    Key {
        table: "scan",
        name: "on_metered",
        default: "\"run\"",
        meaning: "Whether scans of other machines \"run\" or \"wait\" while NetworkManager calls the network metered.",
        field: Field::RunOrWait(|it| &mut it.scan.on_metered),
    },
    Key {
        table: "scan",
        name: "rate",
        default: "0",
        meaning: "How many directories of one source are listed in a second at most, 0 for no limit (0 to 10000).",
        field: Field::Count(0..=10_000, |it| &mut it.scan.rate),
    },
    Key {
        table: "secrets",
        name: "keyring",
        default: "true",
        meaning: "Keep secrets in the system's keyring where there is one; else, and without one, in an encrypted file.",
        field: Field::Flag(|it| &mut it.secrets.keyring),
    },
    Key {
        table: "staging",
        name: "bytes",
        default: "\"10 GiB\"",
        meaning: "Most that may wait to be uploaded, in the library's state folder; then a write waits, and fails with ENOSPC (16 MiB to 1024 TiB).",
        field: Field::Size(&[16 * MIB..=1024 * TIB], |it| &mut it.staging.bytes),
    },
];

impl Key {
    /// Gives the name with its table.
    pub(super) fn full_name(&self) -> String {
        format!("{}.{}", self.table, self.name)
    }

    /// Gives the value in force, as it would stand in the file.
    pub(super) fn show(&self, settings: &mut Settings) -> String {
        match &self.field {
            Field::Size(_, field) => quoted(&values::show_size(*field(settings))),
            Field::Duration(_, field) => quoted(&values::show_duration(*field(settings))),
            Field::Count(_, field) => field(settings).to_string(),
            Field::Flag(field) => field(settings).to_string(),
            Field::Path(field) => quoted(
                &field(settings)
                    .as_deref()
                    .unwrap_or(Path::new(""))
                    .display()
                    .to_string(),
            ),
            Field::Loopback(field) => quoted(&field(settings).map_or_else(String::new, |address| address.to_string())),
            Field::Level(field) => quoted(field(settings).as_str()),
            Field::RunOrWait(field) => quoted(field(settings).as_str()),
            Field::Rename(field) => quoted(field(settings).as_str()),
        }
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// The defaults. That they are those of the table is tested.
pub(super) fn defaults() -> Settings {
    Settings {
        cache: Cache {
            directory: None,
            disk_bytes: 20 * GIB,
            memory_bytes: 256 * MIB,
            pinned_bytes: 0,
        },
        deadlines: Deadlines {
            connect: Duration::from_secs(5),
            data: Duration::from_secs(10),
            metadata: Duration::from_secs(10),
        },
        hash: Hash {
            cached: true,
            local: true,
            remote: false,
            rate: 32 * MIB,
        },
        log: Log { level: Level::Info },
        metrics: Metrics { listen: None },
        mount: Mount {
            allow_other: false,
            passthrough: true,
            point: None,
            read_only: false,
            readahead: 4096 * KIB,
            rename: Rename::Copy,
        },
        scan: Scan {
            concurrency: 8,
            on_battery: RunOrWait::Run,
            on_metered: RunOrWait::Run,
            rate: 0,
            every: Duration::from_hours(24),
        },
        secrets: Secrets { keyring: true },
        staging: Staging { bytes: 10 * GIB },
        unions: Vec::new(),
        given: BTreeSet::new(),
    }
}
