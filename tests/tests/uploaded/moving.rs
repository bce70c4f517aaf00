//! A directory renamed in a bucket: `mv` is done at once, and the objects follow, though the daemon is killed, the line fails, others
//! write to the bucket and the source is scanned meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use manifold_tests::chance::Chance;
use manifold_tests::mounted::expect_success;
use manifold_tests::proxy::Fault;
use manifold_tests::servers::{Azurite, FakeGcs, SeaweedFs, Server};

use super::{DEADLINE, Site, names, pattern, run};

const FILES: u64 = 300;

type Tree = BTreeMap<String, Vec<u8>>;

fn tree_of(files: u64) -> Tree {
    let name = |number: u64| match number % 10 {
        9 => format!("sub/deep/{number:03}"),
        8 => format!("sub/{number:03}"),
        _ => format!("{number:03}"),
    };
    (0..files)
        .map(|number| (name(number), pattern(200 + number as usize * 37, number)))
        .collect()
}

/// Puts a tree into the bucket as another would, and has it seen.
fn put(site: &Site, directory: &str, tree: &Tree) {
    for (name, bytes) in tree {
        site.server.put(format!("{directory}/{name}").as_bytes(), bytes);
    }
    expect_success(site.library.command().args(["scan", "/s"]));
}

/// Reads all files beneath a folder.
fn read(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut next = vec![folder.to_owned()];
    while let Some(directory) = next.pop() {
        for item in fs::read_dir(&directory).expect("list") {
            let path = item.expect("an entry").path();
            if path.is_dir() {
                next.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("beneath it");
                let bytes = fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
                tree.insert(name.to_str().expect("UTF-8").to_owned(), bytes);
            }
        }
    }
    tree
}

fn is_same(found: &Tree, expected: &Tree, when: &str) {
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{when}");
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{when}: {name}");
    }
}

impl Site {
    fn until_moved(&self) {
        self.until("all objects have followed", |status| status["uploads"]["moves"] == 0);
    }

    /// Waits until some objects have followed, but not all, and says how many are left.
    fn until_some_moved(&self, some: u64) {
        self.until("some objects have followed", |status| {
            status["uploads"]["moved"].as_u64().unwrap_or(0) >= some
        });
        let status = self.status();
        assert_eq!(
            status["uploads"]["moves"], 1,
            "it was too fast to be interrupted: {status:#}"
        );
    }
}

fn a_directory_is_renamed(mut site: Site) {
    let tree = tree_of(FILES);
    put(&site, "old", &tree);
    is_same(&read(&site.at("old")), &tree, "before");
    run(&site.library.at().join("s"), "mv old new");
    assert_eq!(names(&site.at("")), ["big.bin", "new"]);
    is_same(&read(&site.at("new")), &tree, "at once");
    expect_success(site.library.command().args(["scan", "/s"]));
    assert_eq!(names(&site.at("")), ["big.bin", "new"], "after a scan");
    site.until_moved();
    assert_eq!(names(&site.at("")), ["big.bin", "new"]);
    is_same(&read(&site.at("new")), &tree, "in the end");
    let look = site.look();
    assert_eq!(names(&look.at()), ["big.bin", "new"]);
    is_same(&read(&look.at().join("new")), &tree, "at the source");
    site.library.unmount();
}

#[test]
fn a_directory_of_an_s3_store_is_renamed() {
    a_directory_is_renamed(Site::over(SeaweedFs::start(), &[]));
}

#[test]
fn a_directory_of_an_azure_container_is_renamed() {
    a_directory_is_renamed(Site::over(Azurite::start(), &[]));
}

#[test]
fn a_directory_of_a_google_bucket_is_renamed() {
    a_directory_is_renamed(Site::over(FakeGcs::start(), &[]));
}

