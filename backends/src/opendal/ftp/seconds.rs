//! The seconds of files, where listings tell minutes: by `MDTM` (RFC 3659, 3), for one file after the other, many at once.
//!
//! The answer is remembered with what the listing told, so that a file is asked about when it is first listed, and once more when
//! the minute that its listing tells is over. A look at one file asks anew. Where the server does not know the command, a file has
//! the time that its listing tells.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind as IoErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ::opendal::EntryMode;
use ::opendal::raw::Timestamp;
use parking_lot::Mutex;
use suppaftp::types::Response;
use suppaftp::{FtpError, Status};

use super::lines::Told;
use super::{Failed, Line, within};

/// Files that are asked about at once.
const AT_ONCE: usize = 64;
/// Files of one directory that are asked about where only one can be at a time.
const ONE_BY_ONE_MAX: usize = 256;
/// What is remembered of at most so many files, at some 50 bytes each.
const REMEMBERED_MAX: usize = 200_000;
/// After how long the minute of a listing is over.
const MINUTE: Duration = Duration::from_secs(61);

/// What is known of the seconds of files.
#[derive(Default)]
pub(super) struct Seconds {
    hasher: RandomState,
    known: Mutex<HashMap<u64, Known>>,
    /// The server does not know the command.
    untold: AtomicBool,
}

/// What was answered for a file that a listing told so.
struct Known {
    size: u64,
    listed: Timestamp,
    since: Instant,
    modified: Option<Timestamp>,
    /// It was asked when that minute was over.
    settled: bool,
}

