//! A listing that ends well and lacks names that are there is not believed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use manifold_backends::Child;
use tempfile::tempdir;

use crate::library::Library;
use crate::support::{Fault, Request, cut_share};

#[tokio::test(start_paused = true)]
async fn what_a_listing_lacks_and_is_there_stays_known() {
    let (folder, source) = (tempdir().unwrap(), cut_share());
    source.directory("d");
    for number in 0..100 {
        source.file(&format!("d/{number:03}"), number);
    }
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    assert_eq!(library.scan(&record).await, 0);
    let directory = library.id("/s/d");
    let first = Child {
        name: b"000".to_vec(),
        metadata: source.change("d/000", |metadata| metadata.clone()),
    };
    source.fault("d", Fault::Pretend(vec![first]));
    let asked = source.stats.load(Ordering::SeqCst);
    let refused = library.indexer.list_now(directory).await;
    let words = refused.expect_err("the listing is cut").to_string();
    assert!(words.contains("d/001") && words.contains("stays"), "{words}");
    assert!(
        source.stats.load(Ordering::SeqCst) - asked <= 8,
        "one batch of looks tells"
    );
    assert!(library.find("/s/d/099").is_some());

    // What has really gone is believed after a bounded number of looks, however much it is.
    source.mend("d");
    for number in 1..100 {
        source.remove(&format!("d/{number:03}"));
    }
    let asked = source.stats.load(Ordering::SeqCst);
    library.indexer.list_now(directory).await.unwrap();
    assert!(source.stats.load(Ordering::SeqCst) - asked <= 16);
    assert!(library.find("/s/d/001").is_none() && library.find("/s/d/000").is_some());

    // What is listed under another name is not missing.
    source.rename("d/000", "d/renamed");
    let asked = source.stats.load(Ordering::SeqCst);
    library.indexer.list_now(directory).await.unwrap();
    assert_eq!(source.stats.load(Ordering::SeqCst), asked, "nothing is asked");
    assert!(library.find("/s/d/renamed").is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_uploaded_between_listing_and_look_does_not_make_the_listing_a_cut_one() {
    let (folder, source) = (tempdir().unwrap(), cut_share());
    source
        .directory("d")
        .file("d/old", 1)
        .file("d/staged", 1)
        .file("d/uploaded", 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    assert_eq!(library.scan(&record).await, 0);
    let directory = library.id("/s/d");
    let old = Child {
        name: b"old".to_vec(),
        metadata: source.change("d/old", |metadata| metadata.clone()),
    };
    source.fault("d", Fault::Pretend(vec![old]));
    // One is uploaded while it is looked for, the other is still staged.
    library
        .catalog
        .stage(library.id("/s/d/staged"), b"row", None, true)
        .unwrap();
    let uploads = AtomicBool::new(false);
    let (catalog, server) = (Arc::clone(&library.catalog), Arc::downgrade(&source));
    source.on_request(Box::new(move |request| {
        if request == Request::Stat && !uploads.swap(true, Ordering::SeqCst) {
            drop(catalog.begin_change(&[directory]));
            if let Some(server) = server.upgrade() {
                server.mend("d");
            }
        }
        None
    }));
    library.indexer.list_now(directory).await.unwrap();
    assert_eq!(library.names("/s/d"), ["old", "staged", "uploaded"]);
}
