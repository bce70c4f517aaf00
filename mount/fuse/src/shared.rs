//! What the session threads, the notifier and the mount itself know together: open modes, kept listings, and whether the
//! kernel may read files by itself.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fuser::{
    BackingId, FileAttr, FileHandle, FopenFlags, INodeNo, InitFlags, KernelConfig, Notifier, ReplyCreate, ReplyOpen,
    Version,
};
use manifold_vfs::{Backing, Opened, Vfs};
use rustix::{
    io::Errno,
    thread::{CapabilitySet, CapabilitySets},
};

use crate::{
    MountOptions,
    adaptor::GENERATION,
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
    pub(crate) fn opened(&self, vfs: &Vfs, ino: INodeNo, opened: &Opened, direct: bool, reply: ReplyOpen) {
        let handle = FileHandle(opened.handle.0);
        match self.mode(vfs, ino, opened, direct, |file| reply.open_backing(file)) {
            (Some(registered), flags) => reply.opened_passthrough(handle, flags, &registered),
            (None, flags) => reply.opened(handle, flags),
        }
    }

    /// Answers a creation as [`opened`](Self::opened) answers an open.
    pub(crate) fn created(
        &self,
        vfs: &Vfs,
        (attr, belief, attr_belief): (&FileAttr, Duration, Duration),
        opened: &Opened,
        direct: bool,
        reply: ReplyCreate,
    ) {
        let handle = FileHandle(opened.handle.0);
        let (registered, flags) = self.mode(vfs, attr.ino, opened, direct, |file| reply.open_backing(file));
        // fuser has one time for both; an inode that the kernel has not met before costs it nothing to ask for.
        let belief = belief.min(attr_belief);
        match registered {
            Some(registered) => reply.created_passthrough(&belief, attr, GENERATION, handle, flags, &registered),
            None => reply.created(&belief, attr, GENERATION, handle, flags),
        }
    }

    /// Settles how an open file is read and written: by the kernel itself or through us.
    fn mode(
        &self,
        vfs: &Vfs,
        ino: INodeNo,
        opened: &Opened,
        direct: bool,
        register: impl FnOnce(&std::fs::File) -> std::io::Result<BackingId>,
    ) -> (Option<Arc<BackingId>>, FopenFlags) {
        // Whether a write clears the bits depends on who writes, which the kernel tells us and not the disk. And it does
        // not tell the disk if somebody takes O_DIRECT back from his descriptor, as dd does for its last block.
        let may_pass = self.passthrough() && !(opened.writes && (opened.privileged || direct));
        let registered = self.modes.open(ino, || match &opened.backing {
            Backing::File(file) if may_pass => self.register(ino, || register(file)),
            Backing::File(_) | Backing::Blocks => None,
        });
        let mut flags = FopenFlags::empty();
        if !opened.writes {
            // There is nothing to flush, and each close would wait for the answer.
            flags |= FopenFlags::FOPEN_NOFLUSH;
        }
        if registered.is_some() {
            // Thousands of files may be open, and the kernel has a reference to each.
            vfs.leave_to_kernel(opened.handle);
            self.meter.leave_to_kernel();
        } else if opened.keep_cache {
            // Only here: the kernel answers EIO if it is told to keep pages that it will not have.
            flags |= FopenFlags::FOPEN_KEEP_CACHE;
        }
        (registered, flags)
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

    /// Waits until the kernel has been told of all that has changed so far, but no longer than about `patience`. Not to be called
    /// from a thread that answers requests.
    pub(crate) fn settle(&self, patience: Duration) {
        if let Some(settled) = self.settled.get() {
            settled.wait(patience);
        }
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
    ///
    /// What it was opened for does not matter: the kernel opens the file anew for each who opens it, as he does, with the
    /// rights of the thread that registers. Those are without the right to keep set-user-ID bits, and to have more than a quota allows:
    /// what is written by way of the kernel clears the ones and is held to the other, as if an ordinary user had written it.
    fn register(&self, ino: INodeNo, register: impl FnOnce() -> std::io::Result<BackingId>) -> Option<BackingId> {
        without_keeping_privileges(register)
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

/// Makes a call on this thread without `CAP_FSETID` and `CAP_SYS_RESOURCE`.
fn without_keeping_privileges<T>(call: impl FnOnce() -> T) -> T {
    const PRIVILEGES: CapabilitySet = CapabilitySet::FSETID.union(CapabilitySet::SYS_RESOURCE);
    let has = |sets: &CapabilitySets| sets.effective.intersects(PRIVILEGES);
    let Some(sets) = rustix::thread::capabilities(None).ok().filter(has) else {
        return call();
    };
    let fewer = CapabilitySets {
        effective: sets.effective - PRIVILEGES,
        ..sets
    };
    if let Err(error) = rustix::thread::set_capabilities(None, fewer) {
        tracing::debug!(%error, "writes by way of the kernel keep set-user-ID bits, and to no quota");
        return call();
    }
    let result = call();
    if let Err(error) = rustix::thread::set_capabilities(None, sets) {
        tracing::error!(%error, "a thread did not get its capabilities back");
    }
    result
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
