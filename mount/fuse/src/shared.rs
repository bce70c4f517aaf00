//! What the session threads, the notifier and the mount itself know together: open modes, kept listings, and whether the
//! kernel may read files by itself.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use fuser::{BackingId, FileHandle, FopenFlags, INodeNo, InitFlags, KernelConfig, Notifier, ReplyOpen, Version};
use manifold_vfs::{Backing, Opened, Vfs};
use rustix::{io::Errno, thread::CapabilitySet};

use crate::{
    MountOptions,
    listings::Listings,
    meter::Meter,
    modes::Modes,
    notify::{ATTRIBUTES_ONLY, Settled, TO_THE_END},
};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) modes: Modes,
    pub(crate) listings: Listings,
    /// Wished for at first, then whether it is to be had.
    passthrough: AtomicBool,
    /// A backing file may itself lie on this many layers of stacked file systems, less one (`fuse_init_out`).
    stack_depth: u32,
    kernel: OnceLock<Version>,
    notifier: OnceLock<Notifier>,
    settled: OnceLock<Settled>,
    meter: Arc<Meter>,
}

impl Shared {
    pub(crate) fn new(options: &MountOptions, meter: Arc<Meter>) -> Self {
        Self {
            modes: Modes::new(),
            listings: Listings::new(),
            passthrough: AtomicBool::new(options.passthrough && may_pass_through()),
            stack_depth: if options.sources_on_overlayfs { 2 } else { 1 },
            kernel: OnceLock::new(),
            notifier: OnceLock::new(),
            settled: OnceLock::new(),
            meter,
        }
    }

    /// Settles with the kernel what is possible.
    pub(crate) fn begin(&self, config: &mut KernelConfig) {
        let granted = self.passthrough()
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(self.stack_depth).is_ok();
        self.passthrough.store(granted, Ordering::Relaxed);
        self.kernel.get_or_init(|| config.kernel_abi());
    }

    /// The version of FUSE that the kernel speaks.
    pub(crate) fn kernel(&self) -> Option<Version> {
        self.kernel.get().copied()
    }

    pub(crate) fn passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }

    /// Answers an open in the mode that the inode has, or gets now.
    pub(crate) fn opened(&self, vfs: &Vfs, ino: INodeNo, opened: &Opened, reply: ReplyOpen) {
        let registered = self.modes.open(ino, || match &opened.backing {
            Backing::File(file) if self.passthrough() => self.register(ino, file, &reply),
            Backing::File(_) | Backing::Blocks => None,
        });
        let handle = opened.handle;
        // There is nothing to flush, and each close would wait for the answer.
        let mut flags = FopenFlags::FOPEN_NOFLUSH;
        if let Some(registered) = registered {
            // Thousands of files may be open, and the kernel has a reference to each.
            vfs.leave_to_kernel(handle);
            self.meter.leave_to_kernel();
            // Without KEEP_CACHE: the kernel answers EIO if it is told to keep pages that it will not have.
            return reply.opened_passthrough(FileHandle(handle.0), flags, &registered);
        }
        if opened.keep_cache {
            flags |= FopenFlags::FOPEN_KEEP_CACHE;
        }
        reply.opened(FileHandle(handle.0), flags);
    }

    /// Takes the attributes back that the kernel has of an inode. Not to be called from a thread that answers requests.
    pub(crate) fn forget_attributes(&self, ino: INodeNo) {
        let told = self
            .notifier
            .get()
            .map(|notifier| notifier.inval_inode(ino, ATTRIBUTES_ONLY, TO_THE_END));
        if let Some(Err(error)) = told {
            tracing::warn!(ino = ino.0, %error, "the kernel could not be told of a new size");
        }
    }

    /// Tells whether the kernel has been told of all that has changed, as far as any request can have seen it.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.get().is_none_or(Settled::is_so)
    }

    /// Lets [`Self::forget_attributes`] work.
    pub(crate) fn connect(&self, notifier: Notifier) {
        self.notifier.get_or_init(|| notifier);
    }

    /// Lets [`Self::is_settled`] work.
    pub(crate) fn follow(&self, settled: Settled) {
        self.settled.get_or_init(|| settled);
    }

    /// Hands a file to the kernel, which takes a reference of its own: our descriptor may be closed.
    fn register(&self, ino: INodeNo, file: &std::fs::File, reply: &ReplyOpen) -> Option<BackingId> {
        reply
            .open_backing(file)
            .inspect_err(|error| {
                if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) {
                    self.passthrough.store(false, Ordering::Relaxed);
                    tracing::debug!(
                        "the kernel may not read files by itself: that needs CAP_SYS_ADMIN outside containers"
                    );
                } else {
                    // Such as a file on a file system that is itself stacked too high. It is read through us.
                    tracing::debug!(ino = ino.0, %error, "the kernel cannot read this file by itself");
                }
            })
            .ok()
    }
}

/// Whether the kernel will let this process register files: `CAP_SYS_ADMIN`, and in the first user namespace.
fn may_pass_through() -> bool {
    let capable =
        rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    // user_namespaces(7): only the first one maps all ids to themselves.
    let outermost = std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    capable && outermost
}
