//! `hash`: what files hold, one line for each as soon as it is known.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::control::text::Text;
use crate::control::{PAGE_MAX, Reply, Request};
use crate::failure::{Failure, Result};
use crate::print::{Output, count, say};
use crate::reach::{Context, Reach, mismatch};

/// Prints the content of each file; directories are gone through. A file that cannot be read does not keep the others from
/// being read.
pub(super) async fn hash(paths: &[OsString], context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let mut reach = context.reach(false).await?;
    let mut lines = out.list();
    let mut failed = 0;
    let mut next: Vec<_> = paths.iter().rev().map(|path| Text::new(path.as_bytes())).collect();
    while let Some(path) = next.pop() {
        let stat = Request::Stat {
            path: path.clone(),
            look: true,
        };
        let Reply::Entry(facts) = reach.ask(stat).await? else {
            return Err(mismatch());
        };
        match &*facts.kind {
            "file" => match reach.ask(Request::Hash { path }).await {
                Ok(Reply::Hashed(line)) => {
                    lines.item(&line, |out| out.raw_line(&format!("{}  ", line.content), &line.path.0))?;
                }
                Ok(_) => return Err(mismatch()),
                Err(failure) => {
                    say(failure.message());
                    failed += 1;
                }
            },
            "directory" => next.extend(children(&mut reach, &path).await?.into_iter().rev()),
            // Links, pipes and devices have no bytes of their own.
            _ => {}
        }
    }
    lines.end()?;
    reach.close().await?;
    if failed > 0 {
        return Err(Failure::new(format!("{} could not be hashed", count(failed, "file"))));
    }
    Ok(())
}

async fn children(reach: &mut Reach, directory: &Text) -> Result<Vec<Text>> {
    let mut children = Vec::new();
    let mut after = None;
    loop {
        let request = Request::List {
            path: directory.clone(),
            after,
            limit: PAGE_MAX,
        };
        let Reply::Listing(page) = reach.ask(request).await? else {
            return Err(mismatch());
        };
        let beneath = directory.0.strip_suffix(b"/").unwrap_or(&directory.0);
        children.extend(
            page.entries
                .iter()
                .map(|entry| Text([beneath, b"/", &entry.name.0].concat())),
        );
        match page.entries.last() {
            Some(last) if page.more => after = Some(last.name.clone()),
            _ => return Ok(children),
        }
    }
}
