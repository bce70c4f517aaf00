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

/// What each file may hold: what was acknowledged last, and all that was begun to be written since.
type Manifest = Mutex<BTreeMap<String, (Option<Vec<u8>>, Vec<Vec<u8>>)>>;

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
        manifest
            .lock()
            .expect("no panic")
            .entry(name.clone())
            .or_default()
            .1
            .push(bytes.clone());
        let written = save(&site.at(&name), &bytes, chance.below(2) == 0);
        if written.is_err() {
            return;
        }
        manifest
            .lock()
            .expect("no panic")
            .insert(name, (Some(bytes), Vec::new()));
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
            check(&site.at(""), name, acknowledged.as_ref(), under_way);
        }
    }
    site.until_uploaded();
    let look = site.look();
    for (name, (acknowledged, under_way)) in manifest.lock().expect("no panic").iter() {
        check(&look.at(), name, acknowledged.as_ref(), under_way);
    }
    site.library.unmount();
}

/// A file that was being written anew when the daemon died is as it was acknowledged, or has bytes of what was begun since, with
/// zeroes where nothing was written yet; any other is what was acknowledged. Where an upload arrived whose confirmation died
/// with the daemon, and the file was changed meanwhile, what counts may stand beside it as the local version of a conflict.
fn check(folder: &Path, name: &str, acknowledged: Option<&Vec<u8>>, under_way: &[Vec<u8>]) {
    let is_version = |other: &str| other == name || other.starts_with(&format!("{name} (conflict "));
    let names = fs::read_dir(folder).expect("list").map(|item| {
        let name = item.expect("an entry").file_name();
        name.into_string().expect("UTF-8")
    });
    let versions: Vec<_> = names
        .filter(|other| is_version(other))
        .map(|version| fs::read(folder.join(version)).expect("read"))
        .collect();
    let is_allowed = |found: &Vec<u8>| {
        let is_prefix = |new: &Vec<u8>| {
            found.len() <= new.len() && found.iter().zip(new).all(|(found, new)| found == new || *found == 0)
        };
        acknowledged == Some(found) || under_way.iter().any(is_prefix)
    };
    assert!(
        versions.iter().any(is_allowed) || (versions.is_empty() && acknowledged.is_none()),
        "{name} is neither what was acknowledged ({:?} bytes) nor what was being written ({:?}), but {:?}",
        acknowledged.map(Vec::len),
        under_way.iter().map(Vec::len).collect::<Vec<_>>(),
        versions.iter().map(Vec::len).collect::<Vec<_>>(),
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
