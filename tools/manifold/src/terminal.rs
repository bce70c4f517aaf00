//! Asking on the terminal without showing what is typed.
//!
//! While somebody is asked, the terminal hands over each key as it comes, Ctrl-C among them: a signal would end this process
//! before it could put the terminal back. Always true: the terminal is as it was before when this returns, and before the
//! process ends by a key.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

const END_OF_LINE: [u8; 2] = *b"\r\n";
const BACKSPACE: [u8; 2] = [0x08, 0x7f];

/// Asks, and gives what was typed, without the end of the line; nothing of it is shown. At most `length_max` bytes are taken.
pub(crate) fn ask_unseen(question: &str, length_max: usize) -> io::Result<String> {
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    // From before the question on, so that nobody answers too early.
    let silence = Silence::begin(&terminal)?;
    (&terminal).write_all(question.as_bytes())?;
    let typed = read_line(&terminal, &silence.before, length_max);
    drop(silence);
    (&terminal).write_all(b"\n")?;
    match typed? {
        Typed::Line(bytes) => {
            String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
        }
        Typed::Signal(signal) => {
            kill_process(getpid(), signal)?;
            // Somebody has chosen to go on after that signal; there is no answer all the same.
            Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"))
        }
    }
}

/// What was typed.
enum Typed {
    Line(Vec<u8>),
    /// A key that stands for a signal.
    Signal(Signal),
}

fn read_line(mut keys: impl Read, before: &Termios, length_max: usize) -> io::Result<Typed> {
    let code = |index| before.special_codes[index];
    // Of its full length from the beginning, so that no copy of a part is left behind.
    let mut line = Vec::with_capacity(length_max);
    let mut key = [0];
    loop {
        match keys.read(&mut key) {
            Ok(0) => return Ok(Typed::Line(line)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match key[0] {
            byte if END_OF_LINE.contains(&byte) || byte == code(SpecialCodeIndex::VEOF) => {
                return Ok(Typed::Line(line));
            }
            byte if byte == code(SpecialCodeIndex::VINTR) => {
                line.fill(0);
                return Ok(Typed::Signal(Signal::INT));
            }
            byte if byte == code(SpecialCodeIndex::VQUIT) => {
                line.fill(0);
                return Ok(Typed::Signal(Signal::QUIT));
            }
            byte if byte == code(SpecialCodeIndex::VKILL) => line.clear(),
            byte if byte == code(SpecialCodeIndex::VERASE) || BACKSPACE.contains(&byte) => {
                // A character may be of several bytes.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            byte if line.len() < length_max => line.push(byte),
            _too_long => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is too long")),
        }
    }
}

/// The time during which the terminal shows nothing of what is typed.
struct Silence<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn begin(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Now, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(self.terminal, OptionalActions::Now, &self.before) {
            tracing::warn!(%error, "the terminal could not be put back; `stty sane` does that");
        }
    }
}
