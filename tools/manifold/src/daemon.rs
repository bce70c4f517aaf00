//! The daemon: a mounted library that answers on its control socket until it is told to end.
//!
//! Owns the order of things at the start (lock, catalog, mount, socket, sources) and at the end (sources, mount, catalog).
//! Always true: however it ends short of being killed, nothing stays mounted and everything is durable.

mod end;
mod service;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use manifold_backends::SourceSpec;
use manifold_fuse::{Ended, Meter, Mount, MountError, MountOptions, Unmounted};
use manifold_vfs::Vfs;
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::connections::{blocking, parse_spec};
use crate::control::server::{Answer, Server};
use crate::control::status::{DaemonFacts, MountFacts, Status, Trouble, TroubleWith};
use crate::control::text::Text;
use crate::control::{MetricsForm, Reply, Request};
use crate::events::{self, Follower, What};
use crate::failure::{Failure, Result, io_failure};
use crate::guard::Guard;
use crate::metrics::http::HttpServer;
use crate::metrics::{MountPicture, Picture};
use crate::mounts;
use crate::open::OpenLibrary;
use crate::power;
use crate::print::say;
use crate::time::{now_ns, rfc3339};
use crate::troubles::{after_lost_log, of_lost_log};

/// How long the kernel may take to be told of what a command has changed.
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);
/// How long it takes at least from the start of one guard to the start of the next.
const GUARD_PAUSE: Duration = Duration::from_secs(5);

pub(crate) use end::Signals;

/// How a library is to be mounted, beyond its settings.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the mount")]
pub(crate) struct MountWishes {
    /// Lets other users in, whatever the settings say.
    pub(crate) allow_other: bool,
    /// Lets nothing be changed, whatever the settings say.
    pub(crate) read_only: bool,
    /// Lets nothing be run as a program.
    pub(crate) no_exec: bool,
    /// Tells the kernel that reading moves no access times: of anything, of directories.
    pub(crate) no_atime: bool,
    pub(crate) no_diratime: bool,
    /// Who owns what has no owner at its source; whoever mounts without it.
    pub(crate) owner: Option<(u32, u32)>,
}

/// A daemon that is mounted, and answers once it runs.
#[derive(Debug)]
pub(crate) struct Daemon {
    mounted: Arc<Mounted>,
    server: Server,
    /// `None`: metrics are to be had over the control socket alone.
    http: Option<HttpServer>,
}

/// What commands are answered from.
#[derive(Debug)]
struct Mounted {
    open: Arc<OpenLibrary>,
    /// The mount as it is now: it is made anew when it had to be given up.
    mount: Mutex<Arc<Mount>>,
    point: PathBuf,
    options: MountOptions,
    /// Counts what the kernel asks, of all mounts that were made.
    meter: Arc<Meter>,
    given_up: AtomicU64,
    /// `None`: it could not be started, or was killed.
    guard: Mutex<Option<Guard>>,
    started_ns: i64,
    /// Told when a command asks for the end.
    stop: Notify,
}

/// A place to mount at. One that was made for it is removed again if nothing is mounted there.
#[derive(Debug)]
pub(crate) struct Point {
    path: PathBuf,
    was_made: bool,
}

impl Drop for Point {
    fn drop(&mut self) {
        if self.was_made
            && let Err(error) = std::fs::remove_dir(&self.path)
        {
            tracing::debug!(point = %self.path.display(), %error, "the mount point that was made stays");
        }
    }
}

/// Looks at the mount point before anything else is done, and gives its real path. `sources` are folders that it must not lie
/// in, beside the state folder. One that does not exist is made, in a folder that does.
pub(crate) fn check_point(at: &Path, state: &Path, sources: &[PathBuf]) -> Result<Point> {
    let point = mounts::real_path(at).map_err(|error| io_failure("use the mount point", at, &error))?;
    mounts::check_point(
        &point,
        &mounts::real_path(state).unwrap_or_else(|_| state.to_owned()),
        sources,
    )?;
    let was_made = match std::fs::create_dir(&point) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(MountError::Missing(point).into()),
        Err(error) => return Err(io_failure("make the mount point", &point, &error)),
    };
    let point = Point { path: point, was_made };
    mounts::check_usable(&point.path)?;
    Ok(point)
}

/// Allows as many descriptors as this process may have at all: open files, connections and the cache share them, and the
/// usual limit of 1,024 is a courtesy to programs that use `select`.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, current = limit.current, "the limit on open files stays as low as it is");
    }
}

