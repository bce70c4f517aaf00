//! What files hold: bytes that tell of themselves which version of which file they are, and where they belong.
//!
//! Always true: no two versions agree in a whole line, wherever it is, unless one was made of the other by appending or
//! cutting; so a read that mixes two shows at once.

use std::ops::Range;
use std::sync::Arc;

/// The bytes of one line: the mark of a version, and the line's own place.
const LINE: usize = 32;

/// One version of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// Tells it from all others of one run.
    pub(crate) mark: u32,
    /// All it holds.
    pub(crate) bytes: Vec<u8>,
}

impl Version {
    /// A version of so many bytes.
    pub(crate) fn new(mark: u32, size: usize) -> Arc<Self> {
        Self::continuing(mark, &[], size)
    }

    /// A version that begins as another one, or a part of it, and goes on with bytes of its own up to `size`.
    pub(crate) fn continuing(mark: u32, begin: &[u8], size: usize) -> Arc<Self> {
        let mut bytes = Vec::with_capacity(size + LINE);
        bytes.extend_from_slice(&begin[..begin.len().min(size)]);
        let mut at = bytes.len();
        while at < size {
            let number = at / LINE;
            let line = format!("version {mark:010} line {number:07}\n");
            bytes.extend_from_slice(&line.as_bytes()[at % LINE..]);
            at = bytes.len();
        }
        bytes.truncate(size);
        Arc::new(Self { mark, bytes })
    }

    /// Gives what a read of a range gives.
    pub(crate) fn range(&self, range: &Range<usize>) -> &[u8] {
        let end = range.end.min(self.bytes.len());
        &self.bytes[range.start.min(end)..end]
    }
}

/// Says in words what bytes are made of.
pub(crate) fn describe(bytes: &[u8]) -> String {
    let mut marks: Vec<String> = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        let mark = text.split(" line ").next().unwrap_or_default().to_owned();
        if line.len() == LINE - 1 && marks.last() != Some(&mark) {
            marks.push(mark);
        }
    }
    let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(2 * LINE)]).into_owned();
    format!("{} bytes of {marks:?}, beginning with {begin:?}", bytes.len())
}

#[test]
fn a_line_is_as_long_as_it_says() {
    let version = Version::new(7, 3 * LINE);
    assert!(version.bytes.chunks(LINE).all(|line| line.ends_with(b"\n")));
    let longer = Version::continuing(8, version.range(&(0..40)), 100);
    assert_eq!(longer.range(&(0..40)), version.range(&(0..40)));
    assert_ne!(longer.range(&(40..60)), version.range(&(40..60)));
}
