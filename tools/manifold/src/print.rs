//! The one place that writes: data to stdout, talk to stderr.
//!
//! Always true: what a source calls its files cannot steer the terminal; and a reader that goes away (`| head`) is no
//! error.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::progress;

/// What a command prints its data to.
pub(crate) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
    terminal: bool,
}

impl Output {
    /// Opens stdout.
    pub(crate) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        Self {
            terminal: stdout.is_terminal(),
            out: BufWriter::new(stdout.lock()),
            json,
        }
    }

    /// Tells whether JSON was asked for.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Prints one JSON value, on one line in a pipe and indented on a terminal.
    pub(crate) fn value(&mut self, value: &impl Serialize) -> Result<()> {
        let text = if self.terminal {
            serde_json::to_string_pretty(value)
        } else {
            serde_json::to_string(value)
        };
        let text = text.map_err(|error| not_json(&error))?;
        self.line(text)
    }

    /// Prints one of many JSON values, each on a line of its own.
    pub(crate) fn record(&mut self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).map_err(|error| not_json(&error))?;
        self.line(text)
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<()> {
        self.tolerate(|out| writeln!(out, "{line}"))
    }

    /// Prints bytes as they are, or with control characters and what is not UTF-8 escaped on a terminal.
    pub(crate) fn raw_line(&mut self, before: &str, bytes: &[u8]) -> Result<()> {
        if self.terminal {
            return self.line(format_args!("{before}{}", visible(bytes)));
        }
        self.tolerate(|out| {
            out.write_all(before.as_bytes())?;
            out.write_all(bytes)?;
            out.write_all(b"\n")
        })
    }

    /// Begins a list of any length: an array where JSON was asked for. That is printed when it is whole: one that breaks off
    /// in the middle would be no JSON, or, closed, pass for all that there is.
    pub(crate) fn list(&mut self) -> List<'_> {
        List {
            out: self,
            items: String::new(),
        }
    }

    /// Writes out what is buffered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.tolerate(Write::flush)
    }

    fn tolerate(&mut self, write: impl FnOnce(&mut BufWriter<StdoutLock<'static>>) -> io::Result<()>) -> Result<()> {
        match write(&mut self.out) {
            Ok(()) => Ok(()),
            // Whoever read has enough: the rest is for nobody.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => Err(Failure::new(format!("cannot write to stdout: {error}"))),
        }
    }
}

/// A list that is printed item by item, or as one array.
pub(crate) struct List<'a> {
    out: &'a mut Output,
    /// The items of the array, as JSON.
    items: String,
}

impl List<'_> {
    /// Prints one item: as JSON, or with `plain`.
    pub(crate) fn item(&mut self, item: &impl Serialize, plain: impl FnOnce(&mut Output) -> Result<()>) -> Result<()> {
        if !self.out.json {
            return plain(self.out);
        }
        let text = serde_json::to_string(item).map_err(|error| not_json(&error))?;
        if !self.items.is_empty() {
            self.items.push(',');
        }
        self.items.push('\n');
        self.items.push_str(&text);
        Ok(())
    }

    /// Ends the list.
    pub(crate) fn end(self) -> Result<()> {
        if self.out.json {
            self.out.line(format_args!("[{}\n]", self.items))
        } else {
            Ok(())
        }
    }
}

fn not_json(error: &serde_json::Error) -> Failure {
    Failure::new(format!("cannot write the answer as JSON: {error}"))
}

/// Says something to the person. Nothing is left to do where nobody hears it.
pub(crate) fn say(line: impl Display) {
    progress::above(|| {
        let _nobody_listens = writeln!(io::stderr(), "{line}");
    });
}

/// Shows a name or path: what is not UTF-8 and control characters are escaped.
pub(crate) fn visible(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        for byte in chunk.invalid() {
            shown.extend(std::ascii::escape_default(*byte).map(char::from));
        }
    }
    shown
}

/// Counts things: `1 entry`, `2 entries`, `3 sources`.
pub(crate) fn count(number: u64, word: &str) -> String {
    match (number, word.strip_suffix('y')) {
        (1, _) => format!("1 {word}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        _ => format!("{number} {word}s"),
    }
}

/// Shows bytes with three significant digits.
pub(crate) fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {}", UNITS.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(
            visible(b"a\x1b[31m\n\xff\xc3\xa4\xc2\x9b"),
            "a\\u{1b}[31m\\n\\xff\u{e4}\\u{9b}"
        );
    }

    #[test]
    fn sizes_have_three_digits() {
        let shown: Vec<_> = [0, 1023, 1024, 10 << 10, 1_048_064, 20 << 30, u64::MAX]
            .into_iter()
            .map(human_size)
            .collect();
        assert_eq!(
            shown,
            [
                "0 B", "1023 B", "1.00 KiB", "10.0 KiB", "1.00 MiB", "20.0 GiB", "16.0 EiB"
            ]
        );
    }
}
