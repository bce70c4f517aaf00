//! `uploads`: what was written and is not at its source yet.

use crate::cli;
use crate::control::uploads::{UploadFacts, UploadsFacts};
use crate::control::{Reply, Request};
use crate::failure::Result;
use crate::print::{Output, count, human_size, say};
use crate::reach::{Context, Reach, mismatch};

/// Lists what waits, or tries it again.
pub(super) async fn run(command: Option<cli::Uploads>, context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let mut reach = context.reach(false).await?;
    match command {
        None => {
            let facts = ask_all(&mut reach).await?;
            if out.json() {
                out.value(&facts)?;
            } else {
                show(&facts, out)?;
            }
        }
        Some(cli::Uploads::Retry) => {
            let Reply::Retried { uploads } = reach.ask(Request::RetryUploads).await? else {
                return Err(mismatch());
            };
            say(format_args!("{} tried again", count(uploads, "upload")));
        }
    }
    reach.close().await
}

async fn ask_all(reach: &mut Reach) -> Result<UploadsFacts> {
    let mut all: Option<UploadsFacts> = None;
    loop {
        let skip = all.as_ref().map_or(0, |it| it.uploads.len() as u64);
        let Reply::Uploads(page) = reach.ask(Request::Uploads { skip }).await? else {
            return Err(mismatch());
        };
        let more = page.more;
        let mut page = *page;
        if let Some(before) = &mut all {
            before.uploads.append(&mut page.uploads);
        } else {
            all = Some(page);
        }
        if let Some(mut all) = all.take_if(|_| !more) {
            all.more = false;
            return Ok(all);
        }
    }
}

fn show(facts: &UploadsFacts, out: &mut Output) -> Result<()> {
    if facts.uploads.is_empty() {
        let is_all = facts.moves.is_empty() && facts.originals.is_empty();
        let rest = if is_all {
            ""
        } else {
            "; this is still to be done at its source:"
        };
        out.line(format_args!("everything is uploaded{rest}"))?;
    }
    for one in &facts.moves {
        out.line(format_args!(
            "{:<9}  {:>10}  {} (its objects are still to follow it from {})",
            if one.state == "under-way" { "moving" } else { &one.state },
            format!("{}/{}", one.moved, one.moved + one.left),
            one.path.visible(),
            one.from.visible()
        ))?;
        for line in [&one.error, &one.remedy].into_iter().flatten() {
            out.line(format_args!("    {line}"))?;
        }
    }
    for one in &facts.originals {
        let what = if one.path.0.is_empty() {
            "a removed file (what may be there of it is still to be taken away".to_owned()
        } else {
            let path = one.path.visible();
            format!("{path} (it has arrived; its original is still to be taken away")
        };
        out.line(format_args!(
            "{:<9}  {:>10}  {what}: {} at {})",
            one.state,
            "",
            one.from.visible(),
            one.source
        ))?;
        for line in [&one.error, &one.remedy].into_iter().flatten() {
            out.line(format_args!("    {line}"))?;
        }
    }
    for upload in &facts.uploads {
        let from = upload.from.as_ref();
        let from = from.map_or_else(String::new, |from| format!(" (moved from {})", from.visible()));
        out.line(format_args!(
            "{:<9}  {:>10}  {}{from}",
            word(upload),
            human_size(upload.size),
            upload.path.visible()
        ))?;
        for line in [&upload.error, &upload.remedy].into_iter().flatten() {
            out.line(format_args!("    {line}"))?;
        }
    }
    for conflict in &facts.conflicts {
        out.line(format_args!(
            "conflict   {} was changed at its source too; the local version is kept as {}",
            conflict.path.visible(),
            conflict.kept_as.visible()
        ))?;
    }
    Ok(())
}

fn word(upload: &UploadFacts) -> String {
    match upload.sent {
        Some(sent) if upload.size > 0 => format!("{} %", (sent.min(upload.size) * 100) / upload.size),
        _ => upload.state.clone(),
    }
}
