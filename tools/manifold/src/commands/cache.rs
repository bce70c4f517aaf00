//! `cache`: what is kept of the sources' bytes.

use crate::cli;
use crate::control::{Reply, Request};
use crate::failure::Result;
use crate::print::{Output, count, human_size, say};
use crate::reach::{Context, mismatch};

use super::source::find;

/// Shows, clears or verifies.
pub(super) async fn run(command: cli::Cache, context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let mut reach = context.reach(true).await?;
    let request = match command {
        cli::Cache::Show => Request::CacheShow,
        cli::Cache::Verify => Request::CacheVerify,
        cli::Cache::Clear { source, pinned } => {
            let source = match source {
                Some(name) => Some(find(&mut reach, &name).await?.uri),
                None => None,
            };
            Request::CacheClear { source, pinned }
        }
    };
    let reply = reach.ask(request).await?;
    match &reply {
        Reply::Cache(facts) if out.json() => out.value(facts)?,
        Reply::Cache(facts) => {
            let of = |used, limit| format!("{} of {}", human_size(used), human_size(limit));
            out.line(format_args!(
                "on disk    {} in {}",
                of(facts.disk_bytes, facts.disk_limit_bytes),
                facts.directory.visible()
            ))?;
            if facts.pinned_bytes > 0 {
                let limit = match facts.pinned_limit_bytes {
                    0 => String::new(),
                    limit => format!(" of {}", human_size(limit)),
                };
                out.line(format_args!("pinned     {}{limit}", human_size(facts.pinned_bytes)))?;
            }
            out.line(format_args!(
                "in memory  {}, the half of cache.memory_bytes for blocks",
                of(facts.memory_bytes, facts.memory_limit_bytes)
            ))?;
            for source in &facts.sources {
                let name = source.uri.as_deref().unwrap_or("sources that were removed");
                out.line(format_args!(
                    "  {:>10}  {:>8} objects  {name}",
                    human_size(source.bytes),
                    source.objects
                ))?;
            }
        }
        Reply::Cleared { .. } if out.json() => out.value(&reply)?,
        Reply::Cleared { bytes } => say(format_args!("freed {} on disk", human_size(*bytes))),
        Reply::Verified(report) if out.json() => out.value(report)?,
        Reply::Verified(report) => {
            out.line(format_args!(
                "as they were written: {} of {} ({})",
                count(report.blocks, "block"),
                count(report.objects, "object"),
                human_size(report.bytes)
            ))?;
            if report.bad_blocks > 0 {
                say(format_args!(
                    "{} were damaged and dropped; they are fetched again when they are read",
                    report.bad_blocks
                ));
            }
        }
        _ => return Err(mismatch()),
    }
    reach.close().await
}
