//! The media-server drill: a scanner that walks the library again and again, and deletes from its own records whatever it does
//! not see, as Jellyfin and Plex do. While sources fail and come back, and the daemon is restarted without them, it must
//! delete nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use manifold_tests::chance::Chance;
use manifold_tests::estate::{AILMENTS, Ailment, Estate, Kind, READS, Site};

/// Rounds of the drill, each with other faults.
const ROUNDS: usize = 40;
/// In so many rounds the daemon is restarted once.
const RESTART_EVERY: usize = 8;
const SETTINGS: &str = "[deadlines]\nconnect = \"2 s\"\ndata = \"2 s\"\nmetadata = \"2 s\"\n";

/// What a media server remembers of a file. One that has changed is a new one, with everything forgotten that somebody
/// added to the old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Film {
    size: u64,
    modified_ns: i128,
    inode: u64,
}

/// A media server's scanner and its records.
#[derive(Default)]
struct Scanner {
    films: BTreeMap<PathBuf, Film>,
    deleted: Vec<String>,
}

impl Scanner {
    /// Walks the library, and makes the records agree with what is seen.
    fn scan(&mut self, at: &Path) {
        let mut seen = BTreeMap::new();
        // Whatever cannot be looked at is not seen: no difference is made between an error and an absence.
        let _not_seen = walk(at, &mut seen);
        for (path, film) in &self.films {
            match seen.get(path) {
                Some(now) if now == film => {}
                Some(now) => self
                    .deleted
                    .push(format!("{}: {film:?} became {now:?}", path.display())),
                None => self.deleted.push(format!("{} is not seen", path.display())),
            }
        }
        self.films = seen;
    }
}

fn walk(folder: &Path, seen: &mut BTreeMap<PathBuf, Film>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = fs::metadata(&path)?;
        if metadata.is_dir() {
            walk(&path, seen)?;
        } else {
            let modified_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
            let film = Film {
                size: metadata.len(),
                modified_ns,
                inode: metadata.ino(),
            };
            seen.insert(path, film);
        }
    }
    Ok(())
}

#[test]
fn a_media_server_that_deletes_what_it_cannot_see_deletes_nothing() {
    let seed = std::env::var("MANIFOLD_TESTS_SEED").map_or(1, |seed| seed.parse().expect("a seed is a number"));
    println!("seed {seed}; another one by MANIFOLD_TESTS_SEED");
    let mut chance = Chance::new(seed);
    let mut estate = Estate::start(&Kind::ALL, SETTINGS, "1s");
    let at = estate.library.at();
    let mut scanner = Scanner::default();
    scanner.scan(&at);
    let known = scanner.films.len();
    assert!(known >= estate.sites.len() * 30, "{known} files");
    let mut ill: Vec<Option<&Ailment>> = estate.sites.iter().map(|_| None).collect();
    for round in 0..ROUNDS {
        for (site, ill) in estate.sites.iter().zip(&mut ill) {
            change(site, ill, &mut chance);
        }
        if round % RESTART_EVERY == RESTART_EVERY - 1 {
            if chance.below(2) == 0 {
                estate.library.kill9();
            } else {
                estate.library.unmount();
            }
            estate.library.mount();
        }
        scanner.scan(&at);
        // A player too: what it asks for makes the daemon notice that a source is away, or back.
        let site = &estate.sites[chance.below(estate.sites.len())];
        let _ended_somehow = site.read(chance.below(READS));
        scanner.scan(&at);
        assert!(
            scanner.deleted.is_empty(),
            "seed {seed}, round {round}, with {:?}: {:#?}",
            ill.iter().flatten().map(|it| it.name).collect::<Vec<_>>(),
            scanner.deleted
        );
    }
    assert_eq!(scanner.films.len(), known);
}

/// Lets a site fall ill, or get well, or stay as it is.
fn change(site: &Site, ill: &mut Option<&Ailment>, chance: &mut Chance) {
    if chance.below(3) > 0 {
        return;
    }
    if let Some(ailment) = ill.take() {
        ailment.end(site);
        return;
    }
    let befalling: Vec<_> = AILMENTS.iter().filter(|it| it.befalls(site.kind)).collect();
    let ailment = befalling[chance.below(befalling.len())];
    ailment.begin(site);
    *ill = Some(ailment);
}
