//! `status`: is everything all right? The first line says it; the rest says why.

use crate::control::status::{HealthFacts, SourceState, SourceStatus, Status};
use crate::control::text::Text;
use crate::control::uploads::UploadCounts;
use crate::control::{Reply, Request};
use crate::failure::Result;
use crate::print::{Output, count, human_size};
use crate::reach::{Context, mismatch};
use crate::time::{clock, short};

/// Shows how everything is.
pub(super) async fn status(context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let mut reach = context.reach(false).await?;
    let Reply::Status(status) = reach.ask(Request::Status).await? else {
        return Err(mismatch());
    };
    if out.json() {
        out.value(&status)?;
    } else {
        show(&status, out)?;
    }
    reach.close().await
}

fn show(status: &Status, out: &mut Output) -> Result<()> {
    out.line(&status.summary)?;
    for trouble in &status.troubles {
        out.line(format_args!("trouble  {}; {}", trouble.message, trouble.hint))?;
    }
    if !status.sources.is_empty() {
        out.line("")?;
        sources(&status.sources, out)?;
    }
    out.line("")?;
    if let Some(mount) = &status.mount {
        let passthrough = match &mount.passthrough_why_not {
            None => "passthrough on".to_owned(),
            Some(why) => format!("passthrough off: {why}"),
        };
        out.line(format_args!("mount    {}, {passthrough}", mount.point.visible()))?;
    }
    for union in &status.unions {
        let members: Vec<_> = union.members.iter().map(Text::visible).collect();
        let what = union.problem.clone().unwrap_or_else(|| members.join(", "));
        out.line(format_args!("union    {}: {what}", union.at.visible()))?;
    }
    if let Some(cache) = &status.cache {
        out.line(format_args!(
            "cache    {} of {} on disk, {} of {} in memory",
            human_size(cache.disk_bytes),
            human_size(cache.disk_limit_bytes),
            human_size(cache.memory_bytes),
            human_size(cache.memory_limit_bytes)
        ))?;
    }
    if let Some(pins) = &status.pins {
        out.line(format_args!("pins     {}", super::pin::progress(Some(pins))))?;
    }
    if status.copies.hashed > 0 {
        let (hashed, reads) = (
            count(status.copies.hashed, "file"),
            count(status.copies.reads, "request"),
        );
        let switches = status.copies.switches;
        out.line(format_args!(
            "copies   {hashed} hashed; {reads} answered by a copy, {switches} after another had failed"
        ))?;
    }
    out.line(format_args!("uploads  {}", uploads(&status.uploads)))?;
    match &status.daemon {
        Some(daemon) => out.line(format_args!(
            "daemon   process {}, version {}, since {}",
            daemon.pid,
            daemon.version,
            short(&daemon.started)
        )),
        None => out.line(format_args!(
            "daemon   none runs; mount the library \"{}\" with: manifold up",
            status.library.name
        )),
    }
}

/// Says what waits to be uploaded.
fn uploads(counts: &UploadCounts) -> String {
    let mut parts = match counts.waiting {
        0 => vec!["none waiting".to_owned()],
        waiting => vec![format!("{waiting} waiting")],
    };
    for (number, what) in [
        (counts.under_way, "under way"),
        (counts.delayed, "failed and tried again"),
        (counts.refused, "refused (`manifold uploads` tells why)"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    if counts.moving > 0 {
        parts.push(format!("{} moved from another source", counts.moving));
    }
    if counts.originals > 0 {
        let originals = count(counts.originals, "original");
        parts.push(format!("{originals} of moved or removed files still to be taken away"));
    }
    if counts.moves > 0 {
        let (objects, directories) = (
            count(counts.to_move, "object"),
            count(counts.moves, "renamed directory"),
        );
        parts.push(format!("{objects} still to follow {directories}"));
    }
    if counts.moves_refused > 0 {
        parts.push("which is refused (`manifold uploads` tells why)".to_owned());
    }
    if counts.staged_bytes > 0 {
        let (used, limit) = (human_size(counts.staged_bytes), human_size(counts.limit_bytes));
        parts.push(format!("{used} of {limit} staged"));
    }
    if counts.conflicts > 0 {
        parts.push(format!(
            "{} (both versions are kept)",
            count(counts.conflicts, "conflict")
        ));
    }
    parts.join(", ")
}

/// Shows sources as a table, with what is wrong on lines of its own.
pub(super) fn sources(sources: &[SourceStatus], out: &mut Output) -> Result<()> {
    let width =
        |text: &dyn Fn(&SourceStatus) -> String| sources.iter().map(|it| text(it).chars().count()).max().unwrap_or(0);
    let attach = width(&|it| it.attach.visible());
    let state = width(&state_word);
    let entries = width(&|it| count(it.entries, "entry"));
    for source in sources {
        out.line(format_args!(
            "{:<attach$}  {:<state$}  {:>entries$}  {:>9}  {}",
            source.attach.visible(),
            state_word(source),
            count(source.entries, "entry"),
            human_size(source.bytes),
            source.uri
        ))?;
        if let Some(problem) = &source.problem {
            out.line(format_args!("    since {}: {}", short(&problem.since), problem.message))?;
            if !problem.hint.is_empty() {
                out.line(format_args!("    {}", problem.hint))?;
            }
        }
        if let Some(waits) = source.health.as_ref().and_then(waits) {
            out.line(format_args!("    {waits}"))?;
        }
        let held = source.scan.as_ref().and_then(|scan| scan.paused.as_ref());
        if let Some(why) = held.filter(|_| source.problem.is_none()) {
            out.line(format_args!("    the scan waits: {why}"))?;
        }
        if let Some(note) = source.watch.as_ref().and_then(|watch| watch.note.as_ref()) {
            out.line(format_args!("    {note}"))?;
        }
        if let Some(scan) = source.scan.as_ref().filter(|scan| scan.failed > 0) {
            out.line(format_args!(
                "    {} could not be listed; `manifold stat` tells why",
                count(scan.failed, "directory")
            ))?;
        }
    }
    Ok(())
}

/// Says what waits for a source that is not well, and until when.
fn waits(health: &HealthFacts) -> Option<String> {
    let waiting = health.queued + health.in_flight;
    let next = health
        .next_probe
        .as_ref()
        .map(|at| format!("asked again at {}", clock(at)));
    match (waiting, next) {
        _ if health.state == "online" => None,
        (0, next) => next,
        (waiting, None) => Some(format!("{} waiting", count(waiting, "request"))),
        (waiting, Some(next)) => Some(format!("{} waiting; {next}", count(waiting, "request"))),
    }
}

fn state_word(source: &SourceStatus) -> String {
    match (source.state, &source.scan) {
        (SourceState::Scanning, Some(scan)) => format!("scanning {}%", scan.percent()),
        (state, _) => state.as_str().to_owned(),
    }
}
