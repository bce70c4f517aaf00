//! `manifold`: the command and the daemon that put the rooms of the workspace together.
//!
//! [`cli`] says what can be asked for, `commands` does it. A command asks the daemon over its socket ([`control`]) where one
//! runs, and else opens the library itself ([`open`]); both are answered by the same code ([`answer`]).

mod answer;
mod ask;
mod attach;
mod cli;
mod commands;
mod connections;
mod control;
mod daemon;
mod events;
mod failure;
mod guard;
mod helper;
mod inherited;
mod intake;
mod library;
mod logging;
mod metrics;
mod mounts;
mod open;
mod pins;
mod power;
mod print;
mod progress;
mod reach;
mod rescan;
mod settings;
mod status;
mod terminal;
mod time;
mod troubles;
mod uploads;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    keep_findings_quiet();
    let arguments: Vec<_> = std::env::args_os().collect();
    let outcome = match helper::translate(&arguments) {
        None => commands::run(cli::Cli::parse_from(arguments)),
        Some(Ok(helper::Call::Mount(translated))) => commands::run(cli::Cli::parse_from(translated)),
        Some(Ok(helper::Call::Nothing)) => Ok(()),
        Some(Err(failure)) => Err(failure),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print::say(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Has the panic hook say nothing where the catalog looks at a damaged file: what is wrong with it comes as an error.
fn keep_findings_quiet() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !manifold_catalog::examines_file() {
            usual(panic);
        }
    }));
}
