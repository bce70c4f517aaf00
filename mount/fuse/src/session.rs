//! A mount, from its making to its end.
//!
//! Owns the session with the kernel and the threads that belong to it. fuser is given a connection and no path: it would
//! unmount the path again when the session ends, and by then a newer mount may stand there.
//!
//! Always true: when [`mount`] fails, nothing is left mounted; when a session ends, however it ends, its mount point is
//! free or says so in the log.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use fuser::{Config, Session, SessionACL};
use manifold_vfs::Vfs;
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;

use crate::{
    MountError, MountOptions,
    adaptor::Adaptor,
    crossing::Crossing,
    meter::Meter,
    mountpoint::{self, Left, table::Device},
    notify::{self, Delivery, Settled},
    shared::Shared,
    watchdog::{self, InFlight},
};

/// How long [`Mount::unmount`] waits for the kernel to let go of a mount that nothing uses. It takes milliseconds, unless
/// another mount namespace holds a copy.
const FAREWELL: Duration = Duration::from_secs(2);

/// A mounted library. Dropping it unmounts.
#[derive(Debug)]
pub struct Mount {
    point: PathBuf,
    device: Device,
    shared: Arc<Shared>,
    settled: Settled,
    ending: Arc<Ending>,
    left: AtomicBool,
}

/// How a mount came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was unmounted, by us or from outside, or its connection was aborted from outside.
    Unmounted,
    /// A request was not answered in twice its time, so that we gave the mount up. The next is as good as the first.
    GivenUp,
}

/// What became of a mount that was taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// The kernel has let go of it.
    Entirely,
    /// Its name is free, but files are open in it, which are served until they are closed or the process ends.
    InUse,
}

/// Mounts a library at the directory `at`, after clearing away what a killed daemon has left there.
///
/// `runtime` is where requests wait that have to ask a source. The mount answers until [`Mount::unmount`], or until someone
/// unmounts it from outside. What the kernel asks is counted by `meter`.
pub fn mount(
    vfs: Arc<Vfs>,
    at: &Path,
    options: &MountOptions,
    runtime: Handle,
    meter: Arc<Meter>,
) -> Result<Mount, MountError> {
    let point = mountpoint::prepare(at)?;
    let connection = mountpoint::attach(&point, options)?;
    let Some(device) = mountpoint::topmost(&point)?.map(|top| top.device) else {
        let cause = io::Error::other("it was taken away again at once");
        return Err(MountError::System {
            doing: "mount",
            point,
            cause,
        });
    };
    let mut foothold = Foothold {
        point: &point,
        device,
        ending: Arc::default(),
        kept: false,
    };
    let ending = &Arc::clone(&foothold.ending);
    let shared = Arc::new(Shared::new(options, Arc::clone(&meter)));
    let failed = |doing| {
        let point = point.clone();
        move |cause| MountError::System { doing, point, cause }
    };

    // From before the first answer on, so that no change to it is missed.
    let events = vfs.subscribe();
    let told = Arc::downgrade(&vfs);
    let in_flight = InFlight::new(options.threads);
    let owner = options
        .owner
        .unwrap_or_else(|| (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()));
    vfs.set_owner(owner);
    let adaptor = Adaptor {
        vfs,
        crossing: Crossing::new(runtime, Arc::clone(&in_flight), meter),
        shared: Arc::clone(&shared),
        owner,
    };
    let mut config = Config::default();
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = mountpoint::device_opens();
    // Who may come in is the kernel's business (`allow_other`, `default_permissions`). fuser's own check goes by another of
    // the caller's ids than the kernel's and would refuse some whom the kernel lets in.
    let session = Session::from_fd(adaptor, connection, SessionACL::All, config)
        .map_err(failed("open a session with the kernel"))?;
    read_ahead(device, options.readahead_kib);

    shared.connect(session.notifier());
    let delivery = Delivery {
        notifier: session.notifier(),
        connection: session
            .as_fd()
            .try_clone_to_owned()
            .map_err(failed("keep the connection to the kernel"))?,
        shared: Arc::clone(&shared),
        vfs: told,
    };
    let settled = notify::start(events, delivery, ending).map_err(failed("start a thread"))?;
    shared.follow(settled.clone());
    watchdog::start(in_flight, &point, device, options.request_deadline, ending).map_err(failed("start a thread"))?;
    thread::Builder::new()
        .name("manifold-fuse".to_owned())
        .spawn({
            let (point, ending) = (point.clone(), Arc::clone(ending));
            move || serve(session, &point, device, &ending)
        })
        .map_err(failed("start a thread"))?;
    foothold.kept = true;
    let ending = Arc::clone(ending);
    drop(foothold);
    Ok(Mount {
        point,
        device,
        shared,
        settled,
        ending,
        left: AtomicBool::new(false),
    })
}

