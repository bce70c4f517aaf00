//! Descriptors that whoever started this process had open, and did not mean for it.
//!
//! A process that stays would keep them open: who reads from a pipe of which one is an end would wait for as long as the library is mounted.

use std::fs;
use std::io;
use std::os::fd::RawFd;

use nix::errno::Errno;

/// The last of stdin, stdout and stderr, which are meant.
const STDERR: RawFd = 2;

/// Closes all but stdin, stdout and stderr. To be called before this process has opened anything.
pub(crate) fn close_inherited() -> io::Result<()> {
    let numbers = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok();
    // The one by which they are listed is among them, and closed by now.
    let open: Vec<_> = fs::read_dir("/proc/self/fd")?.filter_map(numbers).collect();
    for descriptor in open.into_iter().filter(|it| *it > STDERR) {
        match nix::unistd::close(descriptor) {
            // Whatever a file system says at the end, it is closed.
            Ok(()) | Err(Errno::EBADF | Errno::EINTR) => {}
            Err(errno) => tracing::debug!(descriptor, %errno, "an inherited descriptor was closed with an error"),
        }
    }
    Ok(())
}