impl Seconds {
    /// Puts the seconds to what a listing of `directory` (with a slash at its end) tells of files. `of` is how many names the
    /// directory has; `anew`: what is remembered does not do.
    pub(super) async fn complete(
        &self,
        (line, one_by_one): (&mut Line, bool),
        patience: Duration,
        directory: &str,
        told: &mut [Told],
        of: usize,
        anew: bool,
    ) -> Result<(), Failed> {
        if one_by_one && of > ONE_BY_ONE_MAX {
            return Ok(());
        }
        let mut asked = Vec::new();
        for (index, file) in told.iter_mut().enumerate() {
            if file.mode != EntryMode::FILE || file.name.contains('\r') {
                continue;
            }
            let path = format!("{directory}{}", file.name);
            match self.settled(&path, file).filter(|_| !anew) {
                Some(modified) => file.modified = modified,
                None => asked.push((index, path)),
            }
        }
        for some in asked.chunks(AT_ONCE) {
            if self.untold.load(Ordering::Relaxed) {
                return Ok(());
            }
            let answers = if one_by_one {
                let mut answers = Vec::with_capacity(some.len());
                for one in some {
                    let command = format!("MDTM {}", one.1);
                    let answer = within(patience, async {
                        answer(line.custom_command(command, &[Status::File]).await)
                    });
                    answers.push(answer.await?);
                }
                answers
            } else {
                within(patience, ask(line, some)).await?
            };
            for ((index, path), answer) in some.iter().zip(answers) {
                match answer {
                    Answer::UnknownCommand => self.untold.store(true, Ordering::Relaxed),
                    Answer::Modified(modified) => {
                        let file = &mut told[*index];
                        self.note(path, file, modified);
                        file.modified = modified.unwrap_or(file.modified);
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives the time that is known for good of a file that is told so.
    fn settled(&self, path: &str, file: &Told) -> Option<Timestamp> {
        let known = self.known.lock();
        let one = known.get(&self.hasher.hash_one(path))?;
        let is_same = one.settled && (one.size, one.listed) == (file.size, file.modified);
        is_same.then(|| one.modified.unwrap_or(file.modified))
    }

    fn note(&self, path: &str, file: &Told, modified: Option<Timestamp>) {
        let (key, now) = (self.hasher.hash_one(path), Instant::now());
        let mut known = self.known.lock();
        let since = match known.get(&key) {
            Some(before) if (before.size, before.listed) == (file.size, file.modified) => before.since,
            _ => now,
        };
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        let one = Known {
            size: file.size,
            listed: file.modified,
            since,
            modified,
            settled: now.duration_since(since) >= MINUTE,
        };
        known.insert(key, one);
    }
}

/// What a server answers to `MDTM`.
enum Answer {
    /// The time, or that it does not tell that of this file.
    Modified(Option<Timestamp>),
    UnknownCommand,
}

/// Sends commands for all files, and reads the answers then.
async fn ask(line: &mut Line, files: &[(usize, String)]) -> Result<Vec<Answer>, FtpError> {
    let commands: Vec<_> = files.iter().map(|(_, path)| format!("MDTM {path}\r\n")).collect();
    let commands = commands.concat();
    let (stream, mut rest) = (line.get_ref(), commands.as_bytes());
    while !rest.is_empty() {
        stream.writable().await.map_err(FtpError::ConnectionError)?;
        match stream.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == IoErrorKind::WouldBlock => {}
            Err(error) => return Err(FtpError::ConnectionError(error)),
        }
    }
    let mut answers = Vec::with_capacity(files.len());
    for _ in files {
        answers.push(answer(line.read_response_in(&[Status::File]).await)?);
    }
    Ok(answers)
}

fn answer(response: Result<Response, FtpError>) -> Result<Answer, FtpError> {
    match response {
        Ok(response) => Ok(Answer::Modified(time_of(&response.body))),
        Err(FtpError::UnexpectedResponse(response)) => match response.status.code() {
            500 | 502 | 504 => Ok(Answer::UnknownCommand),
            501 | 550 | 553 => Ok(Answer::Modified(None)),
            _ => Err(FtpError::UnexpectedResponse(response)),
        },
        Err(error) => Err(error),
    }
}

/// Reads the time out of an answer: `213 YYYYMMDDhhmmss`, and perhaps a fraction.
fn time_of(answer: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(answer).ok()?.trim_end();
    let time = text.split_once(' ')?.1.trim_start();
    let (digits, fraction) = time.split_at_checked(14)?;
    let is_fraction = fraction.is_empty() || fraction.strip_prefix('.').is_some_and(is_number);
    if !is_number(digits) || !is_fraction {
        return None;
    }
    let part = |from: usize, to: usize| &digits[from..to];
    let (day, hour) = (
        (part(0, 4), part(4, 6), part(6, 8)),
        (part(8, 10), part(10, 12), part(12, 14)),
    );
    let written = format!(
        "{}-{}-{}T{}:{}:{}{fraction}Z",
        day.0, day.1, day.2, hour.0, hour.1, hour.2
    );
    written.parse().ok()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_answer_is_read_to_its_last_digit() {
        let at = |time: &str| Some(time.parse().expect("a time"));
        assert_eq!(time_of(b"213 20261105131707\r\n"), at("2026-11-05T13:17:07Z"));
        assert_eq!(time_of(b"213 19991231235959.250\r\n"), at("1999-12-31T23:59:59.25Z"));
        for bad in [
            &b"213"[..],
            b"213 ",
            b"213 2026110513170",
            b"213 20261305131707",
            b"213 20261105131707x",
            b"213 20261105131707.",
            b"213 \xff\xff",
        ] {
            assert_eq!(time_of(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn what_was_told_within_the_minute_is_asked_again() {
        let file = Told {
            name: "a".into(),
            mode: EntryMode::FILE,
            size: 1,
            modified: "2026-11-05T13:17:00Z".parse().expect("a time"),
            target: None,
        };
        let told: Option<Timestamp> = "2026-11-05T13:17:07Z".parse().ok();
        let seconds = Seconds::default();
        seconds.note("/a", &file, told);
        assert_eq!(seconds.settled("/a", &file), None);
        let long_ago = Instant::now().checked_sub(MINUTE).expect("the machine runs longer");
        for one in seconds.known.lock().values_mut() {
            one.since = long_ago;
        }
        seconds.note("/a", &file, told);
        assert_eq!(seconds.settled("/a", &file), told);
        let other = Told {
            size: 2,
            ..file.clone()
        };
        assert_eq!(seconds.settled("/a", &other), None);
        seconds.note("/a", &other, told);
        assert_eq!(seconds.settled("/a", &other), None, "it is another one");
    }
}
