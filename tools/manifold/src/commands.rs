//! The commands. Each file has one or a few; this one leads to them.

mod browse;
mod cache;
mod check;
mod events;
mod generate;
mod hash;
mod metrics;
mod mount;
mod pin;
mod scan;
mod source;
mod status;
mod trash;
mod up;
mod uploads;

use rustix::fs::Mode;

use crate::cli::{Cli, Command};
use crate::failure::{Failure, Result};
use crate::guard;
use crate::inherited::close_inherited;
use crate::library::{Library, Surroundings};
use crate::logging;
use crate::print::Output;
use crate::reach::Context;
use crate::settings::{self, Level};

/// Does what was asked for.
pub(crate) fn run(cli: Cli) -> Result<()> {
    // What stays is begun by itself.
    if matches!(&cli.command, Command::Guard) || matches!(&cli.command, Command::Mount(mount) if mount.detached) {
        let closed = close_inherited();
        closed.map_err(|error| Failure::new(format!("cannot close what others have open: {error}")))?;
    }
    let mut out = Output::new(cli.json);
    let asked = std::env::var("MANIFOLD_LOG").ok();
    let done = match &cli.command {
        Command::Completions { shell } => generate::completions(*shell, &mut out),
        Command::Man { folder } => generate::man_pages(folder),
        Command::Guard => guard::run(),
        Command::Metrics { reference: true } => generate::metrics(&mut out),
        Command::Settings { defaults: true } => out.line(settings::template().trim_end()),
        _ => {
            // What is cached, known and logged is for the owner alone, wherever the settings put it.
            rustix::process::umask(Mode::RWXG | Mode::RWXO);
            let around = Surroundings::read();
            let library = Library::locate(cli.library.as_deref(), &around)?;
            let context = Context {
                around,
                library,
                choice: cli.library.clone(),
            };
            // A daemon logs as its settings say, a command only what went wrong. A daemon with bad settings says so itself.
            let level = match &cli.command {
                Command::Mount(_) => context.settings().map_or(Level::Warn, |settings| settings.log.level),
                _ => Level::Warn,
            };
            logging::start(level, asked.as_deref())?;
            context.library.end_undead()?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::new(format!("cannot start the runtime: {error}")))?;
            let done = runtime.block_on(dispatch(cli.command, &context, &mut out));
            // What still waits for a source is not waited for.
            runtime.shutdown_background();
            done
        }
    };
    done.and(out.flush())
}

async fn dispatch(command: Command, context: &Context, out: &mut Output) -> Result<()> {
    match command {
        Command::Up(up) => up::up(up, context, out).await,
        Command::Source(source) => source::run(source, context, out).await,
        Command::Mount(mount) => mount::mount(mount, context, out).await,
        Command::Unmount { mountpoint } => mount::unmount(mountpoint.as_deref(), context, out).await,
        Command::Status => status::status(context, out).await,
        Command::Events => events::events(context, out).await,
        Command::Ls { path, long } => browse::ls(&path, long, context, out).await,
        Command::Stat { path } => browse::stat(&path, context, out).await,
        Command::Pin(pin) => pin::pin(pin, context, out).await,
        Command::Unpin { paths, policy, gone } => pin::unpin(&paths, &policy, gone, context).await,
        Command::Pins => pin::pins(context, out).await,
        Command::Uploads { action } => uploads::run(action, context, out).await,
        Command::Trash { action } => trash::run(action, context, out).await,
        Command::Hash { paths } => hash::hash(&paths, context, out).await,
        Command::Scan { path, background } => scan::scan(&path, background, context, out).await,
        Command::Cache(cache) => cache::run(cache, context, out).await,
        Command::Metrics { .. } => metrics::metrics(context, out).await,
        Command::Check => check::check(context, out).await,
        Command::Settings { .. } => check::settings(context, out),
        Command::Completions { .. } | Command::Man { .. } | Command::Guard => Ok(()),
    }
}
