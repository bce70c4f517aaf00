//! `events`: what happens in a mounted library, line by line, until Ctrl-C.

use crate::control::client::Client;
use crate::control::{Reply, Request};
use crate::events::{Event, What};
use crate::failure::Result;
use crate::print::{Output, count, say};
use crate::reach::{Context, mismatch, not_mounted};
use crate::time::clock;

/// Follows what happens. Ends with the daemon.
pub(super) async fn events(context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let Some(mut client) = Client::connect(&context.library.socket()).await? else {
        return Err(not_mounted(&context.library));
    };
    let Reply::Done = client.ask(Request::Events).await? else {
        return Err(mismatch());
    };
    say("following what happens; Ctrl-C ends");
    while let Some(reply) = client.next().await? {
        let Reply::Event(event) = reply else {
            return Err(mismatch());
        };
        if out.json() {
            out.record(&event)?;
        } else {
            out.line(in_words(&event))?;
        }
        out.flush()?;
    }
    Ok(())
}

fn in_words(event: &Event) -> String {
    let words = match &event.what {
        What::Mounted { point } => format!("mounted at {}", point.visible()),
        What::Unmounting { point } => format!("unmounting {}", point.visible()),
        What::CatalogLost { error, remedy } => format!("{error}; {remedy}"),
        What::SourceState {
            source, state, problem, ..
        } => {
            let why = problem
                .as_ref()
                .map_or_else(String::new, |it| format!(": {}", it.message));
            format!("{} is {state}{why}", source.attach.visible())
        }
        What::ScanBegan { source, generation } => {
            format!("{}: scan {generation} has begun", source.attach.visible())
        }
        What::ScanEnded {
            source,
            end,
            failed,
            reason,
        } => {
            let failed = match failed {
                Some(failed) if *failed > 0 => format!(", but {} could not be listed", count(*failed, "directory")),
                _ => String::new(),
            };
            let why = reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            format!("{}: the scan has {end}{failed}{why}", source.attach.visible())
        }
        What::RescanBegan { path } => format!("{}: listing it anew, as asked", path.visible()),
        What::RescanEnded {
            path,
            listed,
            failed,
            reason,
        } => {
            let failed = match failed {
                0 => String::new(),
                failed => format!(", but {} could not be", count(*failed, "directory")),
            };
            let why = reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            format!(
                "{}: {} listed anew{failed}{why}",
                path.visible(),
                count(*listed, "directory")
            )
        }
        What::UploadConflict { path, kept_as } => format!(
            "{} was changed at its source too; the local version is kept as {}",
            path.visible(),
            kept_as.visible()
        ),
        What::UploadRefused { path, error, remedy } => {
            format!("{} cannot be uploaded: {error}; {remedy}", path.visible())
        }
        What::OriginalRefused { path, error, remedy } => {
            format!(
                "{} has arrived, but stays where it was too: {error}; {remedy}",
                path.visible()
            )
        }
        What::MoveUndone { path, what } => format!("{}: {what}", path.visible()),
        What::MoveRefused { path, error, remedy } => {
            format!("{} is not followed by what it holds: {error}; {remedy}", path.visible())
        }
        What::Missed { events } => format!("{} came too quickly to be shown", count(*events, "event")),
    };
    format!("{}  {words}", clock(&event.at))
}