impl Daemon {
    /// Mounts the library at `point`, which [`check_point`] gave, and begins to connect its sources. To be awaited on the main
    /// thread, whose end the guard of the mount is told of.
    pub(crate) async fn start(open: Arc<OpenLibrary>, mut point: Point, wishes: &MountWishes) -> Result<Self> {
        raise_descriptor_limit();
        let roots = local_roots(&open)?;
        mounts::check_point(
            &point.path,
            &mounts::real_path(open.library.state()).unwrap_or_default(),
            &roots,
        )?;
        let settings = &open.settings.mount;
        let options = MountOptions {
            allow_other: settings.allow_other || wishes.allow_other,
            read_only: settings.read_only || wishes.read_only,
            no_exec: wishes.no_exec,
            no_atime: wishes.no_atime,
            no_diratime: wishes.no_diratime,
            passthrough: settings.passthrough,
            readahead_kib: u32::try_from(settings.readahead / 1024).unwrap_or(u32::MAX),
            fs_name: open.library.fs_name(),
            owner: wishes.owner,
            request_deadline: open.settings.deadlines.data.max(open.settings.deadlines.metadata),
            ..MountOptions::default()
        };
        tokio::spawn(events::forward(Arc::clone(&open)));
        tokio::spawn(power::hold_scans(Arc::clone(&open.indexer), open.settings.scan.clone()));
        for record in open.sources()? {
            open.connections.keep(&record);
        }
        open.vfs.keep_pins(Arc::new(now_ns));
        // Before anybody can see the mount, so that whoever does is answered.
        let server = Server::bind(&open.library.socket())?;
        let http = match open.settings.metrics.listen {
            Some(address) => Some(HttpServer::bind(address).await?),
            None => None,
        };
        let (vfs, meter) = (Arc::clone(&open.vfs), Arc::<Meter>::default());
        let guard = Guard::start().inspect_err(warn_of_no_guard).ok();
        let mount = mount(vfs, point.path.clone(), options.clone(), Arc::clone(&meter)).await?;
        if std::mem::take(&mut point.was_made) {
            say(format_args!("made the mount point {}", point.path.display()));
        }
        if let Some(http) = &http {
            say(format_args!("metrics at http://{}/metrics", http.address()));
        }
        let point = mount.point().to_owned();
        tracing::info!(library = open.library.name(), at = %point.display(), "mounted");
        open.events.tell(What::Mounted {
            point: Text::new(point.as_os_str().as_encoded_bytes()),
        });
        if let Some(loss) = open.catalog.log_loss() {
            open.events.tell(What::CatalogLost {
                error: of_lost_log(&loss),
                remedy: after_lost_log(&open.library),
            });
        }
        open.hash_in_background();
        let mounted = Mounted {
            open,
            mount: Mutex::new(mount),
            point,
            options,
            meter,
            given_up: AtomicU64::new(0),
            guard: Mutex::new(guard),
            started_ns: now_ns(),
            stop: Notify::new(),
        };
        mounted.have_guarded();
        Ok(Self {
            mounted: Arc::new(mounted),
            server,
            http,
        })
    }

    /// Answers commands until the end comes: a signal, a command, or somebody who unmounts from outside. Then unmounts,
    /// makes everything durable, and ends.
    pub(crate) async fn run(self, signals: &mut Signals) -> Result<()> {
        let Self { mounted, server, http } = self;
        service::ready(&format!("mounted at {}", mounted.point.display()));
        let over = tokio::select! {
            () = server.serve(Arc::clone(&mounted)) => Ok(()),
            () = serve_metrics(http.as_ref(), &mounted) => Ok(()),
            () = service::keep_alive() => Ok(()),
            () = signals.next() => Ok(()),
            () = mounted.stop.notified() => Ok(()),
            () = mounted.keep_guarded() => Ok(()),
            over = mounted.keep_mounted() => over,
        };
        service::stopping();
        mounted.open.events.tell(What::Unmounting {
            point: mounted.text_of_point(),
        });
        drop((server, http));
        let ended = tokio::select! {
            ended = mounted.end() => ended,
            () = signals.next() => mounted.end_at_once(),
        };
        // Who is served yet is cut off with the process, and at once if that could not end.
        let guard = mounted.guard.lock().take();
        if let Some(guard) = guard {
            guard.dismiss();
        }
        tracing::info!(library = mounted.open.library.name(), "ended");
        over.and(ended)
    }

    /// Gives the mount point.
    pub(crate) fn point(&self) -> &Path {
        &self.mounted.point
    }

    /// Gives the library.
    pub(crate) fn library(&self) -> &Arc<OpenLibrary> {
        &self.mounted.open
    }
}

