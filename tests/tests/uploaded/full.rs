//! The disk with the library's state is full: what was acknowledged arrives, what is there is read, what cannot be kept is refused and
//! not lost, and that is told; with room again all goes on.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use manifold_tests::mounted::{Library, User, expect_success};
use manifold_tests::proxy::Fault;
use manifold_tests::servers::{Behind, Samba, SeaweedFs, Server};
use serde_json::Value;

use super::{DEADLINE, SETTINGS, Site, pattern};

const ENOSPC: i32 = 28;
/// The size of the disk.
const DISK_MIB: u64 = 160;
/// The most files that are written before the disk refuses one.
const FILES_MAX: usize = 400;
const MIB: usize = 1 << 20;

/// A disk of its own beneath a library's state: ext4 in a file, which needs root.
struct SmallDisk {
    at: PathBuf,
    _image: tempfile::NamedTempFile,
}

impl SmallDisk {
    fn mount(at: PathBuf) -> Self {
        let image = tempfile::NamedTempFile::new().expect("make a file");
        image.as_file().set_len(DISK_MIB << 20).expect("make it large");
        expect_success(
            Command::new("mkfs.ext4")
                .args(["-q", "-m", "0", "-F"])
                .arg(image.path()),
        );
        expect_success(Command::new("mount").args(["-o", "loop"]).arg(image.path()).arg(&at));
        Self { at, _image: image }
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Fills it, but for so many bytes.
    fn fill(&self, leave: u64) {
        let mut filler = File::options()
            .append(true)
            .create(true)
            .open(self.filler())
            .expect("make a file");
        let mut block = vec![7; 1 << 20];
        while !block.is_empty() {
            match filler.write(&block).and_then(|_| filler.sync_data()) {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(ENOSPC));
                    block.truncate(block.len() / 2);
                }
            }
        }
        let length = filler.metadata().expect("look at it").len();
        filler.set_len(length - leave).expect("shorten it");
        filler.sync_all().expect("sync");
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.at).status();
        assert!(std::thread::panicking() || unmounted.is_ok_and(|status| status.success()));
    }
}

/// What was acknowledged: names and bytes.
type Acknowledged = BTreeMap<String, Vec<u8>>;

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().expect("the kernel says why")
}

/// Writes a file to its end, as a program that looks at every answer does.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    for part in bytes.chunks(128 << 10) {
        file.write_all(part)?;
    }
    file.sync_all()
}

/// Writes files of all sizes until the disk refuses one, and takes note of those that were acknowledged.
fn write_until_refused(site: &Site, from: usize, acknowledged: &mut Acknowledged) {
    for number in from..from + FILES_MAX {
        let name = format!("written {number}");
        let bytes = pattern([2_000, 60_000, 400_000, 3 * MIB][number % 4], number as u64);
        match write(&site.at(&name), &bytes) {
            Ok(()) => drop(acknowledged.insert(name, bytes)),
            Err(error) => {
                assert_eq!(errno(&error), ENOSPC, "{name}: {error}");
                // What a program does then.
                match fs::remove_file(site.at(&name)) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => panic!("{name} cannot be removed: {error}\n{}", site.library.log()),
                }
                return;
            }
        }
    }
    panic!("the disk has room for {FILES_MAX} files");
}

fn must_hold(site: &Site, acknowledged: &Acknowledged) {
    for (name, bytes) in acknowledged {
        let read = fs::read(site.at(name)).unwrap_or_else(|error| panic!("{name}: {error}\n{}", site.library.log()));
        assert!(read == *bytes, "{name} holds other bytes");
    }
}

/// Makes sure that a full disk is told, with what to do.
fn must_be_told(status: &Value) {
    assert_eq!(status["verdict"], "attention", "{status:#}");
    let troubles = status["troubles"].as_array().expect("a list");
    let trouble = troubles.iter().find(|trouble| trouble["with"] == "catalog");
    let trouble = trouble.unwrap_or_else(|| panic!("nothing is told of the catalog: {status:#}"));
    let said = |field: &str| trouble[field].as_str().expect("a text").to_owned();
    assert!(
        said("message").contains("full") && said("hint").contains("room"),
        "{trouble}"
    );
}

/// A library whose state lies on a disk that is filled.
struct Trial {
    site: Site,
    disk: SmallDisk,
    /// How many bytes are left free.
    leave: u64,
    acknowledged: Acknowledged,
    /// What stood at the source from the beginning.
    there: Vec<u8>,
}

impl Trial {
    fn over(server: impl Server + 'static, leave: u64) -> Self {
        let server = Behind::proxy(server);
        let there = pattern(3 * MIB, 1);
        for name in ["cached", "uncached", "replaced"] {
            server.put(name.as_bytes(), &there);
        }
        for number in 0..8 {
            server.put(format!("old/{number}").as_bytes(), b"old");
        }
        let mut library = Library::new(User::Current);
        let disk = SmallDisk::mount(library.state());
        library.settings(&format!("{SETTINGS}\n[cache]\ndisk_bytes = \"64 MiB\"\n"));
        library.add_server_with(&server, "/s", &[("write", "back"), ("refresh", "1s")]);
        library.mount();
        let site = Site { server, library };
        site.until("all is listed", |status| {
            status["sources"][0]["scan"]["finished"].is_string()
        });
        assert!(fs::read(site.at("cached")).expect("read") == there);
        Self {
            site,
            disk,
            leave,
            acknowledged: Acknowledged::new(),
            there,
        }
    }

