//! `mount` and `unmount`: the library as a file system, in the foreground or not.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli;
use crate::control::client::Client;
use crate::control::{Reply, Request};
use crate::daemon::{Daemon, MountWishes, Signals, check_point};
use crate::failure::{Failure, Result, io_failure, library_failure};
use crate::library::Library;
use crate::library::lock::{Role, try_lock};
use crate::mounts;
use crate::open::OpenLibrary;
use crate::print::{Output, say};
use crate::reach::{Context, mismatch};
use crate::settings::Settings;

/// How long a daemon may take to end: it serves open files for a moment, and makes everything durable.
const END_PATIENCE: Duration = Duration::from_secs(30);
/// The log of a daemon in the background is begun anew when it is longer than this, in bytes.
const LOG_MAX: u64 = 4 << 20;

/// Mounts the library. Prints the mount point when it is mounted.
pub(super) async fn mount(mount: cli::Mount, context: &Context, out: &mut Output) -> Result<()> {
    let settings = context.settings()?;
    // A name that is misspelt is not to look like a library with nothing in it.
    context.library.require()?;
    if mount.unless_mounted
        && let Some(point) = &mount.mountpoint
        && is_mounted_at(&context.library, point)?
    {
        return Ok(());
    }
    if mount.background {
        return in_background(&mount, context, out);
    }
    if mount.detached {
        rustix::process::setsid().map_err(|error| Failure::new(format!("cannot leave the terminal: {error}")))?;
    }
    let (daemon, mut signals) = match begin(&mount, settings, context).await {
        Ok(begun) => begun,
        Err(failure) => {
            if mount.detached {
                // To whoever started it. What it says on stderr goes to the log, among what others say there.
                out.record(&failure)?;
                out.flush()?;
            }
            return Err(failure);
        }
    };
    if mount.detached {
        // Everything has its absolute path by now. Where it was started from may be a disk that is to be taken away.
        std::env::set_current_dir("/").map_err(|error| io_failure("go to", Path::new("/"), &error))?;
    }
    tell(&daemon.point().to_string_lossy(), std::process::id(), context, out)?;
    out.flush()?;
    daemon.run(&mut signals).await
}

/// A library that has been mounted.
#[derive(Serialize)]
struct Mounted<'a> {
    library: &'a str,
    point: &'a str,
    pid: u32,
}

/// Says where the library has been mounted, and by which process.
fn tell(point: &str, pid: u32, context: &Context, out: &mut Output) -> Result<()> {
    if out.json() {
        return out.value(&Mounted {
            library: context.library.name(),
            point,
            pid,
        });
    }
    out.line(point)
}

async fn begin(mount: &cli::Mount, settings: Settings, context: &Context) -> Result<(Daemon, Signals)> {
    context.library.create()?;
    let lock = context.lock_as_daemon().await?;
    let at = match &mount.mountpoint {
        Some(at) => at.clone(),
        None => context.library.default_point(&settings, &context.around)?,
    };
    context.free(&at)?;
    let point = check_point(&at, context.library.state(), &[])?;
    let open = OpenLibrary::open(context.library.clone(), settings, lock, Role::Daemon, true)?;
    let signals = Signals::take()?;
    let wishes = MountWishes {
        allow_other: mount.allow_other,
        read_only: mount.read_only,
        no_exec: mount.noexec,
        no_atime: mount.noatime,
        no_diratime: mount.nodiratime,
        owner: mount.owner,
    };
    Ok((Daemon::start(open, point, &wishes).await?, signals))
}

