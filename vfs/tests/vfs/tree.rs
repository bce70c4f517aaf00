//! The tree as an application sees it: names, directories, attributes, links, and what the kernel is told when they change.

mod local;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::library::Library;
use crate::scripted::{Mood, Scripted, truth};
use manifold_backends::local::LocalBackend;
use manifold_backends::{Backend, ErrorKind};
use manifold_catalog::LinkTarget;
use manifold_vfs::{
    Access, Answer, Backing, Cursor, DirectoryHandle, EntryId, Error, Event, EventStream, Kind, NameMatch, Received,
    Settings,
};
use tempfile::TempDir;

fn source() -> Arc<Scripted> {
    Scripted::new("test://one", 64 << 10, 1 << 20, 8)
}

fn library(source: &Arc<Scripted>) -> Library {
    Library::new(&[("s", Arc::clone(source) as Arc<dyn Backend>)], Settings::default())
}

/// Reads on from an offset and takes so many names; gives them with the offsets after them.
fn take(library: &Library, handle: DirectoryHandle, offset: u64, count: usize) -> Vec<(String, u64)> {
    let mut taken = Vec::new();
    let read = library.vfs.read_directory(handle, Cursor::Offset(offset), &mut |item| {
        if taken.len() == count {
            return ControlFlow::Break(());
        }
        taken.push((String::from_utf8(item.name.to_vec()).unwrap(), item.next_offset));
        ControlFlow::Continue(())
    });
    read.unwrap();
    taken
}

async fn open_directory(library: &Library, path: &str) -> DirectoryHandle {
    let id = library.find(path).await.unwrap();
    library.vfs.open_directory(id).wait().await.unwrap()
}

