//! Folders of this machine, in which others work beside the mount.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn who_has_looked_up_a_file_that_is_replaced_beside_the_mount_opens_it_if_somebody_has_it_open() {
    for left_to_kernel in [false, true] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "one").unwrap();
        let backend: Arc<dyn Backend> = Arc::new(LocalBackend::open(folder.path()).unwrap());
        let library = Library::new(&[("s", backend)], Settings::default());
        let id = library.find("s/f").await.unwrap();
        let open = || library.vfs.open(id, Access::Read).wait();
        let first = open().await.unwrap();
        if left_to_kernel {
            library.vfs.leave_to_kernel(first.handle);
        }
        std::fs::write(folder.path().join("new"), "two").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        // The first who opens it finds that it is another one; the second comes when that is known.
        for _ in 0..2 {
            let opened = open().await.unwrap();
            assert_eq!(library.read(&opened, 0, 10).await.unwrap(), "one");
            library.vfs.release(opened.handle);
        }
        let new = library.open("s/f").await;
        assert_ne!(library.find("s/f").await.unwrap(), id);
        assert_eq!(library.read(&new, 0, 10).await.unwrap(), "two");
        // Nobody has it open, but whoever has looked it up a moment ago may come yet.
        library.vfs.release(first.handle);
        let opened = open().await.unwrap();
        assert_eq!(library.read(&opened, 0, 10).await.unwrap(), "one");
        assert_eq!(library.vfs.attributes(id, None).wait().await.unwrap().size, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_file_is_its_own_truth() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("f");
    std::fs::write(&path, "one").unwrap();
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::open(folder.path()).unwrap());
    let library = Library::new(&[("local", backend)], Settings::default());
    let file = library.open("local/f").await;
    assert!(matches!(file.backing, Backing::File(_)));
    assert_eq!(&library.read(&file, 0, 100).await.unwrap()[..], b"one");
    assert_eq!(&library.read(&file, 1, 1).await.unwrap()[..], b"n");
    assert!(library.read(&file, u64::MAX, u32::MAX).await.unwrap().is_empty());
    library.vfs.release(file.handle);

    std::fs::write(&path, "longer than before").unwrap();
    let file = library.open("local/f").await;
    assert_eq!(file.size, 18);
    assert!(!file.keep_cache);
    let id = library.find("local/f").await.unwrap();
    assert_eq!(
        library.vfs.attributes(id, Some(file.handle)).wait().await.unwrap().size,
        18,
        "the catalog has learned"
    );
    assert_eq!(&library.read(&file, 0, 100).await.unwrap()[..], b"longer than before");

    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        &library.read(&file, 0, 6).await.unwrap()[..],
        b"longer",
        "an open file stays readable"
    );
    let open = library.vfs.open(id, Access::Read).wait().await;
    assert!(matches!(open, Err(Error::NotFound | Error::Stale)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_file_keeps_its_number_when_it_changes_in_place_under_a_reader_and_not_when_it_is_replaced() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("f");
    std::fs::write(&path, "one").unwrap();
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::open(folder.path()).unwrap());
    let library = Library::new(&[("local", backend)], Settings::default());
    let (root, id) = (
        library.find("local").await.unwrap(),
        library.find("local/f").await.unwrap(),
    );
    let file = library.open("local/f").await;
    let events = library.vfs.subscribe();
    std::fs::write(&path, "longer than before").unwrap();
    let attributes = async |handle| library.vfs.attributes(id, handle).wait().await.unwrap();
    let seen = attributes(Some(file.handle)).await;
    assert_eq!((seen.size, seen.volatile), (18, true), "before anybody has looked");
    library.relist("local").await;
    until(&events, &Event::Pages { id });
    assert_eq!(library.find("local/f").await.unwrap(), id);
    assert_eq!(&library.read(&file, 0, 100).await.unwrap()[..], b"longer than before");
    // Once the kernel reads it by itself, the catalog tells.
    library.vfs.leave_to_kernel(file.handle);
    assert_eq!(
        (attributes(None).await.size, attributes(None).await.volatile),
        (18, false)
    );
    std::fs::write(&path, "and longer than that").unwrap();
    library.relist("local").await;
    assert_eq!(library.find("local/f").await.unwrap(), id);
    assert_eq!(attributes(Some(file.handle)).await.size, 20);
    let again = library.vfs.open(id, Access::Read).wait().await.unwrap();
    assert_eq!((again.size, again.keep_cache), (20, false));

    std::fs::write(folder.path().join("new"), "another").unwrap();
    std::fs::rename(folder.path().join("new"), &path).unwrap();
    library.relist("local").await;
    let name = b"f"[..].into();
    until(&events, &Event::Entry { parent: root, name });
    assert_ne!(library.find("local/f").await.unwrap(), id);
    // Both the bytes and the length of the old one, which somebody may write to still.
    assert_eq!(&library.read(&again, 0, 3).await.unwrap()[..], b"and");
    let old = attributes(Some(again.handle)).await;
    assert_eq!((old.size, old.links, old.volatile), (20, 0, true));
}
