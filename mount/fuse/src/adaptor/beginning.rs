//! What is asked of the kernel when a mount begins.

use fuser::{InitFlags, KernelConfig};

/// Reads that the kernel lets wait at once: nearly all of its reading is reading ahead, in the background, also what a reader
/// waits for. Beyond this they wait in the kernel, those of other sources too. As many as may wait here.
const BACKGROUND_MAX: u16 = 4096;

/// When so many wait, the kernel reads nothing ahead that no reader waits for.
const CONGESTED_AT: u16 = 48;

/// The largest request. A read of more would be cut by the kernel all the same (`fs.fuse.max_pages_limit`).
const REQUEST_MAX: u32 = 1024 * 1024;

/// Asks for all that is useful; what an old kernel does not have is done without.
pub(super) fn ask_for(config: &mut KernelConfig) {
    let useful = [
        InitFlags::FUSE_PARALLEL_DIROPS,
        // Attributes come with a listing as long as they are asked for: `ls -l` wants them, `find` is four times slower
        // with them than without.
        InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO,
        InitFlags::FUSE_CACHE_SYMLINKS,
        InitFlags::FUSE_ASYNC_DIO,
        // Tells an aborted connection from an unmounted one in the log.
        InitFlags::FUSE_ABORT_ERROR,
        // The disk decides what an asker's mask and a directory's default ACL make of a new file's mode.
        InitFlags::FUSE_DONT_MASK,
        // Set-user-ID bits are cleared where a file is written, as the disk does. Else the kernel asks us before each
        // write whether there is anything to be cleared.
        InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        // Where there are access control lists, who may do what is decided by them.
        InitFlags::FUSE_POSIX_ACL,
    ];
    for flags in useful {
        if let Err(missing) = config.add_capabilities(flags) {
            tracing::debug!(?missing, "the kernel is too old for this");
        }
    }
    // Refused values come back as the nearest allowed one, and the kernel's own default stays: none is vital.
    for (what, refused) in [
        ("max_background", config.set_max_background(BACKGROUND_MAX).is_err()),
        (
            "congestion_threshold",
            config.set_congestion_threshold(CONGESTED_AT).is_err(),
        ),
        ("max_write", config.set_max_write(REQUEST_MAX).is_err()),
    ] {
        if refused {
            tracing::debug!(what, "the kernel keeps its own value");
        }
    }
}
