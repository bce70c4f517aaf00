//! `check` and `settings`: whether what a library is made of is in order, looked at without changing it.

use serde::Serialize;

use crate::connections::blocking;
use crate::failure::Result;
use crate::library::lock::{Role, lock};
use crate::print::{Output, count, human_size, say};
use crate::reach::Context;
use crate::settings::Shown;
use manifold_catalog::Catalog;

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
}

/// Examines the catalog and the settings.
pub(super) async fn check(context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let settings = context.settings();
    let library = context.library.clone();
    let report = blocking(move || {
        let held = lock(&library.lock_file(), Role::Command)?;
        let _held = held.map_err(|holder| {
            holder
                .refusal(library.name())
                .hint("the catalog is examined while no daemon runs")
        })?;
        Ok(Catalog::check(&library.catalog_file())?)
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
    };
    if out.json() {
        out.value(&report)?;
    } else {
        out.line(format_args!(
            "the catalog {} is in order (format {})",
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
    Ok(())
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
