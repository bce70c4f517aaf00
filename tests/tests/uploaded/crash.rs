//! The daemon is killed at points by chance, again and again; what `close` or `fsync` had acknowledged before is in the source in
//! the end.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use manifold_tests::chance::Chance;
use manifold_tests::servers::Samba;

use super::{Site, pattern};

const ROUNDS: u64 = 6;
const WRITERS: u64 = 3;

/// What each file may hold: what was acknowledged last, and what was being written since, if anything was.
type Manifest = Mutex<BTreeMap<String, (Option<Vec<u8>>, Option<Vec<u8>>)>>;

/// Writes until the mount is gone.
fn write_on(site: &Site, manifest: &Manifest, (round, writer): (u64, u64), over: &AtomicBool) {
    let mut chance = Chance::new(round * 100 + writer);
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        // Some names come again, in later rounds too.
        let name = format!("{writer}-{}", chance.below(8));
        let bytes = pattern(1 + chance.below(150_000), round * 10_000 + writer * 1_000 + number);
        manifest.lock().expect("no panic").entry(name.clone()).or_default().1 = Some(bytes.clone());
        let written = save(&site.at(&name), &bytes, chance.below(2) == 0);
        if written.is_err() {
            return;
        }
        manifest.lock().expect("no panic").insert(name, (Some(bytes), None));
    }
}

/// Writes a file anew. When it returns well, that was acknowledged: by `fsync`, or by `close`, of which `cp` tells.
fn save(path: &Path, bytes: &[u8], by_sync: bool) -> io::Result<()> {
    if by_sync {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        file.write_all(bytes)?;
        return file.sync_data();
    }
    let mut original = tempfile::NamedTempFile::new()?;
    original.write_all(bytes)?;
    let copied = Command::new("cp")
        .arg(original.path())
        .arg(path)
        .stderr(Stdio::null())
        .status()?;
    if copied.success() {
        return Ok(());
    }
    Err(io::Error::other("cp says that it failed"))
}

#[test]
fn what_was_acknowledged_is_in_the_source_however_often_the_daemon_is_killed() {
    let mut site = Site::over(Samba::start(), &[]);
    let manifest = Manifest::default();
    for round in 0..ROUNDS {
        let over = AtomicBool::new(false);
        let pid = i32::try_from(site.library.pid()).expect("a process id");
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (site, manifest, over) = (&site, &manifest, &over);
                scope.spawn(move || write_on(site, manifest, (round, writer), over));
            }
            let wait = 50 + Chance::new(round).below(900) as u64;
            std::thread::sleep(Duration::from_millis(wait));
            let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill the daemon");
            over.store(true, Ordering::Relaxed);
        });
        site.library.kill9();
        site.library.mount();
        for (name, (acknowledged, under_way)) in manifest.lock().expect("no panic").iter() {
            let found = fs::read(site.at(name));
            check(name, found, acknowledged.as_ref(), under_way.as_ref());
        }
    }
    site.until_uploaded();
    let look = site.look();
    for (name, (acknowledged, under_way)) in manifest.lock().expect("no panic").iter() {
        check(
            name,
            fs::read(look.at().join(name)),
            acknowledged.as_ref(),
            under_way.as_ref(),
        );
    }
    let status = site.status();
    assert_eq!(status["uploads"]["conflicts"], 0, "{status:#}");
    site.library.unmount();
}

/// A file that was being written anew when the daemon died is old, or new, or partly new, as far as nothing of that was
/// acknowledged; any other is what was acknowledged.
fn check(name: &str, found: io::Result<Vec<u8>>, acknowledged: Option<&Vec<u8>>, under_way: Option<&Vec<u8>>) {
    let found = match (found, acknowledged) {
        (Ok(found), _) => found,
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => return,
        (Err(error), _) => panic!("{name}: {error}"),
    };
    let is_old = acknowledged == Some(&found);
    let is_of_new = under_way.is_some_and(|new| {
        let old = acknowledged.map_or(&[][..], Vec::as_slice);
        (0..found.len()).all(|at| new.get(at) == Some(&found[at]) || old.get(at) == Some(&found[at]) || found[at] == 0)
    });
    assert!(
        is_old || is_of_new,
        "{name} is neither what was acknowledged nor what was being written"
    );
}

#[test]
fn a_file_changed_in_place_is_whole_after_the_daemon_was_killed() {
    let mut site = Site::over(Samba::start(), &[]);
    let mut bytes = pattern(super::BIG_BYTES, 1);
    let file = OpenOptions::new().write(true).open(site.at(super::BIG)).expect("open");
    for at in [10, 1_000_000, 2_900_000] {
        file.write_all_at(b"changed", at).expect("write");
        bytes[at as usize..at as usize + 7].copy_from_slice(b"changed");
    }
    file.sync_data().expect("sync");
    file.write_all_at(b"not synced", 500_000).expect("write");
    site.library.kill9();
    drop(file);
    site.library.mount();
    site.until_uploaded();
    assert!(fs::read(site.look().at().join(super::BIG)).expect("read") == bytes);
    site.library.unmount();
}