/// Starts a process that stays, and returns when it has mounted, or has said why not.
fn in_background(mount: &cli::Mount, context: &Context, out: &mut Output) -> Result<()> {
    context.library.create()?;
    let file = context.library.log_file();
    let failed = |error: std::io::Error| library_failure("write the log", &file, &error);
    let mut options = fs::OpenOptions::new();
    let log = options
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&file)
        .map_err(failed)?;
    if log.metadata().map_err(failed)?.len() > LOG_MAX {
        log.set_len(0).map_err(failed)?;
    }
    let program =
        std::env::current_exe().map_err(|error| Failure::new(format!("cannot find this program: {error}")))?;
    let mut command = Command::new(program);
    if let Some(choice) = &context.choice {
        command.arg("--library").arg(choice);
    }
    command.args(["mount", "--detached"]);
    if let Some(point) = &mount.mountpoint {
        command.arg(point);
    }
    for (is_set, switch) in [
        (mount.allow_other, "--allow-other"),
        (mount.read_only, "--read-only"),
        (mount.noexec, "--noexec"),
        (mount.noatime, "--noatime"),
        (mount.nodiratime, "--nodiratime"),
    ] {
        if is_set {
            command.arg(switch);
        }
    }
    if let Some((user, group)) = mount.owner {
        command.args(["--owner", &format!("{user}:{group}")]);
    }
    // It is told ready by this pipe alone; one that systemd watches is not started like this.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .env_remove("NOTIFY_SOCKET");
    let mut child = command
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start the daemon: {error}")))?;
    let mut heard = String::new();
    if let Some(stdout) = child.stdout.take() {
        let read = BufReader::new(stdout).read_line(&mut heard);
        read.map_err(|error| Failure::new(format!("cannot hear from the daemon: {error}")))?;
    }
    if let Ok(failure) = serde_json::from_str::<Failure>(&heard) {
        return Err(failure);
    }
    if !heard.is_empty() {
        let point = heard.trim_end_matches('\n');
        if out.json() {
            return tell(point, child.id(), context, out);
        }
        say(format_args!("mounted at {point}"));
        return Ok(());
    }
    let status = child
        .wait()
        .map_err(|error| Failure::new(format!("cannot wait for the daemon: {error}")))?;
    Err(Failure::new(format!("the daemon ended with {status}"))
        .hint(format!("what it said stands at the end of {}", file.display())))
}

/// Ends the daemon of the library, or of the one that is mounted at `point`.
pub(super) async fn unmount(point: Option<&Path>, context: &Context, out: &mut Output) -> Result<()> {
    let mut library = context.library.clone();
    if let Some(point) = point {
        context.free(point)?;
        let real = mounts::real_path(point).map_err(|error| io_failure("use the mount point", point, &error))?;
        let Some(found) = mounts::ours()?.into_iter().rfind(|mount| mount.point == real) else {
            return Err(Failure::new(format!("Manifold is not mounted at {}", point.display())));
        };
        library = Library::of_fs_name(&found.fs_name, &context.around)?;
        if is_dead(&real) {
            return detach(&real);
        }
    }
    let Some(mut client) = Client::connect(&library.socket()).await? else {
        return match dead_mount_of(&library)? {
            Some(dead) => detach(&dead),
            None => Err(Failure::new(format!("the library '{}' is not mounted", library.name()))),
        };
    };
    let Reply::Done = client.ask(Request::Stop).await? else {
        return Err(mismatch());
    };
    let since = Instant::now();
    while let Err(holder) = try_lock(&library.lock_file(), Role::Command)? {
        if holder.role == Role::Daemon && since.elapsed() > END_PATIENCE {
            return Err(holder
                .refusal(library.name())
                .about("the daemon was asked to end, and has not yet"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if out.json() {
        return out.value(&serde_json::json!({ "unmounted": true }));
    }
    say("unmounted");
    Ok(())
}

/// Tells whether the daemon of a mount is gone.
fn is_dead(point: &Path) -> bool {
    fs::metadata(point).is_err_and(|error| error.kind() == std::io::ErrorKind::NotConnected)
}

/// Tells whether the library is mounted at that place, by a daemon that is there.
fn is_mounted_at(library: &Library, point: &Path) -> Result<bool> {
    // A mount point that is not there is for the mounting to tell.
    let Ok(real) = mounts::real_path(point) else {
        return Ok(false);
    };
    let topmost = mounts::ours()?.into_iter().rfind(|mount| mount.point == real);
    Ok(topmost.is_some_and(|mount| mount.fs_name == library.fs_name() && !is_dead(&mount.point)))
}

fn dead_mount_of(library: &Library) -> Result<Option<PathBuf>> {
    let own = |mount: &mounts::OurMount| mount.fs_name == library.fs_name() && is_dead(&mount.point);
    Ok(mounts::ours()?.into_iter().find(own).map(|mount| mount.point))
}

/// Takes away a mount whose daemon was killed.
fn detach(point: &Path) -> Result<()> {
    use rustix::mount::{UnmountFlags, unmount};
    let detached = match unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::PERM) => {
            let helper = Command::new("fusermount3")
                .args(["-u", "-z", "--"])
                .arg(point)
                .stdin(Stdio::null())
                .output();
            match helper {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
                Err(error) => Err(format!("fusermount3: {error}")),
            }
        }
        other => other.map_err(|error| error.to_string()),
    };
    detached.map_err(|why| Failure::new(format!("cannot take away the dead mount at {}: {why}", point.display())))?;
    say(format_args!("took away the dead mount at {}", point.display()));
    Ok(())
}
