//! `check` and `settings`: whether what a library is made of is in order, looked at without changing it.

use std::io::ErrorKind;

use serde::Serialize;

use crate::connections::blocking;
use crate::failure::{Failure, Result};
use crate::library::Library;
use crate::library::lock::{Role, lock};
use crate::print::{Output, count, human_size, say};
use crate::reach::Context;
use crate::settings::Shown;
use crate::troubles::{AFTER_FULL_DISK, after_lost_log, is_full, of_full_disk, of_lost_log};
use manifold_catalog::{Catalog, OpenError};

#[derive(Serialize)]
struct Report {
    catalog: String,
    format: u64,
    entries: u64,
    directories: u64,
    departed: u64,
    staged: u64,
    sources: u64,
    bytes: u64,
    /// What its write-ahead log was found to lack.
    log_loss: Option<String>,
}

/// Examines the catalog and the settings.
pub(super) async fn check(context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let settings = context.settings();
    let library = context.library.clone();
    let report = blocking(move || {
        let held = lock(&library.lock_file(), Role::Command)?;
        let _held = held.map_err(|holder| match holder.role {
            Role::Daemon => holder
                .in_use(library.name())
                .hint("the catalog is examined while nobody changes it: `manifold unmount`, then `manifold check`, then `manifold mount`")
                .hint("whether a mounted library is well is told by `manifold status`"),
            Role::Command => holder.refusal(library.name()),
        })?;
        Catalog::check(&library.catalog_file()).map_err(|error| what_to_do(error, &library))
    })
    .await?;
    let report = Report {
        catalog: context.library.catalog_file().display().to_string(),
        format: report.format,
        entries: report.entries,
        directories: report.directories,
        departed: report.departed,
        staged: report.staged,
        sources: report.sources,
        bytes: report.bytes,
        log_loss: report.log_loss,
    };
    if out.json() {
        out.value(&report)?;
    } else {
        let but = match report.log_loss {
            None => "",
            Some(_) => ", but for what was saved last",
        };
        out.line(format_args!(
            "the catalog {} is in order{but} (format {})",
            report.catalog, report.format
        ))?;
        out.line(format_args!(
            "{}, {} of them directories, {} in {}",
            count(report.entries, "entry"),
            report.directories,
            human_size(report.bytes),
            count(report.sources, "source")
        ))?;
    }
    let _settings = settings?;
    if !out.json() {
        say(format_args!(
            "the settings {} are in order",
            context.library.settings_file().display()
        ));
    }
    match report.log_loss {
        None if is_full(context.library.state()) => {
            Err(Failure::new(of_full_disk(context.library.state())).hint(AFTER_FULL_DISK))
        }
        None => Ok(()),
        Some(loss) => Err(Failure::new(of_lost_log(&loss)).hint(after_lost_log(&context.library))),
    }
}

/// Says what can be done about a catalog that is not in order. Nobody is told to look at it with this command again.
fn what_to_do(error: OpenError, library: &Library) -> Failure {
    let OpenError::Damaged { file, .. } = &error else {
        return error.into();
    };
    let (file, staging) = (file.display(), library.staging_folder());
    let failure = Failure::new(error.to_string())
        .hint("it is left as it is, and so is all that lies at the sources; if you have a copy of it, put that in its place")
        .hint(format!(
            "to begin anew, move it away and add the sources again: mv '{file}' '{file}.damaged'"
        ));
    // A folder that cannot be looked at is named: better once too often.
    if std::fs::read_dir(&staging).map_or_else(
        |error| error.kind() != ErrorKind::NotFound,
        |mut it| it.next().is_some(),
    ) {
        return failure.hint(format!(
            "what was written through the mount and not uploaded lies in {}, and only this catalog knows where it belongs: copy that \
             folder first",
            staging.display()
        ));
    }
    failure
}

#[derive(Serialize)]
struct AllSettings {
    file: String,
    exists: bool,
    settings: Vec<Shown>,
}

/// Shows the settings in force.
pub(super) fn settings(context: &Context, out: &mut Output) -> Result<()> {
    context.library.create()?;
    let file = context.library.settings_file();
    let settings = context.settings()?.shown();
    if out.json() {
        return out.value(&AllSettings {
            file: file.display().to_string(),
            exists: file.exists(),
            settings,
        });
    }
    out.line(format_args!("# {}", file.display()))?;
    for shown in settings {
        let origin = if shown.given { "" } else { "  # default" };
        out.line(format_args!("{} = {}{origin}", shown.key, shown.value))?;
    }
    Ok(())
}
