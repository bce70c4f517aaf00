//! What a mount may be told. Values only: nothing here reads the environment or a file.

use std::{num::NonZeroUsize, time::Duration};

/// How a library is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the mount")]
pub struct MountOptions {
    /// Lets users other than the mounting one in. An ordinary user needs `user_allow_other` in `/etc/fuse.conf` for it.
    pub allow_other: bool,
    /// Nothing can be changed through the mount, whatever its sources allow.
    pub read_only: bool,
    /// Nothing in the mount can be run as a program.
    pub no_exec: bool,
    /// Reading moves no access times. It does not without this either; the kernel's table of mounts then says so.
    pub no_atime: bool,
    /// The same of directories alone.
    pub no_diratime: bool,
    /// Lets the kernel read and write local files, and read wholly cached objects, by itself, where it may (Linux 6.9, `CAP_SYS_ADMIN`).
    pub passthrough: bool,
    /// The files handed to the kernel may lie on overlayfs. Costs the ability to put an overlay on top of this mount.
    pub sources_on_overlayfs: bool,
    /// Threads that read requests from the kernel. Not less than one.
    pub threads: usize,
    /// How far the kernel reads ahead of a sequential reader, in KiB. Only root can raise it above the kernel's own 128.
    pub readahead_kib: u32,
    /// What `df` and `/proc/mounts` show as the device.
    pub fs_name: String,
    /// User and group that own entries whose source knows no owner. `None`: the user who mounts.
    pub owner: Option<(u32, u32)>,
    /// The longest that the file system takes for a request. One that takes twice as long ends the mount, so that no
    /// process is stuck for good.
    pub request_deadline: Duration,
}

/// Fewer threads than this let one slow look-up hold up its neighbours, even on a machine with two cores.
const THREADS_MIN: usize = 4;

/// Sequential reading of a source with 10 ms a request: 61 MB/s at the kernel's 128 KiB, 601 at 4 MiB, no better beyond.
const READAHEAD_KIB: u32 = 4096;

/// As the file system's own deadlines.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            allow_other: false,
            read_only: false,
            no_exec: false,
            no_atime: false,
            no_diratime: false,
            passthrough: true,
            sources_on_overlayfs: false,
            threads: std::thread::available_parallelism()
                .map_or(THREADS_MIN, NonZeroUsize::get)
                .max(THREADS_MIN),
            readahead_kib: READAHEAD_KIB,
            fs_name: "manifold".to_owned(),
            owner: None,
            request_deadline: REQUEST_DEADLINE,
        }
    }
}
