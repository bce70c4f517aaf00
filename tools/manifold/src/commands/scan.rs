//! `scan`: look at a part of the library now, rather than when it is due.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::control::text::Text;
use crate::control::{Reply, Request, RescanFacts};
use crate::failure::{Failure, Result};
use crate::print::{Output, count, say, visible};
use crate::progress::Lines;
use crate::reach::{Context, mismatch};

/// Lists what stands at a path and all beneath it, and waits for the end unless told not to.
pub(super) async fn scan(path: &OsStr, background: bool, context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let mut reach = context.reach(false).await?;
    let answer = |reply| match reply {
        Reply::Rescan(facts) => Ok(facts),
        _ => Err(mismatch()),
    };
    let mut facts: RescanFacts = answer(
        reach
            .ask(Request::Rescan {
                path: Text::new(path.as_bytes()),
            })
            .await?,
    )?;
    let mut lines = Lines::default();
    if background && reach.is_daemon() {
        if out.json() {
            out.value(&facts)?;
        } else {
            say("scanning in the background");
        }
        return reach.close().await;
    }
    while !facts.ended {
        facts = answer(reach.ask(Request::RescanProgress { job: facts.job }).await?)?;
        lines.show(&[(0, format!("{}, {} to go", done(&facts), facts.waiting))]);
    }
    drop(lines);
    if out.json() {
        out.value(&facts)?;
    } else {
        say(done(&facts));
    }
    reach.close().await?;
    match facts.failure {
        None => Ok(()),
        Some(failure) => {
            let about = visible(path.as_bytes());
            let others = match facts.failed {
                1 => String::new(),
                failed => format!(" (and {} more)", failed - 1),
            };
            Err(
                Failure::new(format!("{about}: not all could be listed: {failure}{others}"))
                    .hint("what is known of it is shown as before"),
            )
        }
    }
}

/// Says what has been done: of a file there is nothing to list.
fn done(facts: &RescanFacts) -> String {
    match (facts.listed, facts.looked) {
        (0, looked) if looked > 0 => format!("{} looked at", count(looked, "file")),
        (listed, _) => format!("{} listed", count(listed, "directory")),
    }
}
