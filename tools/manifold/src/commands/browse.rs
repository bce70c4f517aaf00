//! `ls` and `stat`: the tree as the mount shows it, with or without a mount.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::control::text::Text;
use crate::control::{EntryLine, PAGE_MAX, Reply, Request};
use crate::failure::Result;
use crate::print::{Output, human_size};
use crate::reach::{Context, mismatch};
use crate::time::short;

/// Lists a directory, a page at a time.
pub(super) async fn ls(path: &OsStr, long: bool, context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let mut reach = context.reach(false).await?;
    let mut lines = out.list();
    let mut after = None;
    loop {
        let request = Request::List {
            path: Text::new(path.as_bytes()),
            after,
            limit: PAGE_MAX,
        };
        let Reply::Listing(page) = reach.ask(request).await? else {
            return Err(mismatch());
        };
        for entry in &page.entries {
            lines.item(entry, |out| {
                let before = if long { long_columns(entry) } else { String::new() };
                out.raw_line(&before, &entry.name.0)
            })?;
        }
        match page.entries.last() {
            Some(last) if page.more => after = Some(last.name.clone()),
            _ => break,
        }
    }
    lines.end()?;
    reach.close().await
}

fn long_columns(entry: &EntryLine) -> String {
    let time = entry.modified.as_deref().map_or_else(|| "-".to_owned(), short);
    let size = if entry.kind == "directory" {
        "-".to_owned()
    } else {
        human_size(entry.size)
    };
    format!("{:<16}  {:>4}  {size:>10}  {time:<16}  ", entry.kind, entry.mode)
}

/// Shows all that is known of an entry.
pub(super) async fn stat(path: &OsStr, context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let mut reach = context.reach(false).await?;
    let Reply::Entry(facts) = reach
        .ask(Request::Stat {
            path: Text::new(path.as_bytes()),
            look: false,
        })
        .await?
    else {
        return Err(mismatch());
    };
    if out.json() {
        out.value(&facts)?;
        return reach.close().await;
    }
    let unknown = || "not known".to_owned();
    let mut rows = vec![
        ("path", facts.path.visible()),
        ("kind", facts.kind.clone()),
        ("size", format!("{} ({} bytes)", human_size(facts.size), facts.size)),
        ("modified", facts.modified.clone().unwrap_or_else(unknown)),
        ("changed", facts.changed.clone().unwrap_or_else(unknown)),
        ("created", facts.created.clone().unwrap_or_else(unknown)),
        ("mode", facts.mode.clone()),
        (
            "owner",
            facts
                .owner
                .map_or_else(|| "whoever mounts".into(), |(user, group)| format!("{user}:{group}")),
        ),
        ("links", facts.links.to_string()),
        ("id", facts.id.to_string()),
        (
            "source",
            facts.source.clone().unwrap_or_else(|| "the library itself".into()),
        ),
    ];
    if let Some(path) = &facts.object_path {
        rows.push(("there", format!("/{}", path.visible())));
    }
    if facts.kind == "directory" && facts.source.is_some() {
        rows.push(("listed", facts.listed.clone().unwrap_or_else(|| "never yet".into())));
    }
    if let Some(failure) = &facts.failure {
        rows.push(("failure", failure.clone()));
    }
    if facts.kind == "file" {
        rows.push(("content", facts.content.clone().unwrap_or_else(unknown)));
    }
    rows.extend(facts.replicas.iter().map(|path| ("replica", path.visible())));
    rows.extend(facts.hidden.iter().map(|path| ("hides", path.visible())));
    for (name, value) in rows {
        out.line(format_args!("{name:<9} {value}"))?;
    }
    reach.close().await
}