impl Mounted {
    fn mount(&self) -> Arc<Mount> {
        Arc::clone(&self.mount.lock())
    }

    /// Tells the guard of the mount as it is now.
    fn have_guarded(&self) {
        let device = self.mount().device();
        if let Some(guard) = &mut *self.guard.lock()
            && let Err(failure) = guard.look_after(&self.point, device)
        {
            warn_of_no_guard(&failure);
        }
    }

    /// Starts a new guard whenever the one that there is has been killed. To be awaited on the main thread, whose end a guard is told of.
    /// Never ends.
    async fn keep_guarded(&self) {
        let mut children = match signal(SignalKind::child()) {
            Ok(children) => children,
            Err(error) => {
                tracing::warn!(%error, "nobody sees whether the guard of the mount is killed");
                return std::future::pending().await;
            }
        };
        loop {
            let is_gone = match &mut *self.guard.lock() {
                Some(guard) => guard.has_ended(),
                None => true,
            };
            if !is_gone {
                // Another child may have been meant, and its end may come with that of the guard.
                let _came = children.recv().await;
                continue;
            }
            let before = self.guard.lock().take();
            if before.is_some() {
                tracing::warn!("the guard of the mount was killed");
            }
            let guard = Guard::start().inspect_err(warn_of_no_guard).ok();
            *self.guard.lock() = guard;
            self.have_guarded();
            // One that is killed again and again is not to keep the machine busy.
            tokio::time::sleep(GUARD_PAUSE).await;
        }
    }

    fn text_of_point(&self) -> Text {
        Text::new(self.point.as_os_str().as_encoded_bytes())
    }

    /// Mounts anew as often as the mount has to be given up. Ends when somebody unmounts from outside.
    async fn keep_mounted(&self) -> Result<()> {
        while end::of_mount(&self.mount()).await? == Ended::GivenUp {
            let (vfs, point) = (Arc::clone(&self.open.vfs), self.point.clone());
            self.given_up.fetch_add(1, Ordering::Relaxed);
            let anew = mount(vfs, point, self.options.clone(), Arc::clone(&self.meter)).await;
            *self.mount.lock() = anew.map_err(|failure| failure.about("cannot mount anew"))?;
            self.have_guarded();
            tracing::warn!(at = %self.point.display(), "mounted anew, since a request was not answered in time");
            self.open.events.tell(What::Mounted {
                point: self.text_of_point(),
            });
        }
        say("unmounted from outside");
        Ok(())
    }

    fn status(&self) -> Result<Status> {
        let passthrough = self.mount().passthrough();
        let daemon = DaemonFacts {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: rfc3339(self.started_ns),
        };
        let mount = MountFacts {
            point: self.text_of_point(),
            passthrough,
            passthrough_why_not: (!passthrough).then(|| why_no_passthrough(self.open.settings.mount.passthrough)),
        };
        self.open.status(Some(daemon), Some(mount), self.trouble_of_guard())
    }

    fn trouble_of_guard(&self) -> Option<Trouble> {
        let is_there = self.guard.lock().as_mut().is_some_and(|guard| !guard.has_ended());
        (!is_there).then(|| Trouble {
            with: TroubleWith::Guard,
            message: "the mount has no guard, so that readers may have to wait for a daemon that was killed".to_owned(),
            hint: "its log tells why; a new one is started by itself as soon as that can be".to_owned(),
        })
    }

    /// Gathers what was counted, on a thread where that may block.
    async fn metrics(self: Arc<Self>) -> Result<Picture> {
        blocking(move || {
            let mount = MountPicture {
                point: self.text_of_point().visible(),
                started_ns: self.started_ns,
                operations: self.meter.operations(),
                left_to_kernel: self.meter.left_to_kernel(),
                given_up: self.given_up.load(Ordering::Relaxed),
            };
            Picture::take(&self.open, mount)
        })
        .await
    }

    /// Waits until the mount shows what has changed so far.
    async fn settle(&self) -> Result<()> {
        let mount = self.mount();
        blocking(move || {
            mount.settle(SETTLE_PATIENCE);
            Ok(())
        })
        .await
    }

    /// Unmounts, and waits a little for those who have files open.
    async fn end(&self) -> Result<()> {
        let mount = self.mount();
        let left = blocking(move || Ok(mount.unmount()?)).await;
        let left = match left {
            Ok(Unmounted::InUse) => end::wait_for_users(&self.mount()).await,
            Ok(Unmounted::Entirely) => Ok(()),
            Err(failure) => Err(failure),
        };
        // Nothing can be written any more.
        self.open.drain_uploads().await;
        left.and(self.open.close().await)
    }

