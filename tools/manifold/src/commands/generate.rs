//! Completions and man pages, from the definition of the command line, and the page of the metrics, from their table.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::{Failure, Result, io_failure};
use crate::metrics;
use crate::print::Output;

/// Prints completions.
pub(super) fn completions(shell: Shell, out: &mut Output) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "manifold", &mut script);
    let script =
        String::from_utf8(script).map_err(|error| Failure::new(format!("cannot make completions: {error}")))?;
    out.line(script.trim_end())
}

/// Prints the page that describes each metric: `docs/metrics.md`.
pub(super) fn metrics(out: &mut Output) -> Result<()> {
    out.line(metrics::page().trim_end())
}

/// Writes a page for the command and one for each subcommand.
pub(super) fn man_pages(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|error| io_failure("create", folder, &error))?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(|error| io_failure("write man pages into", folder, &error))
}