/// A mount that is being made: unless it is kept, it is taken away again, and its threads end.
struct Foothold<'a> {
    point: &'a Path,
    device: Device,
    ending: Arc<Ending>,
    kept: bool,
}

impl Drop for Foothold<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        self.ending.come();
        if let Err(error) = mountpoint::leave(self.point, self.device) {
            tracing::warn!(point = %self.point.display(), %error, "a mount that failed could not be taken away");
        }
    }
}

impl Mount {
    /// The directory at which the library is mounted, without symbolic links.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// The file system's device number, as `st_dev` of all that is in it.
    pub fn device(&self) -> u64 {
        rustix::fs::makedev(self.device.major, self.device.minor)
    }

    /// Whether the kernel reads local files and wholly cached objects by itself. `false` after the first file for which it
    /// said that this process may not ask for it.
    pub fn passthrough(&self) -> bool {
        self.shared.passthrough()
    }

    /// Waits until the kernel has been told of all that has changed so far, but no longer than about `patience`.
    pub fn settle(&self, patience: Duration) {
        self.settled.wait(patience);
    }

    /// Waits until the mount is over: unmounted by us or from outside, or aborted.
    pub fn wait(&self) -> Ended {
        self.ending.wait()
    }

    /// Takes the mount away. Where files are open in it, its name becomes free at once all the same, and what is open is
    /// served until it is closed. A mount that is over already, and whatever stands in its place now, is left alone.
    pub fn unmount(&self) -> Result<Unmounted, MountError> {
        if self.ending.has_come() {
            return Ok(Unmounted::Entirely);
        }
        let gone = match self.leave()? {
            Left::Detached => false,
            Left::Unmounted | Left::Gone => self.ending.wait_for(FAREWELL),
        };
        Ok(if gone { Unmounted::Entirely } else { Unmounted::InUse })
    }

    /// Takes the mount away as [`unmount`](Self::unmount) does, and waits for nobody: what is open is served until it is
    /// closed or the process ends.
    pub fn unmount_at_once(&self) -> Result<(), MountError> {
        if self.ending.has_come() {
            return Ok(());
        }
        self.leave().map(drop)
    }

    fn leave(&self) -> Result<Left, MountError> {
        let left = mountpoint::leave(&self.point, self.device)?;
        self.left.store(true, Ordering::Relaxed);
        Ok(left)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !self.left.load(Ordering::Relaxed)
            && let Err(error) = self.unmount()
        {
            tracing::warn!(point = %self.point.display(), %error, "the mount could not be taken away");
        }
    }
}

/// Whether and when a session is over.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct State {
    over: bool,
    given_up: bool,
}

impl Ending {
    pub(crate) fn has_come(&self) -> bool {
        self.state.lock().over
    }

    pub(crate) fn wait(&self) -> Ended {
        let mut state = self.state.lock();
        self.came.wait_while(&mut state, |state| !state.over);
        if state.given_up {
            Ended::GivenUp
        } else {
            Ended::Unmounted
        }
    }

    /// Whether it comes within `patience`.
    pub(crate) fn wait_for(&self, patience: Duration) -> bool {
        !self
            .came
            .wait_while_for(&mut self.state.lock(), |state| !state.over, patience)
            .timed_out()
    }

    /// Says whether it is we who give the mount up. What has come stays as it was.
    pub(crate) fn give_up(&self, given_up: bool) {
        let mut state = self.state.lock();
        if !state.over {
            state.given_up = given_up;
        }
    }

    pub(crate) fn come(&self) {
        self.state.lock().over = true;
        self.came.notify_all();
    }
}

/// Answers the kernel until the connection ends, then sees to it that no dead mount stays behind.
fn serve(session: Session<Adaptor>, point: &Path, device: Device, ending: &Ending) {
    if let Err(error) = session.run() {
        tracing::error!(point = %point.display(), %error, "the session with the kernel broke off");
    }
    clear_away(point, device);
    ending.come();
}

/// Takes away what the end of a session has left at its mount point.
pub(crate) fn clear_away(point: &Path, device: Device) {
    match mountpoint::clear_away(point, device) {
        Ok(false) => tracing::debug!(point = %point.display(), "unmounted"),
        Ok(true) => tracing::warn!(point = %point.display(), "the mount died and was taken away"),
        Err(error) => tracing::warn!(point = %point.display(), %error, "a dead mount stays behind"),
    }
}

/// Lets the kernel read far ahead of a sequential reader. Only root may; without it the kernel's 128 KiB stay.
fn read_ahead(device: Device, kib: u32) {
    let setting = format!("/sys/class/bdi/{}:{}/read_ahead_kb", device.major, device.minor);
    if let Err(error) = fs::write(&setting, kib.to_string()) {
        tracing::debug!(setting, %error, "the kernel's own readahead stays");
    }
}
