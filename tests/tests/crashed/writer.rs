//! Writers that change files of their own until the mount is gone, and note what was acknowledged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use manifold_tests::chance::Chance;

use crate::manifest::{Change, Manifest};
use crate::site::ELSEWHERE;

/// How many names each writer has.
const NAMES: usize = 6;
/// Most files are no longer than this, in bytes.
const USUAL_MAX: usize = 20_000;
/// Some are up to this.
const LONG_MAX: usize = 400_000;
/// Only ends tests that hang.
const DEADLINE: Duration = Duration::from_mins(2);

/// What the writers of one life of the daemon share.
pub(crate) struct Work<'a> {
    manifest: &'a Manifest,
    folder: PathBuf,
    /// Whether another source is within the folder.
    has_elsewhere: bool,
    is_over: AtomicBool,
    done: Mutex<usize>,
    more_done: Condvar,
}

impl<'a> Work<'a> {
    pub(crate) fn new(manifest: &'a Manifest, folder: PathBuf, has_elsewhere: bool) -> Self {
        Self {
            manifest,
            folder,
            has_elsewhere,
            is_over: AtomicBool::new(false),
            done: Mutex::new(0),
            more_done: Condvar::new(),
        }
    }

    /// Waits until so many changes were acknowledged.
    pub(crate) fn until(&self, changes: usize) {
        let end = Instant::now() + DEADLINE;
        let mut done = self.done.lock().expect("no panic");
        while *done < changes {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the writers do not get on");
            done = self.more_done.wait_timeout(done, left).expect("no panic").0;
        }
    }

    /// Says that the mount is about to go: what fails from now on fails rightly.
    pub(crate) fn ends(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Makes changes until the mount is gone.
    pub(crate) fn go_on(&self, writer: u64, seed: u64) {
        let mut chance = Chance::new(seed.wrapping_mul(1_000) + writer);
        // Half of a writer's files stand in a folder of its own.
        let own = format!("folder-{writer}");
        match fs::create_dir(self.folder.join(&own)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return self.failed("mkdir", &own, &error),
            _ => {}
        }
        for number in 0.. {
            let name = |which: usize| match which {
                0..3 => format!("{writer}-{which}"),
                _ => format!("{own}/{which}"),
            };
            let (path, other) = (name(chance.below(NAMES)), name(chance.below(NAMES)));
            let made = self.change(&mut chance, &path, &other, &format!("{seed}-{number}.tmp"));
            if let Err(error) = made {
                return self.failed("a change", &path, &error);
            }
        }
    }

    fn failed(&self, what: &str, path: &str, error: &io::Error) {
        if !self.is_over.load(Ordering::SeqCst) {
            // Whoever waits for more is to hear of it.
            *self.done.lock().expect("no panic") = usize::MAX;
            self.more_done.notify_all();
            panic!("{what} of {path} failed while the daemon lived: {error}");
        }
    }

    fn acknowledge(&self, path: &str) {
        self.manifest.acknowledge(path);
        let mut done = self.done.lock().expect("no panic");
        *done = done.saturating_add(1);
        self.more_done.notify_all();
    }

    fn change(&self, chance: &mut Chance, path: &str, other: &str, temporary: &str) -> io::Result<()> {
        let bytes = some_bytes(chance);
        let by_sync = chance.below(2) == 0;
        let known = self.manifest.certain(path);
        // Where it is in doubt what is there, only what leaves nothing of it.
        match (chance.below(12), known) {
            (0 | 1, Some(file)) => {
                let at = chance.below(file.len() + 1_000);
                self.write(path, at, &bytes, by_sync)
            }
            (2 | 3, Some(file)) => self.write(path, file.len(), &bytes, by_sync),
            (4, Some(file)) => {
                let size = chance.below(file.len() * 2 + 1);
                self.manifest.begin(path, Change::Cut(size));
                let file = OpenOptions::new().write(true).open(self.folder.join(path))?;
                file.set_len(size as u64)?;
                end(file, by_sync)?;
                self.acknowledge(path);
                Ok(())
            }
            (5, Some(file)) if path != other => self.rename(path, other, file),
            (6, Some(_)) => {
                self.manifest.begin(path, Change::Remove);
                fs::remove_file(self.folder.join(path))?;
                self.acknowledge(path);
                Ok(())
            }
            (7, _) => {
                // As editors save.
                let temporary = format!("{path}.{temporary}");
                self.save(&temporary, &bytes, by_sync)?;
                self.rename(&temporary, path, bytes)
            }
            (9 | 10, _) if self.has_elsewhere => {
                // As downloads are put in their place, here from another source: at once, or when they were uploaded there.
                let aside = aside(path);
                if let Some(file) = self.manifest.certain(&aside) {
                    return self.rename(&aside, path, file);
                }
                self.save(&aside, &bytes, by_sync)?;
                if chance.below(2) == 0 {
                    return Ok(());
                }
                self.rename(&aside, path, bytes)
            }
            (11, Some(file)) if self.has_elsewhere => self.rename(path, &aside(path), file),
            _ => self.save(path, &bytes, by_sync),
        }
    }

    fn save(&self, path: &str, bytes: &[u8], by_sync: bool) -> io::Result<()> {
        self.manifest.begin(path, Change::Save(bytes.to_vec()));
        let mut file = File::create(self.folder.join(path))?;
        // As programs with small buffers do.
        for part in bytes.chunks(50_000) {
            file.write_all(part)?;
        }
        end(file, by_sync)?;
        self.acknowledge(path);
        Ok(())
    }

    fn write(&self, path: &str, at: usize, bytes: &[u8], by_sync: bool) -> io::Result<()> {
        self.manifest.begin(path, Change::Write(at, bytes.to_vec()));
        let file = OpenOptions::new().write(true).open(self.folder.join(path))?;
        file.write_all_at(bytes, at as u64)?;
        end(file, by_sync)?;
        self.acknowledge(path);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str, bytes: Vec<u8>) -> io::Result<()> {
        let former = self.manifest.history(from);
        self.manifest.begin(from, Change::Remove);
        let crosses = is_elsewhere(from) != is_elsewhere(to);
        if crosses {
            self.manifest.begin_crossing(from, to, &bytes);
        }
        self.manifest.begin(to, Change::Replace(bytes, former));
        match fs::rename(self.folder.join(from), self.folder.join(to)) {
            // After a rename that a crash has broken off, an upload has to settle first what is whose.
            // A file of a folder that was closed a moment ago may still be open for the kernel, and none goes to a folder.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices
                ) =>
            {
                self.manifest.end_crossing(from);
                self.manifest.withdraw(from);
                self.manifest.withdraw(to);
                return Ok(());
            }
            renamed => renamed?,
        }
        self.manifest.end_crossing(from);
        self.acknowledge(from);
        self.acknowledge(to);
        Ok(())
    }
}

/// Gives the place of a file at the other source.
fn aside(path: &str) -> String {
    format!("{ELSEWHERE}/{}", path.replace('/', "."))
}

fn is_elsewhere(path: &str) -> bool {
    path.starts_with(ELSEWHERE)
}

/// Has what was written acknowledged: by `fsync`, or by `close`.
fn end(file: File, by_sync: bool) -> io::Result<()> {
    if by_sync {
        return file.sync_data();
    }
    Ok(nix::unistd::close(file)?)
}

fn some_bytes(chance: &mut Chance) -> Vec<u8> {
    let longest = if chance.below(10) == 0 { LONG_MAX } else { USUAL_MAX };
    let mut bytes = vec![0; 1 + chance.below(longest)];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&chance.below(usize::MAX).to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
