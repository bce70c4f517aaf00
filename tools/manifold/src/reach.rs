//! How a command reaches its library: through the daemon where one runs, else by opening it itself.
//!
//! Who holds the lock decides. Between two looks a daemon may start or end; then both ways are tried again.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::client::Client;
use crate::control::{Reply, Request};
use crate::failure::{Failure, Result, io_failure};
use crate::library::lock::{Lock, Role, try_lock};
use crate::library::{Library, Surroundings};
use crate::mounts;
use crate::open::OpenLibrary;
use crate::settings::Settings;

/// How long a daemon may take from its lock to its socket, or from closing its socket to its end.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// What every command knows.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) around: Surroundings,
    pub(crate) library: Library,
    /// How the library was named on the command line.
    pub(crate) choice: Option<OsString>,
}

/// A library that can be asked.
pub(crate) enum Reach {
    /// Through its daemon.
    Daemon(Client),
    /// Here.
    Here(Arc<OpenLibrary>),
}

impl Context {
    /// Reads the settings.
    pub(crate) fn settings(&self) -> Result<Settings> {
        self.library.settings(&self.around)
    }

    /// Reaches the library. `with_cache` starts the disk cache where it is opened here.
    pub(crate) async fn reach(&self, with_cache: bool) -> Result<Reach> {
        let since = Instant::now();
        loop {
            if let Some(client) = Client::connect(&self.library.socket()).await? {
                return Ok(Reach::Daemon(client));
            }
            match try_lock(&self.library.lock_file(), Role::Command)? {
                Ok(lock) => {
                    let open =
                        OpenLibrary::open(self.library.clone(), self.settings()?, lock, Role::Command, with_cache)?;
                    return Ok(Reach::Here(open));
                }
                Err(_) if since.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
                Err(holder) => return Err(holder.refusal(self.library.name())),
            }
        }
    }

    /// Takes the lock for a daemon, or says who holds it.
    ///
    /// `umount` returns before the daemon has made everything durable, so one that holds the lock without a mount is
    /// waited for: it ends, or it has just begun, and then mounts.
    pub(crate) async fn lock_as_daemon(&self) -> Result<Lock> {
        let since = Instant::now();
        loop {
            match crate::library::lock::lock(&self.library.lock_file(), Role::Daemon)? {
                Ok(lock) => return Ok(lock),
                Err(_) if since.elapsed() < PATIENCE && !self.is_mounted()? => tokio::time::sleep(PAUSE).await,
                Err(holder) => return Err(holder.refusal(self.library.name())),
            }
        }
    }

    /// Has whoever was killed and could not end let go of a mount point, whatever library is mounted there.
    pub(crate) fn free(&self, point: &Path) -> Result<()> {
        let real = mounts::real_path(point).map_err(|error| io_failure("use the mount point", point, &error))?;
        for mount in mounts::ours()?.iter().filter(|mount| mount.point == real) {
            // A library that cannot be found is nobody's whom we could end.
            if let Ok(library) = Library::of_fs_name(&mount.fs_name, &self.around) {
                library.end_undead()?;
            }
        }
        Ok(())
    }

    fn is_mounted(&self) -> Result<bool> {
        let own = self.library.fs_name();
        Ok(mounts::ours()?.iter().any(|mount| mount.fs_name == own))
    }
}

impl Reach {
    /// Asks.
    pub(crate) async fn ask(&mut self, request: Request) -> Result<Reply> {
        match self {
            Self::Daemon(client) => client.ask(request).await,
            Self::Here(open) => Arc::clone(open).answer(request).await,
        }
    }

    /// Tells whether a daemon answers.
    pub(crate) fn is_daemon(&self) -> bool {
        matches!(self, Self::Daemon(_))
    }

    /// Lets the library go, durably.
    pub(crate) async fn close(self) -> Result<()> {
        match self {
            Self::Daemon(_) => Ok(()),
            Self::Here(open) => open.close().await,
        }
    }
}

/// Says that there is no daemon, for what only one can do.
pub(crate) fn not_mounted(library: &Library) -> Failure {
    Failure::new(format!("the library '{}' is not mounted", library.name())).hint("mount it: manifold mount")
}

/// Says that a reply is not of the kind that belongs to its request.
pub(crate) fn mismatch() -> Failure {
    Failure::new("the library's answer is of another kind than was asked for")
}
