//! Times the catalog by hand: `cargo run --release -p manifold-catalog --example catalog_bench [entries]`.
//!
//! It loads a made-up tree breadth first, as a scan does, then looks names up, lists directories and lists them again
//! unchanged, and prints nanoseconds per entry, the size of the file and the memory held.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool run by hand")]

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use manifold_catalog::{
    Catalog, CompleteListing, Entry, EntryId, Kind, NewChild, NewSource, Options, SeenAttributes, SourceId,
};

const FILES: u64 = 27;
const FOLDERS: u64 = 3;

fn main() {
    let entries: u64 = std::env::args().nth(1).map_or(300_000, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("catalog.redb");
    let catalog = Catalog::open(&file, Options::default()).unwrap();
    let new = NewSource {
        name: "bench".into(),
        attach: b"/bench".into(),
        spec: String::new(),
        options: String::new(),
    };
    let source = catalog.add_source(new).unwrap();

    let made = made_up_tree(entries);
    let begin = Clock::start();
    let loaded = load(&catalog, source.id, source.root, made);
    report("load, with commits", begin, loaded);

    let all = everything(&catalog, source.root);
    let near: Vec<_> = all.iter().collect();
    let mut far = near.clone();
    shuffle(&mut far);
    for (what, entries) in [("lookup, directory by directory", &near), ("lookup, at random", &far)] {
        let begin = Clock::start();
        for entry in entries {
            assert!(catalog.lookup(entry.parent, &entry.name).unwrap().is_some());
        }
        report(what, begin, entries.len() as u64);
    }
    let begin = Clock::start();
    for entry in &far {
        assert!(catalog.entry(entry.id).unwrap().is_some());
    }
    report("entry by id, at random", begin, far.len() as u64);
    let begin = Clock::start();
    report("listing", begin, everything(&catalog, source.root).len() as u64);

    let made = made_up_tree(entries);
    let begin = Clock::start();
    let listed = list_again(&catalog, source.root, made);
    report("listing again, unchanged", begin, listed);
    let begin = Clock::start();
    for n in 0..1000 {
        catalog.note_failure(source.root, "no answer", n).unwrap();
    }
    report("one small change", begin, 1000);

    drop((near, far));
    drop(all);
    println!("memory held {:>24} MiB", resident() >> 20);
    let begin = Clock::start();
    drop(catalog);
    println!("close {:>30.1} ms", begin.wall().as_secs_f64() * 1e3);
    println!("file {:>31} bytes an entry", file.metadata().unwrap().len() / loaded);
    let begin = Clock::start();
    drop(Catalog::open(&file, Options::default()).unwrap());
    println!("open and close {:>21.1} ms", begin.wall().as_secs_f64() * 1e3);
    let begin = Clock::start();
    Catalog::check(&file).unwrap();
    report("check", begin, loaded);
}

/// Children of each directory, breadth first.
fn made_up_tree(entries: u64) -> Vec<Vec<NewChild>> {
    let mut serial = 0;
    let mut tree = Vec::new();
    while serial < entries {
        let mut children = Vec::new();
        for n in 0..FILES + FOLDERS {
            serial += 1;
            let kind = if n < FOLDERS { Kind::Directory } else { Kind::File };
            children.push(child(kind, serial));
        }
        tree.push(children);
    }
    tree
}

fn child(kind: Kind, serial: u64) -> NewChild {
    let mut version = vec![3; 33];
    version[1..9].copy_from_slice(&serial.to_le_bytes());
    let mut identity = [0; 16];
    identity[8..].copy_from_slice(&serial.to_be_bytes());
    let name = format!("IMG_{:08x}.jpg", serial.wrapping_mul(0x9e37_79b9) & 0xffff_ffff);
    let seen = SeenAttributes {
        kind,
        size: serial,
        modified_ns: 1_700_000_000_000_000_000 + serial as i64,
        changed_ns: 1_700_000_000_000_000_000 + serial as i64,
        created_ns: Some(1_600_000_000_000_000_000),
        mode: 0o644,
        owner: Some((1000, 1000)),
        links: 1,
        device: 0,
        version: version.into(),
        identity: Some(identity),
    };
    NewChild {
        name: name.into_bytes().into(),
        raw_name: None,
        seen,
        adopt: None,
    }
}

fn load(catalog: &Catalog, source: SourceId, root: EntryId, tree: Vec<Vec<NewChild>>) -> u64 {
    catalog.scan_begin(source, 1).unwrap();
    let mut loader = catalog.bulk_load(source).unwrap();
    let mut next = VecDeque::from([root]);
    let mut count = 0;
    for children in tree {
        let Some(directory) = next.pop_front() else { break };
        count += children.len() as u64;
        next.extend(
            loader
                .add(directory, catalog.ticket(), children)
                .unwrap()
                .into_iter()
                .map(|met| met.id),
        );
        loader.complete(directory, catalog.ticket(), 2).unwrap();
    }
    loader.finish().unwrap();
    catalog.scan_finish(source, 3).unwrap();
    count
}

fn list_again(catalog: &Catalog, root: EntryId, tree: Vec<Vec<NewChild>>) -> u64 {
    let mut next = VecDeque::from([root]);
    let mut listed = 0;
    for mut children in tree {
        let Some(directory) = next.pop_front() else { break };
        children.sort_by(|a, b| a.name.cmp(&b.name));
        for child in children.iter().filter(|child| child.seen.kind == Kind::Directory) {
            next.push_back(catalog.lookup(directory, &child.name).unwrap().unwrap().id);
        }
        listed += children.len() as u64;
        let listing = CompleteListing {
            children,
            listed_ns: 4,
            scan: 0,
            ticket: catalog.ticket(),
        };
        assert!(
            catalog
                .apply_listing(directory, listing, &|_| false)
                .unwrap()
                .is_empty()
        );
    }
    listed
}

fn everything(catalog: &Catalog, root: EntryId) -> Vec<Entry> {
    let mut next = VecDeque::from([root]);
    let mut all = Vec::new();
    while let Some(directory) = next.pop_front() {
        let children = catalog.children(directory, None, 1000).unwrap();
        next.extend(
            children
                .iter()
                .filter(|entry| entry.kind == Kind::Directory)
                .map(|entry| entry.id),
        );
        all.extend(children);
    }
    all
}

fn shuffle<T>(items: &mut [T]) {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    for last in (1..items.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(last, (state % (last as u64 + 1)) as usize);
    }
}

/// Time on the wall, and time of this thread on a CPU, which other work on the machine disturbs less.
#[derive(Clone, Copy)]
struct Clock {
    wall: Instant,
    cpu: Duration,
}

impl Clock {
    fn start() -> Self {
        Self {
            wall: Instant::now(),
            cpu: on_cpu(),
        }
    }

    fn wall(&self) -> Duration {
        self.wall.elapsed()
    }

    fn cpu(&self) -> Duration {
        on_cpu().saturating_sub(self.cpu)
    }
}

/// Time that the main thread has spent on a CPU, where Linux tells.
fn on_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    Duration::from_nanos(
        stat.split(' ')
            .next()
            .and_then(|ns| ns.parse().ok())
            .unwrap_or_default(),
    )
}

fn report(what: &str, begin: Clock, count: u64) {
    let each = |time: Duration| time.as_nanos() as u64 / count.max(1);
    println!(
        "{what:<32} {:>8} ns each, {:>6} of them on the CPU ({count})",
        each(begin.wall()),
        each(begin.cpu())
    );
}

fn resident() -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or_default() << 10
}
