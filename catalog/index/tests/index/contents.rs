//! Learning what files hold, where times are too coarse to tell one change from the next.

use std::sync::Arc;
use std::time::Duration;

use manifold_backends::{Timestamp, Version};
use manifold_catalog::Options;
use manifold_index::{HashSettings, IndexError, IndexSettings};
use tempfile::tempdir;
use tokio::time::Instant;

use crate::library::Library;
use crate::support::{Scripted, minutes};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 24 * 60 * 60 * SECOND;
/// This machine's clock: a full minute.
const NOW: i64 = 20_000 * DAY;
const ALL: HashSettings = HashSettings {
    local: true,
    remote: true,
    rate: 0,
};

fn changed_at(source: &Scripted, path: &str, modified_ns: i64) {
    source.change(path, |seen| {
        let modified = Timestamp(modified_ns);
        seen.modified = Some(modified);
        seen.changed = None;
        seen.version = Version::from_stat(seen.size, modified, Timestamp(0), 0);
    });
}

fn library(folder: &std::path::Path) -> Library {
    Library::under(folder, IndexSettings::default(), Options::default(), Arc::new(|| NOW))
}

#[tokio::test(start_paused = true)]
async fn a_file_is_read_when_another_change_would_show() {
    let (folder, source) = (tempdir().unwrap(), minutes("test://one"));
    source
        .file("fine", 1)
        .file("seconds", 2)
        .file("minutes", 3)
        .file("old", 4);
    changed_at(&source, "fine", NOW - 5 * SECOND + 7);
    changed_at(&source, "seconds", NOW - 5 * SECOND);
    changed_at(&source, "minutes", NOW - 60 * SECOND);
    changed_at(&source, "old", NOW - 2 * DAY);
    let library = library(folder.path());
    library.add("/s", &source);
    library.list("/s").await;
    for (path, least) in [("/s/fine", 0), ("/s/old", 0), ("/s/seconds", 4)] {
        let begun = Instant::now();
        library.indexer.hash(library.id(path)).await.unwrap();
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(least), "{path}: {took:?}");
        assert!(took < Duration::from_secs(least + 1), "{path}: {took:?}");
        assert!(
            library
                .catalog
                .details(library.id(path))
                .unwrap()
                .unwrap()
                .content
                .is_some()
        );
    }
    let id = library.id("/s/minutes");
    let refused = library.indexer.hash(id).await;
    assert!(matches!(refused, Err(IndexError::Backend(_))), "{refused:?}");
    assert_eq!(library.catalog.details(id).unwrap().unwrap().content, None);
}

#[tokio::test(start_paused = true)]
async fn a_round_waits_once_for_all_its_files_and_leaves_out_what_cannot_be_told() {
    let folder = tempdir().unwrap();
    let (one, other) = (minutes("test://one"), minutes("test://other"));
    for source in [&one, &other] {
        for (index, path) in ["a", "b", "c", "m"].into_iter().enumerate() {
            source.file(path, index as u64 + 1);
            changed_at(source, path, NOW - if path == "m" { 60 } else { 5 } * SECOND);
        }
    }
    let library = library(folder.path());
    library.add("/one", &one);
    library.add("/other", &other);
    library.list("/one").await;
    library.list("/other").await;
    let begun = Instant::now();
    assert_eq!(library.indexer.hash_round(ALL).await.unwrap(), 6);
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(4) && took < Duration::from_secs(8),
        "{took:?}"
    );
    for path in ["/one/m", "/other/m"] {
        let details = library.catalog.details(library.id(path)).unwrap().unwrap();
        assert_eq!(details.content, None, "{path}");
    }
}
