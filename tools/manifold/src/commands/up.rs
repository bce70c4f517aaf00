//! `up`: from nothing to a mounted drive in one command.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use crate::attach::Present;
use crate::cli;
use crate::commands::source;
use crate::control::status::{SourceState, SourceStatus};
use crate::daemon::{Daemon, MountWishes, Signals, check_point};
use crate::events::Follower;
use crate::failure::{Failure, Result};
use crate::intake::{Intake, understand};
use crate::library::lock::Role;
use crate::mounts;
use crate::open::OpenLibrary;
use crate::print::{self, Output, count};
use crate::progress::Lines;
use crate::reach::{Context, Reach};
use crate::time::{now_ns, rfc3339};

/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Adds what is named, mounts everything, and shows progress until the end: in words, or where JSON was asked for, by the
/// events, an object on each line.
pub(super) async fn up(up: cli::Up, context: &Context, out: &mut Output) -> Result<()> {
    // In words only to somebody who wants words.
    let json = out.json();
    let say = |words: &dyn Display| {
        if !json {
            print::say(words);
        }
    };
    if !up.set.is_empty() && up.places.len() != 1 {
        return Err(Failure::usage("--set belongs to one DIR_OR_URI, so name exactly one")
            .hint("settings can also follow a URI: 's3://bucket?region=eu-west-1'"));
    }
    let mut specs = Vec::new();
    for place in &up.places {
        specs.push(understand(place, &up.set)?);
    }
    let begun = rfc3339(now_ns());
    context.library.create()?;
    let settings = context.settings()?;
    let lock = context.lock_as_daemon().await?;
    let at = match &up.at {
        Some(at) => at.clone(),
        None => context.library.default_point(&settings, &context.around)?,
    };
    let state = mounts::real_path(context.library.state()).unwrap_or_else(|_| context.library.state().to_owned());
    for root in specs.iter().filter_map(manifold_backends::SourceSpec::local_root) {
        mounts::check_source(root, &state)?;
    }
    let roots: Vec<_> = specs
        .iter()
        .filter_map(|spec| spec.local_root().map(std::path::Path::to_owned))
        .collect();
    context.free(&at)?;
    let point = check_point(&at, context.library.state(), &roots)?;
    let open = OpenLibrary::open(context.library.clone(), settings, lock, Role::Daemon, true)?;

    let mut reach = Reach::Here(Arc::clone(&open));
    let intake = Intake::new(&context.library, &open.settings, up.force);
    let present: Vec<_> = source::all(&mut reach).await?.iter().map(Present::from).collect();
    // All are tried out before the first is added: a call that fails has changed nothing.
    let mut candidates = Vec::new();
    for (i, spec) in specs.iter().enumerate() {
        if let Some(same) = present.iter().find(|present| present.is(spec)) {
            if !up.set.is_empty() {
                return Err(
                    Failure::usage(format!("{} is there already, with settings of its own", spec.name()))
                        .hint("`manifold source remove` takes it out; then it can be added with others"),
                );
            }
            say(&format_args!(
                "{} is there already, at {}",
                spec.name(),
                same.attached_at()
            ));
        } else if specs.iter().take(i).any(|before| before.name() == spec.name()) {
            say(&format_args!("{} is named twice, and added once", spec.name()));
        } else {
            candidates.push(
                intake
                    .try_out(spec.clone(), manifold_backends::Secrets::new(), &present)
                    .await?,
            );
        }
    }
    if present.is_empty() && candidates.is_empty() {
        return Err(
            Failure::usage("the library has no sources yet, so there is nothing to mount")
                .hint("name folders or URIs: manifold up ~/Pictures smb://user@host/share"),
        );
    }
    for candidate in candidates {
        let source = intake.add(candidate, None, &mut reach).await?;
        say(&format_args!("added {} at {}", source.uri, source.attach.visible()));
    }
    drop(reach);

    let mut signals = Signals::take()?;
    let wishes = MountWishes {
        allow_other: up.allow_other,
        read_only: up.read_only,
        ..MountWishes::default()
    };
    let mut follower = open.events.follow();
    let daemon = Daemon::start(open, point, &wishes).await?;
    say(&format_args!(
        "mounted at {}; Ctrl-C unmounts",
        daemon.point().display()
    ));
    if json {
        return run_telling(daemon, &mut signals, &mut follower, out).await;
    }
    let watch = tokio::spawn(watch(Arc::clone(daemon.library()), begun));
    let ended = daemon.run(&mut signals).await;
    watch.abort();
    if ended.is_ok() {
        say(&"unmounted");
    }
    ended
}

