//! `pin`, `unpin` and `pins`: what is kept whole on this machine.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::cli;
use crate::control::pins::{PinCounts, PinFacts, Pinned, PinsFacts, Policy};
use crate::control::text::Text;
use crate::control::{Reply, Request};
use crate::failure::{Failure, Result};
use crate::print::{Output, count, human_size, say};
use crate::progress::Lines;
use crate::reach::{Context, Reach, mismatch};

/// How many paths go into one request.
const PATHS_MAX: usize = 64;
/// How often progress is asked for.
const EVERY: Duration = Duration::from_millis(500);

/// Pins.
pub(super) async fn pin(command: cli::Pin, context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let mut reach = context.reach(false).await?;
    let policy = command.policy.map(|glob| Policy {
        id: 0,
        glob: Text::new(glob.as_bytes()),
        larger: command.larger,
        smaller: command.smaller,
        newer_s: command.newer.map(|age| age.as_secs()),
    });
    let mut pinned = Pinned {
        ids: Vec::new(),
        policy: None,
    };
    // Paths in parts, so that a request stays within its bound; the policy goes with the first.
    let paths: Vec<_> = command.paths.iter().map(|path| Text::new(path.as_bytes())).collect();
    let mut parts: Vec<_> = paths.chunks(PATHS_MAX).map(<[Text]>::to_vec).collect();
    if parts.is_empty() {
        parts.push(Vec::new());
    }
    let mut policy = policy;
    for paths in parts {
        let request = Request::Pin {
            paths,
            policy: policy.take(),
        };
        let Reply::Pinned(more) = reach.ask(request).await? else {
            return Err(mismatch());
        };
        pinned.ids.extend(more.ids);
        pinned.policy = pinned.policy.or(more.policy);
    }
    let waited = match &mut reach {
        Reach::Here(_) => {
            say("written down; the files are fetched once the library is mounted");
            Ok(())
        }
        Reach::Daemon(_) if command.wait => wait(&mut reach, &pinned).await,
        Reach::Daemon(_) => {
            say("the files are fetched in the background; `manifold pins` shows how far that is");
            Ok(())
        }
    };
    if out.json() {
        out.value(&pinned)?;
    }
    reach.close().await?;
    waited
}

/// Unpins.
pub(super) async fn unpin(paths: &[OsString], policies: &[u64], gone: bool, context: &Context) -> Result<()> {
    context.library.require()?;
    let mut reach = context.reach(false).await?;
    let paths: Vec<_> = paths.iter().map(|path| Text::new(path.as_bytes())).collect();
    let (mut policies, mut gone) = (policies.to_vec(), gone);
    for paths in paths.chunks(PATHS_MAX).map(<[Text]>::to_vec).chain([Vec::new()]) {
        let (policies, gone) = (std::mem::take(&mut policies), std::mem::take(&mut gone));
        reach.ask(Request::Unpin { paths, policies, gone }).await?;
    }
    reach.close().await
}

/// Shows what is pinned.
pub(super) async fn pins(context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let mut reach = context.reach(false).await?;
    let facts = ask_all(&mut reach).await?;
    if out.json() {
        out.value(&facts)?;
    } else {
        show(&facts, out)?;
    }
    reach.close().await
}

async fn ask_all(reach: &mut Reach) -> Result<PinsFacts> {
    let mut all: Option<PinsFacts> = None;
    loop {
        let skip = all.as_ref().map_or(0, |it| it.pins.len() as u64);
        let Reply::Pins(page) = reach.ask(Request::Pins { skip }).await? else {
            return Err(mismatch());
        };
        let more = page.more;
        match &mut all {
            Some(all) => all.pins.extend(page.pins),
            None => all = Some(*page),
        }
        if let Some(all) = all.as_mut().filter(|_| !more) {
            all.more = false;
            return Ok(all.clone());
        }
    }
}

fn show(facts: &PinsFacts, out: &mut Output) -> Result<()> {
    if facts.pins.is_empty() {
        return out.line("nothing is pinned");
    }
    for pin in &facts.pins {
        out.line(format_args!("{:<44}  {}", progress(pin.counts.as_ref()), name(pin)))?;
    }
    if let Some(total) = &facts.total
        && facts.pins.len() > 1
    {
        out.line(format_args!("{:<44}  together", progress(Some(total))))?;
    }
    for problem in &facts.problems {
        let about = problem
            .source
            .as_deref()
            .map_or(String::new(), |uri| format!("{uri}: "));
        out.line(format_args!("    {about}{}", problem.message))?;
    }
    Ok(())
}

fn name(pin: &PinFacts) -> String {
    match (&pin.path, &pin.policy) {
        (_, Some(policy)) => {
            let larger = policy.larger.map(|size| format!("larger than {}", human_size(size)));
            let smaller = policy.smaller.map(|size| format!("smaller than {}", human_size(size)));
            let newer = policy.newer_s.map(|age_s| {
                let age = crate::settings::show_duration(Duration::from_secs(age_s));
                format!("changed within {age}")
            });
            let glob = format!("policy {}: {}", policy.id, policy.glob.visible());
            let parts = [Some(glob), larger, smaller, newer].into_iter().flatten();
            parts.collect::<Vec<_>>().join(", ")
        }
        (Some(path), None) => path.visible(),
        (None, None) => "gone from the tree; `manifold unpin --gone` forgets it".to_owned(),
    }
}

/// Says in words how far it is.
pub(super) fn progress(counts: Option<&PinCounts>) -> String {
    let Some(counts) = counts else {
        return "not known without the daemon".to_owned();
    };
    let files = count(counts.files, "file");
    let unlisted = if counts.unlisted > 0 { ", being listed" } else { "" };
    if counts.missing_bytes == 0 {
        return format!("{} here, {files}{unlisted}", human_size(counts.bytes));
    }
    format!(
        "{} of {} here, {files}{unlisted}",
        human_size(counts.cached_bytes),
        human_size(counts.bytes)
    )
}

/// Waits until all that was pinned is here, and shows how far it is.
async fn wait(reach: &mut Reach, pinned: &Pinned) -> Result<()> {
    let ids: BTreeSet<_> = pinned.ids.iter().copied().collect();
    let mut lines = Lines::default();
    loop {
        let facts = ask_all(reach).await?;
        let ours = facts.pins.iter().filter(|pin| {
            pin.id.is_some_and(|id| ids.contains(&id))
                || pin.policy.as_ref().is_some_and(|it| Some(it.id) == pinned.policy)
        });
        let ours: Vec<_> = ours.collect();
        if facts.up_to_date && ours.iter().all(|pin| pin.counts.is_some_and(|it| it.is_whole())) {
            return Ok(());
        }
        if let Some(problem) = facts.problems.iter().find(|it| it.source.is_none()) {
            return Err(Failure::new(problem.message.clone()).hint("`manifold pins` tells what is here"));
        }
        let texts: Vec<_> = ours
            .iter()
            .zip(0..)
            .map(|(pin, line)| (line, format!("{}  {}", name(pin), progress(pin.counts.as_ref()))))
            .collect();
        lines.show(&texts);
        tokio::time::sleep(EVERY).await;
    }
}
