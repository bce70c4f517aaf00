#![allow(clippy::print_stdout, clippy::print_stderr)] // a program: its words are its output
//! The soak: a library over every kind of source, read and walked without a pause while the sources fall ill and get well, for
//! an hour or as long as asked. It ends with a verdict: memory, descriptors and threads of the daemon stay as they were, every
//! request is answered, no entry disappears, no byte is wrong.
//!
//! `cargo run -p manifold-tests --example soak -- [--minutes N] [--seed N] [--write FILE]`, as root, after
//! `cargo build -p manifold`. With `--release` both must be.

mod load;
mod report;
mod sample;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use load::Load;
use manifold_tests::estate::{Estate, Kind};
use report::Report;

/// The library's settings: short deadlines and a cache that is smaller than what is read, so that nothing ever settles.
const SETTINGS: &str = "[deadlines]\nconnect = \"1 s\"\ndata = \"3 s\"\nmetadata = \"3 s\"\n\
    [cache]\ndisk_bytes = \"64 MiB\"\nmemory_bytes = \"32 MiB\"\n";
/// How often the daemon is looked at.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

struct Options {
    length: Duration,
    seed: u64,
    write: Option<PathBuf>,
}

impl Options {
    fn read() -> Result<Self, String> {
        let mut options = Self {
            length: Duration::from_hours(1),
            seed: 1,
            write: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = || value.parse().map_err(|_| format!("{name} needs a number, not {value}"));
            match name.as_str() {
                "--minutes" => options.length = Duration::from_mins(number()?),
                "--seed" => options.seed = number()?,
                "--write" => options.write = Some(PathBuf::from(value)),
                _ => return Err(format!("{name} is unknown; there are --minutes, --seed and --write")),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let options = match Options::read() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let mut estate = Estate::start(&Kind::ALL, SETTINGS, "5s");
    let load = Load::new(&estate, options.seed);
    let begun = Instant::now();
    let mut samples = Vec::new();
    thread::scope(|scope| {
        load.start(scope, &estate);
        let mut told = begun;
        while begun.elapsed() < options.length && !load.has_failed() {
            thread::sleep(SAMPLE_EVERY);
            let sample = sample::take(&estate, begun.elapsed(), &load);
            if told.elapsed() > Duration::from_mins(1) {
                told = Instant::now();
                eprintln!("{sample}");
            }
            samples.push(sample);
        }
        load.stop();
    });
    estate.library.unmount();
    let report = Report::new(&options.length, options.seed, &samples, &load);
    println!("{report}");
    if let Some(file) = options.write
        && let Err(error) = std::fs::write(&file, report.page())
    {
        eprintln!("cannot write {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
