//! Progress on a terminal, and what is said meanwhile without tearing it.
//!
//! Owns the lines at the bottom of the terminal. Always true: there are none where stderr is not a terminal.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

static LINES: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Does what writes to stderr, above the lines of progress.
pub(crate) fn above<T>(write: impl FnOnce() -> T) -> T {
    LINES.suspend(write)
}

/// Lines that tell how far something is, by number: a source that is being scanned, a pin that is being fetched.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    lines: BTreeMap<u32, ProgressBar>,
}

impl Lines {
    /// Shows exactly these lines: number and text. Nothing where stderr is not a terminal.
    pub(crate) fn show(&mut self, texts: &[(u32, String)]) {
        if !io::stderr().is_terminal() {
            return;
        }
        self.lines.retain(|id, line| {
            let stays = texts.iter().any(|(other, _)| other == id);
            if !stays {
                line.finish_and_clear();
            }
            stays
        });
        for (id, text) in texts {
            let line = self.lines.entry(*id).or_insert_with(|| {
                let line = LINES.add(ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                    line.set_style(style);
                }
                line
            });
            line.set_message(text.clone());
            line.tick();
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        for line in self.lines.values() {
            line.finish_and_clear();
        }
    }
}

/// Writes log lines to stderr, above the lines of progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        above(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}