    fn fill(&self) {
        self.disk.fill(self.leave);
    }

    /// Writes files while there is room, which cannot be uploaded, and then fills the disk.
    fn stage_and_fill(&mut self, from: usize) -> Acknowledged {
        self.site.server.line().fail(Fault::Refuse);
        let mut staged = Acknowledged::new();
        for number in from..from + 40 {
            let length = if number % 8 == 0 { MIB } else { 9_000 };
            let (name, bytes) = (format!("before {number}"), pattern(length, number as u64));
            write(&self.site.at(&name), &bytes).expect("there is room");
            staged.insert(name, bytes);
        }
        self.fill();
        write_until_refused(&self.site, 10 * from, &mut staged);
        self.fill();
        must_be_told(&self.site.status());
        must_hold(&self.site, &staged);
        staged
    }

    fn what_was_acknowledged_arrives(&mut self) {
        let mut staged = self.stage_and_fill(100);
        self.site.server.line().heal();
        self.site.until_uploaded();
        self.site.until("what was staged is gone", |status| {
            status["uploads"]["staged_bytes"] == 0
        });
        self.acknowledged.append(&mut staged);
    }

    fn reading_goes_on(&self) {
        self.fill();
        for name in ["cached", "uncached"] {
            assert!(fs::read(self.site.at(name)).expect("read") == self.there, "{name}");
        }
        must_hold(&self.site, &self.acknowledged);
        // A file that another replaces is read as it is now.
        let newer = pattern(MIB, 2);
        self.site.server.put(b"replaced", &newer);
        let end = Instant::now() + DEADLINE;
        while fs::read(self.site.at("replaced")).map_or(true, |read| read != newer) {
            assert!(
                Instant::now() < end,
                "what another put is never read: {}",
                self.site.library.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Names are removed, as people do whose disk is full; others are made, or nothing of it is.
    fn names_are_changed_or_not(&mut self) {
        write_until_refused(&self.site, 5_000, &mut self.acknowledged);
        self.fill();
        let site = &self.site;
        fs::remove_file(site.at("old/0")).expect("a file is removed");
        let done = [
            ("folder", fs::create_dir(site.at("folder"))),
            ("old/renamed", fs::rename(site.at("old/1"), site.at("old/renamed"))),
        ];
        let done = done.map(|(name, done)| {
            let done = done.map_err(|error| assert_eq!(errno(&error), ENOSPC, "{name}: {error}"));
            (name, done.is_ok())
        });
        site.until_uploaded();
        let look = site.look();
        for (name, done) in done {
            assert_eq!(look.at().join(name).exists(), done, "{name} at the source");
            assert_eq!(site.at(name).exists(), done, "{name} in the mount");
        }
        assert!(!look.at().join("old/0").exists());
        for number in 2..8 {
            fs::remove_file(site.at(&format!("old/{number}"))).expect("a file is removed");
        }
    }

    fn a_kill_loses_nothing(&mut self) {
        self.disk.make_room();
        let mut staged = self.stage_and_fill(200);
        self.site.library.kill9();
        self.fill();
        self.site.library.mount();
        must_hold(&self.site, &staged);
        must_be_told(&self.site.status());
        write_until_refused(&self.site, 6_000, &mut staged);
        self.acknowledged.append(&mut staged);
    }

    fn with_room_all_goes_on(&mut self) {
        self.disk.make_room();
        write(&self.site.at("after"), &self.there).expect("there is room again");
        self.acknowledged.insert("after".to_owned(), self.there.clone());
        self.site.server.line().heal();
        self.site.until_uploaded();
        self.site.until("all is well", |status| {
            status["troubles"].as_array().is_some_and(Vec::is_empty)
        });
        must_hold(&self.site, &self.acknowledged);
        let look = self.site.look();
        for (name, bytes) in &self.acknowledged {
            assert!(
                fs::read(look.at().join(name)).expect("it has arrived") == *bytes,
                "{name}"
            );
        }
    }
}

fn a_full_disk_loses_nothing(server: impl Server + 'static, leave: u64) {
    let mut trial = Trial::over(server, leave);
    trial.what_was_acknowledged_arrives();
    trial.reading_goes_on();
    trial.names_are_changed_or_not();
    trial.a_kill_loses_nothing();
    trial.with_room_all_goes_on();
    let Trial { mut site, disk, .. } = trial;
    site.library.unmount();
    expect_success(site.library.command().arg("check"));
    // Before the folder that it is mounted at goes.
    drop(disk);
}

#[test]
fn a_full_disk_loses_nothing_that_goes_to_samba() {
    a_full_disk_loses_nothing(Samba::start(), 0);
}

#[test]
fn a_full_disk_loses_nothing_that_goes_to_an_s3_store() {
    a_full_disk_loses_nothing(SeaweedFs::start(), 6_000);
}