/// Runs the daemon, and prints what happens.
async fn run_telling(daemon: Daemon, signals: &mut Signals, follower: &mut Follower, out: &mut Output) -> Result<()> {
    let mut run = pin!(daemon.run(signals));
    let ended = loop {
        tokio::select! {
            biased;
            event = follower.next() => match event {
                Some(event) => {
                    out.record(&event)?;
                    out.flush()?;
                }
                None => break run.await,
            },
            ended = &mut run => break ended,
        }
    };
    // What happened at the end.
    while let Some(Some(event)) = follower.next().now_or_never() {
        out.record(&event)?;
    }
    ended
}

/// Shows how scans go on, and says what becomes of sources and of scans that end after `begun` (RFC 3339). Ends when it is
/// aborted.
async fn watch(open: Arc<OpenLibrary>, begun: String) {
    let mut lines = Lines::default();
    let mut said = BTreeMap::new();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let sources = match open.source_statuses() {
            Ok(sources) => sources,
            Err(failure) => {
                tracing::error!("{}", failure.message());
                return;
            }
        };
        for source in &sources {
            let finished = source.scan.as_ref().and_then(|scan| scan.finished.clone());
            let state = match (said.get(&source.id), source.state) {
                // What was said last stays true until it is known better.
                (Some((before, _)), SourceState::Connecting) => *before,
                (None, SourceState::Connecting) => SourceState::Ok,
                (_, now) => now,
            };
            let before = said.insert(source.id, (state, finished.clone()));
            if source.state == state {
                announce(before.as_ref().map(|(state, _)| *state), source);
            }
            // A scan that had ended before is no news.
            let news = before.map_or_else(|| finished > Some(begun.clone()), |(_, before)| before != finished);
            if let Some(scan) = source.scan.as_ref().filter(|_| news && finished.is_some()) {
                let entries = count(source.entries, "entry");
                let failed = match scan.failed {
                    0 => String::new(),
                    failed => format!(", but {} could not be listed", count(failed, "directory")),
                };
                print::say(format_args!(
                    "{} is scanned: {entries}{failed}",
                    source.attach.visible()
                ));
            }
        }
        let texts: Vec<_> = sources
            .iter()
            .filter_map(|source| Some((source.id, line(source)?)))
            .collect();
        lines.show(&texts);
    }
}

fn line(source: &SourceStatus) -> Option<String> {
    let scan = source.scan.as_ref().filter(|_| source.state == SourceState::Scanning)?;
    Some(format!(
        "{}: {}, {} listed, {} to go",
        source.attach.visible(),
        count(source.entries, "entry"),
        count(scan.listed, "directory"),
        scan.queued
    ))
}

/// Says in what other state a source is. One that is being connected anew is as it was until that is known.
fn announce(before: Option<SourceState>, source: &SourceStatus) {
    let attach = source.attach.visible();
    let was_bad = before.is_some_and(|before| !matches!(before, SourceState::Ok | SourceState::Scanning));
    let Some(problem) = &source.problem else {
        if was_bad {
            print::say(format_args!("{attach} is back"));
        }
        return;
    };
    if before == Some(source.state) {
        return;
    }
    let shown = if source.state.is_away() {
        ", and shown as last known"
    } else {
        ""
    };
    print::say(format_args!(
        "{attach} is {}{shown}: {}",
        source.state.as_str(),
        problem.message
    ));
    if !problem.hint.is_empty() {
        print::say(format_args!("hint: {}", problem.hint));
    }
}