/// Waits for an event that is wanted; others may come before it.
fn until(events: &EventStream, wanted: &Event) {
    loop {
        match events.receive(Duration::from_secs(30)) {
            Received::Event(event) if event == *wanted || event == Event::Everything => return,
            Received::Event(_) => {}
            other => panic!("{wanted:?} did not come: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_not_there_only_where_the_directory_was_listed() {
    let source = source();
    source.put("a/b", 10, 1);
    let library = library(&source);
    let root = library.find("s").await.unwrap();
    assert!(
        !library.vfs.lookup(root, b"a", NameMatch::Exact).is_ready(),
        "never listed: it is listed first"
    );
    let directory = library.find("s/a").await.unwrap();
    source.set_mood(Mood::Fails(ErrorKind::Unreachable));
    let error = library
        .vfs
        .lookup(directory, b"b", NameMatch::Exact)
        .wait()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    let answer = library.vfs.lookup(root, b"none", NameMatch::Exact);
    assert!(answer.is_ready() && matches!(answer.wait().await, Err(Error::NotFound)));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_are_refused() {
    let library = library(&source());
    let lookup = |name: &[u8]| library.vfs.lookup(EntryId::ROOT, name, NameMatch::Exact).wait();
    assert!(matches!(lookup(&[b'x'; 256]).await, Err(Error::NameTooLong)));
    assert!(matches!(lookup(b"").await, Err(Error::InvalidArgument)));
    assert!(matches!(lookup(b"a/b").await, Err(Error::InvalidArgument)));
    assert!(matches!(lookup(&[b'x'; 255]).await, Err(Error::NotFound)));
}

#[tokio::test(flavor = "multi_thread")]
async fn folded_names_give_the_stored_one() {
    let source = source();
    source.put("Photo.JPG", 10, 1);
    let library = library(&source);
    let root = library.find("s").await.unwrap();
    let (name, attributes) = library
        .vfs
        .lookup(root, b"photo.jpg", NameMatch::Fold)
        .wait()
        .await
        .unwrap();
    assert_eq!(
        (&*name, attributes.size, attributes.kind),
        (&b"Photo.JPG"[..], 10, Kind::File)
    );
    assert!(
        library
            .vfs
            .lookup(root, b"photo.jpg", NameMatch::Exact)
            .wait()
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_away_never_looks_empty() {
    let source = source();
    source.put("seen/a", 10, 1);
    source.put("unseen/a", 10, 1);
    let library = library(&source);
    open_directory(&library, "s/seen").await;
    source.set_mood(Mood::Fails(ErrorKind::Unreachable));
    let known = open_directory(&library, "s/seen").await;
    assert_eq!(take(&library, known, 0, 10).len(), 1);
    let unseen = library.find("s/unseen").await.unwrap();
    let error = library.vfs.open_directory(unseen).wait().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_never_ends_is_given_up_at_the_deadline() {
    let source = source();
    source.put("d/a", 10, 1);
    let library = library(&source);
    let directory = library.find("s/d").await.unwrap();
    source.set_mood(Mood::Holds);
    let begun = tokio::time::Instant::now();
    let error = library.vfs.open_directory(directory).wait().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut(_)), "{error}");
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_listing_is_answered_at_once_and_made_anew_behind() {
    let source = source();
    source.put("d/old", 10, 1);
    let library = library(&source);
    let directory = library.find("s/d").await.unwrap();
    open_directory(&library, "s/d").await;
    source.put("d/new", 10, 1);
    let events = library.vfs.subscribe();
    library.now_ns.fetch_add(3_600_000_000_000, Ordering::SeqCst);
    assert!(library.vfs.open_directory(directory).is_ready());
    until(
        &events,
        &Event::Entry {
            parent: directory,
            name: b"new"[..].into(),
        },
    );
    let handle = open_directory(&library, "s/d").await;
    assert_eq!(take(&library, handle, 0, 10).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_directory_is_read_in_small_replies_and_again_from_any_place() {
    let source = source();
    (0..5_000).for_each(|i| source.put(&format!("d/f{i:05}"), i, 1));
    let library = library(&source);
    let handle = open_directory(&library, "s/d").await;
    let mut names = Vec::new();
    let mut offset = 0;
    loop {
        let taken = take(&library, handle, offset, 23);
        let Some(last) = taken.last() else { break };
        offset = last.1;
        names.extend(taken);
    }
    assert_eq!(names.len(), 5_000);
    for (index, (name, next)) in names.iter().enumerate() {
        assert_eq!(
            (name.as_str(), *next),
            (format!("f{index:05}").as_str(), index as u64 + 1)
        );
    }
    for from in [0, 1, 999, 1_000, 1_001, 2_500, 4_990, 4_999] {
        assert_eq!(take(&library, handle, from, 1)[0], names[from as usize], "from {from}");
    }
    assert!(take(&library, handle, 5_000, 1).is_empty());
    assert!(take(&library, handle, 9_999, 1).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_stay_are_given_once_while_others_come_and_go() {
    let source = source();
    (0..1_000).for_each(|i| source.put(&format!("d/f{i:04}"), i, 1));
    let library = library(&source);
    let handle = open_directory(&library, "s/d").await;
    let mut given = Vec::new();
    let mut offset = 0;
    for round in 0.. {
        let taken = take(&library, handle, offset, 40);
        // As a reader does whose own buffer is smaller than the reply.
        let kept = &taken[..taken.len().min(31)];
        let Some(last) = kept.last() else { break };
        offset = last.1;
        given.extend(kept.iter().map(|it| it.0.clone()));
        // The last that was given goes, and others before and after it.
        source.remove(&format!("d/{}", last.0));
        source.remove(&format!("d/f{:04}", round * 2));
        source.remove(&format!("d/f{:04}", 999 - round));
        source.put(&format!("d/a{round:04}"), 1, 1);
        library.relist("s/d").await;
    }
    let unique: BTreeSet<_> = given.iter().collect();
    assert_eq!(unique.len(), given.len(), "something was given twice");
    let handle = open_directory(&library, "s/d").await;
    for (name, _) in take(&library, handle, 0, 2_000)
        .iter()
        .filter(|it| it.0.starts_with('f'))
    {
        assert!(unique.contains(name), "{name} stayed and was never given");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_goes_on_after_a_name() {
    let source = source();
    for name in ["a", "b", "c"] {
        source.put(&format!("d/{name}"), 1, 1);
    }
    let library = library(&source);
    let handle = open_directory(&library, "s/d").await;
    let mut names = Vec::new();
    let read = library
        .vfs
        .read_directory(handle, Cursor::AfterName(b"a"), &mut |item| {
            names.push(item.name.to_vec());
            ControlFlow::Continue(())
        });
    read.unwrap();
    assert_eq!(names, [b"b", b"c"]);
    library.vfs.release_directory(handle);
    let read = library
        .vfs
        .read_directory(handle, Cursor::Offset(0), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(read, Err(Error::BadHandle)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_replaced_while_open_keeps_its_attributes_until_it_is_released() {
    let source = source();
    source.put("f", 100, 1);
    let library = library(&source);
    let events = library.vfs.subscribe();
    let (root, old) = (library.find("s").await.unwrap(), library.find("s/f").await.unwrap());
    let file = library.open("s/f").await;
    source.put("f", 200, 2);
    library.relist("s").await;
    until(
        &events,
        &Event::Entry {
            parent: root,
            name: b"f"[..].into(),
        },
    );
    let new = library.find("s/f").await.unwrap();
    assert_ne!(old, new, "one inode number never stands for two versions");
    let of = async |id, handle| library.vfs.attributes(id, handle).wait().await;
    assert_eq!(of(old, Some(file.handle)).await.unwrap().size, 100);
    assert_eq!(of(new, None).await.unwrap().size, 200);
    library.vfs.release(file.handle);
    assert!(matches!(of(old, None).await, Err(Error::Stale)));
    assert!(matches!(of(old, Some(file.handle)).await, Err(Error::BadHandle)));
    assert!(matches!(
        library.vfs.open(old, Access::Read).wait().await,
        Err(Error::Stale)
    ));
    assert!(matches!(library.read(&file, 0, 1).await, Err(Error::BadHandle)));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_kept_for_the_same_version_only() {
    let source = source();
    source.put("f", 100, 1);
    let library = library(&source);
    let events = library.vfs.subscribe();
    let id = library.find("s/f").await.unwrap();
    let first = library.open("s/f").await;
    assert!(!first.keep_cache, "nobody knows what the kernel has");
    library.vfs.release(first.handle);
    let second = library.open("s/f").await;
    assert!(second.keep_cache);
    library.vfs.release(second.handle);
    source.put("f", 100, 2);
    library.relist("s").await;
    until(&events, &Event::Pages { id });
    let third = library.open("s/f").await;
    assert_eq!(library.find("s/f").await.unwrap(), id);
    assert!(!third.keep_cache);
    assert_eq!(library.read(&third, 0, 100).await.unwrap(), truth(2, 0..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_asks_no_source_and_only_files_are_opened() {
    let source = source();
    source.put("d/f", 100, 1);
    source.put_link("link", "d/f");
    let library = library(&source);
    let open = async |path: &str, access| {
        let id = library.find(path).await.unwrap();
        library.vfs.open(id, access).wait().await
    };
    open("s/d/f", Access::Read).await.unwrap();
    source.set_mood(Mood::Holds);
    open("s/d/f", Access::Read).await.unwrap();
    assert!(source.reads().is_empty());
    assert!(matches!(open("s/d", Access::Read).await, Err(Error::IsADirectory)));
    assert!(matches!(
        open("s/link", Access::Read).await,
        Err(Error::InvalidArgument)
    ));
    assert!(matches!(open("s/d/f", Access::Write).await, Err(Error::ReadOnly)));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_link_points_needs_no_source_once_its_directory_is_listed() {
    let source = source();
    source.put_link("link", "some/where");
    let library = library(&source);
    let id = library.find("s/link").await.unwrap();
    source.set_mood(Mood::Holds);
    let answer = library.vfs.read_link(id);
    assert!(answer.is_ready());
    assert_eq!(answer.wait().await.unwrap(), b"some/where");
    // What a listing has not brought is asked for, and known then.
    let version = library.catalog.details(id).unwrap().unwrap().version;
    let forgotten = LinkTarget {
        id,
        version,
        target: Box::default(),
    };
    library.catalog.set_link_targets(&[forgotten]).unwrap();
    assert!(!library.vfs.read_link(id).is_ready());
    // A source that is known to be away is not waited for.
    source.set_mood(Mood::Fails(ErrorKind::Unreachable));
    let of = library.catalog.entry(id).unwrap().unwrap().source;
    while !library.indexer.is_away(of) {
        let told = library.vfs.read_link(id).wait().await;
        assert!(matches!(told, Err(Error::Unreachable(_))), "{told:?}");
    }
    source.set_mood(Mood::Holds);
    let told = library.vfs.read_link(id).wait().await;
    assert!(matches!(told, Err(Error::Unreachable(_))), "{told:?}");
    source.set_mood(Mood::Answers);
    while library.indexer.is_away(of) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(library.vfs.read_link(id).wait().await.unwrap(), b"some/where");
    assert!(library.vfs.read_link(id).is_ready());
    assert!(matches!(
        library.vfs.read_link(EntryId::ROOT).wait().await,
        Err(Error::InvalidArgument)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_the_file_system_is_what_the_catalog_knows() {
    let source = source();
    source.put("a", 1_000, 1);
    source.put("b", 234, 1);
    let library = library(&source);
    open_directory(&library, "s").await;
    source.set_mood(Mood::Holds);
    assert_eq!(library.vfs.statfs(EntryId::ROOT).unwrap().bytes, 1_234);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_a_source_that_nothing_is_written_to_is_its_own() {
    let (one, two) = (source(), Scripted::new("test://two", 64 << 10, 1 << 20, 8));
    one.put("a", 1_000, 1);
    one.put("b", 234, 1);
    two.put("c", 5, 1);
    let sources = [("s", one as Arc<dyn Backend>), ("t", two as Arc<dyn Backend>)];
    let library = Library::new(&sources, Settings::default());
    open_directory(&library, "s").await;
    open_directory(&library, "t").await;
    for (path, bytes, entries) in [("s", 1_234, 3), ("s/a", 1_234, 3), ("t", 5, 2), ("t/c", 5, 2)] {
        let totals = library.vfs.statfs(library.find(path).await.unwrap()).unwrap();
        assert_eq!(
            (totals.bytes, totals.entries, totals.room),
            (bytes, entries, None),
            "{path}"
        );
    }
    let all = library.vfs.statfs(EntryId::ROOT).unwrap();
    assert_eq!((all.bytes, all.entries, all.room), (1_239, 6, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_a_moment_ago_shows_once_its_source_was_looked_at() {
    let source = source();
    source.put("d/known", 1, 1);
    let library = library(&source);
    let directory = library.find("s/d").await.unwrap();
    open_directory(&library, "s/d").await;
    source.put("d/new", 2, 1);
    assert!(matches!(library.find("s/d/new").await, Err(Error::NotFound)));
    let way = [EntryId::ROOT, library.find("s").await.unwrap(), directory];
    library.vfs.look_in(&way).await.unwrap();
    library.find("s/d/new").await.unwrap();
    source.set_mood(Mood::Fails(ErrorKind::Unreachable));
    let (of, why) = library.vfs.look_in(&way).await.unwrap_err();
    assert_eq!(of, library.source());
    assert!(matches!(why, Error::Unreachable(_)), "{why:?}");
    // Nobody is asked where the library's own directories are.
    library.vfs.look_in(&way[..1]).await.unwrap();
}

/// Between the question for the name and the question whether its directory was listed, the scan may list it.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_name_is_never_denied_while_its_directory_is_listed_for_the_first_time() {
    let source = source();
    for directory in 0..100 {
        source.put(&format!("d{directory}/f"), 1, 1);
    }
    let library = library(&source);
    library.relist("s").await;
    let scan = library.indexer.scan(library.source());
    for directory in 0..100 {
        let id = library.find(&format!("s/d{directory}")).await.unwrap();
        // Not waited for, so that it is the scan that lists it.
        loop {
            match library.vfs.lookup(id, b"f", NameMatch::Exact) {
                Answer::Ready(found) => break assert!(found.is_ok(), "d{directory}/f: {found:?}"),
                Answer::Pending(_) => tokio::task::yield_now().await,
            }
        }
    }
    scan.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_survives_the_renaming_of_its_directory() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("old")).unwrap();
    std::fs::write(folder.path().join("old/f"), "content").unwrap();
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::open(folder.path()).unwrap());
    let library = Library::new(&[("local", backend)], Settings::default());
    let id = library.find("local/old/f").await.unwrap();
    let file = library.open("local/old/f").await;
    std::fs::rename(folder.path().join("old"), folder.path().join("new")).unwrap();
    library.relist("local").await;
    assert_eq!(library.find("local/new/f").await.unwrap(), id, "it is the same entry");
    assert_eq!(&library.read(&file, 0, 100).await.unwrap()[..], b"content");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_source_that_is_being_connected_opens_once_it_is() {
    let source = source();
    source.put("file", 10, 1);
    let library = library(&source);
    let id = library.find("s/file").await.unwrap();
    library.indexer.detach(library.source());
    let refused = library.vfs.open(id, Access::Read).wait().await.unwrap_err();
    assert!(matches!(refused, Error::Unreachable(_)), "{refused:?}");
    library.indexer.expect(library.source());
    let opening = library.vfs.open(id, Access::Read);
    assert!(!opening.is_ready());
    library
        .indexer
        .attach(library.source(), Arc::clone(&source) as Arc<dyn Backend>);
    let opened = opening.wait().await.unwrap();
    assert_eq!(library.read(&opened, 0, 10).await.unwrap(), truth(1, 0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_asks_for_labels_needs_no_source() {
    let source = source();
    source.put("file", 10, 1);
    let library = library(&source);
    let id = library.find("s/file").await.unwrap();
    library.indexer.detach(library.source());
    let label = library.vfs.attribute(id, b"security.selinux");
    assert!(label.is_ready(), "nobody is waited for");
    let none = label.wait().await.unwrap_err();
    assert!(matches!(none, Error::Unsupported(_)), "{none:?}");
    // It may be a folder of this machine, whose disk would know.
    let unknown = library.vfs.attribute(id, b"user.note").wait().await.unwrap_err();
    assert!(matches!(unknown, Error::Unreachable(_)), "{unknown:?}");
}