#[test]
fn a_directory_is_renamed_whole_however_often_the_daemon_is_killed() {
    let mut site = Site::over(SeaweedFs::start(), &[("concurrency", "4")]);
    let tree = tree_of(FILES);
    put(&site, "old", &tree);
    is_same(&read(&site.at("old")), &tree, "before");
    run(&site.library.at().join("s"), "mv old new");
    for round in 0..4 {
        site.until_some_moved(1 + Chance::new(round).below(40) as u64);
        site.library.kill9();
        site.library.mount();
        assert_eq!(names(&site.at("")), ["big.bin", "new"], "round {round}");
        is_same(&read(&site.at("new")), &tree, &format!("round {round}"));
    }
    site.until_moved();
    is_same(&read(&site.at("new")), &tree, "in the end");
    let look = site.look();
    assert_eq!(names(&look.at()), ["big.bin", "new"]);
    is_same(&read(&look.at().join("new")), &tree, "at the source");
    site.library.unmount();
}

#[test]
fn an_outage_others_writers_and_a_scan_in_the_middle_lose_nothing() {
    let mut site = Site::over(SeaweedFs::start(), &[("concurrency", "4")]);
    let mut tree = tree_of(FILES);
    put(&site, "old", &tree);
    is_same(&read(&site.at("old")), &tree, "before");
    run(&site.library.at().join("s"), "mv old new");
    site.until_some_moved(5);
    site.server.line().fail(Fault::Refuse);
    assert_eq!(names(&site.at("")), ["big.bin", "new"], "without the source");
    assert_eq!(names(&site.at("new")).len(), 241);
    let told = expect_success(site.library.command().arg("uploads"));
    assert!(told.contains("/s/new"), "{told}");
    site.server.line().heal();
    // Behind the line, so as not to be kept out.
    let last = "sub/deep/299";
    site.server.put(b"old/by another", b"new there");
    site.server.put(format!("old/{last}").as_bytes(), b"changed by another");
    expect_success(site.library.command().args(["scan", "/s"]));
    assert_eq!(names(&site.at("")), ["big.bin", "new"], "after a scan");
    fs::write(site.at("new/written"), "on the way").expect("write");
    tree.insert("written".to_owned(), b"on the way".to_vec());
    fs::remove_file(site.at("new/sub/deep/289")).expect("remove");
    tree.remove("sub/deep/289");
    fs::rename(site.at("new/sub/298"), site.at("new/renamed")).expect("rename");
    let renamed = tree.remove("sub/298").expect("it was there");
    tree.insert("renamed".to_owned(), renamed);
    site.until_moved();
    site.until_uploaded();
    tree.remove(last);
    let look = site.look();
    let theirs = read(&look.at().join("old"));
    let expected = Tree::from([
        ("by another".to_owned(), b"new there".to_vec()),
        (last.to_owned(), b"changed by another".to_vec()),
    ]);
    is_same(&theirs, &expected, "what another has put there is his");
    is_same(&read(&look.at().join("new")), &tree, "at the source");
    let end = Instant::now() + DEADLINE;
    while names(&site.at("")) != ["big.bin", "new", "old"] {
        assert!(Instant::now() < end, "{:?}", names(&site.at("")));
        std::thread::sleep(Duration::from_millis(50));
    }
    is_same(&read(&site.at("old")), &expected, "it shows under the old name");
    is_same(&read(&site.at("new")), &tree, "in the mount");
    site.library.unmount();
}

#[test]
fn the_old_name_can_be_used_again_when_all_has_followed() {
    let mut site = Site::over(SeaweedFs::start(), &[]);
    let tree = tree_of(40);
    put(&site, "build", &tree);
    is_same(&read(&site.at("build")), &tree, "before");
    // Waits until nothing is in the way.
    run(
        &site.library.at().join("s"),
        "mv build build.old; mkdir build; echo anew > build/000; mv build.old/001 build/001; rm build.old/002",
    );
    let mut old = tree;
    let moved = old.remove("001").expect("it was there");
    old.remove("002");
    let new = Tree::from([("000".to_owned(), b"anew\n".to_vec()), ("001".to_owned(), moved)]);
    site.until_moved();
    site.until_uploaded();
    let look = site.look();
    is_same(&read(&look.at().join("build")), &new, "the new one");
    is_same(&read(&look.at().join("build.old")), &old, "the old one");
    let mut diff = Command::new("diff");
    expect_success(diff.arg("-r").arg(look.at()).arg(site.at("")));
    site.library.unmount();
}
