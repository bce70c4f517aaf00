//! What is recognised as a rename keeps its id; what is not certain gets a new one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use manifold_backends::Timestamp;
use tempfile::{TempDir, tempdir};

use crate::library::Library;
use crate::support::{Scripted, share, source};

/// Files that move together, and how often.
const CROWD: usize = 300;
const ROUNDS: usize = 20;

/// `/s/old/d/{e/f, x}` beside an empty `/s/new`, all of it listed.
async fn with_a_subtree() -> (TempDir, Arc<Scripted>, Library) {
    let (folder, source) = (tempdir().unwrap(), source());
    source
        .directory("old")
        .directory("old/d")
        .directory("old/d/e")
        .file("old/d/e/f", 1)
        .file("old/d/x", 2);
    source.directory("new");
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    assert_eq!(library.scan(&record).await, 0);
    (folder, source, library)
}

#[tokio::test(start_paused = true)]
async fn a_subtree_keeps_its_ids_when_the_old_parent_is_listed_first() {
    let (_folder, source, library) = with_a_subtree().await;
    let ids = ["/s/old/d", "/s/old/d/e", "/s/old/d/e/f", "/s/old/d/x"].map(|path| library.id(path));
    source.rename("old/d", "new/moved");
    library.list("/s/old").await;
    library.list("/s/new").await;
    assert_eq!(
        ids,
        ["/s/new/moved", "/s/new/moved/e", "/s/new/moved/e/f", "/s/new/moved/x"].map(|path| library.id(path))
    );
    assert!(library.find("/s/old/d").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_subtree_keeps_its_ids_when_the_new_parent_is_listed_first() {
    let (_folder, source, library) = with_a_subtree().await;
    let ids = ["/s/old/d", "/s/old/d/e", "/s/old/d/e/f", "/s/old/d/x"].map(|path| library.id(path));
    source.rename("old/d", "new/moved");
    library.list("/s/new").await;
    assert_eq!(
        ids,
        ["/s/new/moved", "/s/new/moved/e", "/s/new/moved/e/f", "/s/new/moved/x"].map(|path| library.id(path))
    );
    library.list("/s/old").await;
    assert!(library.find("/s/old/d").is_none());
    assert_eq!(
        ids[0],
        library.id("/s/new/moved"),
        "the listing of the old parent takes nothing back"
    );
}

#[tokio::test(start_paused = true)]
async fn a_rename_within_a_directory_costs_no_question() {
    let (_folder, source, library) = with_a_subtree().await;
    let (directory, file) = (library.id("/s/old/d/e"), library.id("/s/old/d/x"));
    source.rename("old/d/e", "old/d/e2").rename("old/d/x", "old/d/a");
    library.list("/s/old/d").await;
    assert_eq!((library.id("/s/old/d/e2"), library.id("/s/old/d/a")), (directory, file));
    assert_eq!(source.stats.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_took_the_place_of_another_keeps_the_number_of_that_place_when_it_moves_on() {
    for order in [["/s/old", "/s/new"], ["/s/new", "/s/old"]] {
        let (_folder, source, library) = with_a_subtree().await;
        source.file("old/a", 3).file("new/b", 4);
        library.list("/s/old").await;
        library.list("/s/new").await;
        let place = library.id("/s/new/b");
        source.remove("new/b").rename("old/a", "new/b");
        for directory in order {
            library.list(directory).await;
        }
        assert_eq!(library.id("/s/new/b"), place, "{order:?}");
        source.rename("new/b", "old/c");
        for directory in order {
            library.list(directory).await;
        }
        assert_eq!(library.id("/s/old/c"), place, "{order:?}");
        assert!(library.find("/s/new/b").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_share_another_birth_is_not_another_object() {
    for (source, kept) in [(share(), true), (source(), false)] {
        let folder = tempdir().unwrap();
        source
            .directory("old")
            .directory("old/d")
            .file("old/d/f", 1)
            .directory("new");
        let library = Library::open(folder.path());
        let record = library.add("/s", &source);
        assert_eq!(library.scan(&record).await, 0);
        let ids = ["/s/old/d", "/s/old/d/f"].map(|path| library.id(path));
        source.rename("old/d", "new/d").rename("new/d/f", "new/g");
        for path in ["new/d", "new/g"] {
            source.change(path, |metadata| metadata.created = Some(Timestamp(1 << 40)));
        }
        source.change("new/d", |metadata| metadata.modified = Some(Timestamp(1 << 41)));
        library.list("/s/new").await;
        assert_eq!(ids == ["/s/new/d", "/s/new/g"].map(|path| library.id(path)), kept);
        library.indexer.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_moved_out_of_a_directory_that_died_is_recognised() {
    let (_folder, source, library) = with_a_subtree().await;
    let file = library.id("/s/old/d/x");
    source.rename("old/d/x", "new/x").remove("old/d");
    library.list("/s/old").await;
    library.list("/s/new").await;
    assert_eq!(library.id("/s/new/x"), file);
}

#[tokio::test(start_paused = true)]
async fn a_scan_finds_renames_too() {
    let (_folder, source, library) = with_a_subtree().await;
    let ids = ["/s/old/d", "/s/old/d/e/f"].map(|path| library.id(path));
    source.rename("old/d", "new/moved").directory("newer");
    source.rename("new/moved/x", "newer/y");
    let record = library.catalog.sources().unwrap().remove(0);
    assert_eq!(library.scan(&record).await, 0);
    assert_eq!(library.tree(&record), source.truth());
    assert_eq!(ids, ["/s/new/moved", "/s/new/moved/e/f"].map(|path| library.id(path)));
}

/// The one place is listed while the other one is: what stood when it was looked for departs before it is looked at.
#[tokio::test(start_paused = true)]
async fn what_moves_while_both_places_are_listed_keeps_its_ids() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("a").directory("b");
    for number in 0..CROWD {
        source.file(&format!("a/{number:04}"), 1);
    }
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    assert_eq!(library.scan(&record).await, 0);
    let ids = |place: &str| {
        (0..CROWD)
            .map(|number| library.id(&format!("/s/{place}/{number:04}")))
            .collect::<Vec<_>>()
    };
    let before = ids("a");
    for round in 0..ROUNDS {
        let (from, to) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
        for number in 0..CROWD {
            source.rename(&format!("{from}/{number:04}"), &format!("{to}/{number:04}"));
        }
        let (old, new) = (format!("/s/{from}"), format!("/s/{to}"));
        tokio::join!(library.list(&new), library.list(&old));
        assert!(ids(to) == before, "round {round}: some have other ids");
    }
}

#[tokio::test(start_paused = true)]
async fn hard_links_are_entries_of_their_own() {
    let (_folder, source, library) = with_a_subtree().await;
    let first = library.id("/s/old/d/x");
    source.link("old/d/x", "new/link").link("old/d/x", "old/d/beside");
    library.list("/s/new").await;
    library.list("/s/old/d").await;
    let links = [library.id("/s/new/link"), library.id("/s/old/d/beside")];
    assert_eq!(library.id("/s/old/d/x"), first);
    assert!(!links.contains(&first) && links[0] != links[1]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_for_a_rename_on_an_error() {
    let (_folder, source, library) = with_a_subtree().await;
    let before = library.id("/s/old/d");
    source.rename("old/d", "new/moved").stat_fails(true);
    library.list("/s/new").await;
    assert_ne!(library.id("/s/new/moved"), before);
    assert_eq!(library.id("/s/old/d"), before, "the old place stays as it was known");
}

#[tokio::test(start_paused = true)]
async fn a_new_object_with_the_inode_of_a_dead_one_is_new() {
    let (_folder, source, library) = with_a_subtree().await;
    let dead = library.id("/s/old/d");
    let inode = source.change("old/d", |metadata| metadata.identity);
    source.remove("old/d");
    source
        .directory("new/born")
        .change("new/born", |metadata| metadata.identity = inode);
    library.list("/s/new").await;
    assert_ne!(library.id("/s/new/born"), dead);
    library.list("/s/new/born").await;
    assert!(library.names("/s/new/born").is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_directory_held_does_not_stay_in_one_that_has_its_inode() {
    let (_folder, source, library) = with_a_subtree().await;
    let inode = source.change("old/d", |metadata| metadata.identity);
    source.remove("old/d");
    library.list("/s/old").await;
    source
        .directory("new/born")
        .change("new/born", |metadata| metadata.identity = inode);
    library.list("/s/new").await;
    source.until_listings("new/born", 1).await;
    library.list("/s/new/born").await;
    assert!(library.names("/s/new/born").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_takes_the_place_of_another_brings_its_own_children() {
    let (_folder, source, library) = with_a_subtree().await;
    let moved = library.id("/s/old/d");
    source.directory("new/d").file("new/d/stale", 1);
    library.list("/s/new").await;
    library.list("/s/new/d").await;
    source.rename("old/d", "new/d");
    library.list("/s/new").await;
    assert_eq!(library.id("/s/new/d"), moved);
    assert_eq!(library.names("/s/new/d"), ["e", "x"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_and_a_directory_that_swap_names_do_not_swap_ids_with_the_wrong_kind() {
    let (_folder, source, library) = with_a_subtree().await;
    let (directory, file) = (library.id("/s/old/d/e"), library.id("/s/old/d/x"));
    source
        .rename("old/d/e", "old/d/t")
        .rename("old/d/x", "old/d/e")
        .rename("old/d/t", "old/d/x");
    library.list("/s/old/d").await;
    let record = library.catalog.sources().unwrap().remove(0);
    library.scan(&record).await;
    assert_eq!(library.tree(&record), source.truth());
    for (path, other) in [("/s/old/d/x", file), ("/s/old/d/e", directory)] {
        assert_ne!(library.id(path), other, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn equal_objects_of_a_store_do_not_take_each_others_place() {
    let (folder, store) = (tempdir().unwrap(), Scripted::new("scripted://store", true));
    store.directory("a").directory("b").directory("c");
    store
        .object("a/one", 10, 1)
        .object("a/empty", 0, 2)
        .object("a/moves", 10, 3);
    let library = Library::open(folder.path());
    let record = library.add("/s", &store);
    library.scan(&record).await;
    let ids = ["/s/a/one", "/s/a/empty", "/s/a/moves"].map(|path| library.id(path));
    // A copy, while the first is there; an empty object; and a real move.
    store.object("b/copy", 10, 1).object("b/nothing", 0, 2);
    store.rename("a/moves", "b/moved").remove("a/empty");
    for metadata in ["b/copy", "b/nothing"] {
        store.change(metadata, |metadata| metadata.created = None);
    }
    library.list("/s/b").await;
    library.list("/s/a").await;
    assert_eq!(library.id("/s/a/one"), ids[0]);
    assert_eq!(library.id("/s/b/moved"), ids[2]);
    assert_ne!(library.id("/s/b/copy"), ids[0]);
    assert_ne!(library.id("/s/b/nothing"), ids[1]);
    // Two that could be it: neither is.
    let gone = library.id("/s/a/one");
    store.object("c/first", 10, 1).object("c/second", 10, 1).remove("a/one");
    library.list("/s/a").await;
    library.list("/s/c").await;
    assert!(
        !["/s/c/first", "/s/c/second"]
            .map(|path| library.id(path))
            .contains(&gone)
    );
    assert_eq!(library.tree(&record), store.truth());
}