    /// Lets everything fall. What is committed is kept; the kernel answers those who still read with an error.
    fn end_at_once(&self) -> Result<()> {
        self.mount().unmount_at_once()?;
        Err(Failure::new("ended at once, as asked by the second signal"))
    }
}

impl Answer for Mounted {
    async fn answer(self: Arc<Self>, request: Request) -> Result<Reply> {
        match request {
            Request::Status => {
                self.open.connections.ask_all().await;
                // A disk may be tried for it, which takes its time.
                Ok(Reply::Status(Box::new(blocking(move || self.status()).await?)))
            }
            Request::Metrics { form } => {
                let picture = self.metrics().await?;
                Ok(match form {
                    MetricsForm::Text => Reply::Metrics {
                        text: Some(picture.text()),
                        families: None,
                    },
                    MetricsForm::Json => Reply::Metrics {
                        text: None,
                        families: Some(picture.families()),
                    },
                })
            }
            Request::Stop => {
                self.stop.notify_one();
                Ok(Reply::Done)
            }
            Request::AddSource { spec, attach, force } => {
                if !force {
                    self.open.usable(&spec, "was not added").await?;
                }
                // What is mounted now has not been kept out when the indexer was made.
                if let Some(root) = spec.local_root() {
                    mounts::check_point(&self.point, Path::new("/dev/null"), &[root.to_owned()])?;
                }
                let added = Arc::clone(&self.open)
                    .answer(Request::AddSource { spec, attach, force })
                    .await;
                self.settle().await?;
                added
            }
            Request::SetSource { id, spec, force } => {
                if !force {
                    self.open.usable(&spec, "was not changed").await?;
                }
                Arc::clone(&self.open)
                    .answer(Request::SetSource { id, spec, force })
                    .await
            }
            other => {
                let reply = Arc::clone(&self.open).answer(other).await?;
                if matches!(&reply, Reply::Rescan(facts) if facts.ended) {
                    self.settle().await?;
                }
                Ok(reply)
            }
        }
    }

    fn follow(&self) -> Follower {
        self.open.events.follow()
    }
}

fn warn_of_no_guard(failure: &Failure) {
    tracing::warn!("{}", failure.message());
}

impl OpenLibrary {
    /// Tries a source out with what this process has: the command that asks may have another environment, and see other files.
    async fn usable(&self, spec: &SourceSpec, otherwise: &str) -> Result<()> {
        let patience = self.settings.deadlines.data;
        let usable = self.connections.try_out(spec, patience).await;
        usable.map_err(|failure| {
            failure
                .about(format_args!(
                    "{} {otherwise}, since the daemon cannot use it",
                    spec.name()
                ))
                .hint("--force does it all the same")
        })
    }
}

/// Mounts, on a thread where that may block.
async fn mount(vfs: Arc<Vfs>, point: PathBuf, options: MountOptions, meter: Arc<Meter>) -> Result<Arc<Mount>> {
    let runtime = tokio::runtime::Handle::current();
    blocking(move || Ok(Arc::new(manifold_fuse::mount(vfs, &point, &options, runtime, meter)?))).await
}

/// Answers Prometheus, if that is wished for. Never ends.
async fn serve_metrics(http: Option<&HttpServer>, mounted: &Arc<Mounted>) {
    match http {
        Some(http) => {
            let mounted = Arc::clone(mounted);
            let metrics = move || {
                let mounted = Arc::clone(&mounted);
                async move { Ok(mounted.metrics().await?.text()) }
            };
            http.serve(metrics).await;
        }
        None => std::future::pending().await,
    }
}

fn local_roots(open: &OpenLibrary) -> Result<Vec<PathBuf>> {
    let mut roots = Vec::new();
    for record in open.sources()? {
        match parse_spec(&record) {
            Ok(spec) => roots.extend(spec.local_root().map(Path::to_owned)),
            Err(failure) => tracing::error!("{}", failure.message()),
        }
    }
    Ok(roots)
}

/// Says why the kernel does not read files by itself.
fn why_no_passthrough(wanted: bool) -> String {
    /// `CAP_SYS_ADMIN`, as capabilities(7) numbers it.
    const SYS_ADMIN: u32 = 21;
    if !wanted {
        return "switched off in the settings (mount.passthrough)".to_owned();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .unwrap_or(0);
    if effective >> SYS_ADMIN & 1 == 0 {
        "it needs the capability CAP_SYS_ADMIN, which root has; reading works all the same".to_owned()
    } else {
        "this kernel does not offer it for these files (Linux 6.9 and CONFIG_FUSE_PASSTHROUGH do)".to_owned()
    }
}
