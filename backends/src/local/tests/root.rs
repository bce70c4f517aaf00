//! Roots that are gone, come back, or are other folders than they were.

use std::os::unix::ffi::OsStringExt;

use super::*;

#[tokio::test]
async fn a_root_that_is_gone_is_unreachable_and_comes_back() {
    let parent = TempDir::new().unwrap();
    let root = parent.path().join("disk");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("file"), "x").unwrap();
    let backend = LocalBackend::open(&root).unwrap();
    let version = found(backend.stat(&path("file")).await).version;

    let unreachable = async || {
        let file = path("file");
        assert_eq!(kind_of(backend.check().await), ErrorKind::Unreachable);
        assert_eq!(kind_of(backend.stat(&file).await), ErrorKind::Unreachable);
        assert_eq!(
            kind_of(backend.list(&ObjectPath::root()).await.map(drop)),
            ErrorKind::Unreachable
        );
        assert_eq!(
            kind_of(backend.read(&file, &version, 0..1).await),
            ErrorKind::Unreachable
        );
        assert_eq!(kind_of(backend.read_link(&file).await), ErrorKind::Unreachable);
        assert_eq!(kind_of(backend.open_file(&file)), ErrorKind::Unreachable);
        let walked = backend.walk_directory(&ObjectPath::root(), None, &mut |_, _| panic!("nothing is there"));
        assert_eq!(kind_of(walked), ErrorKind::Unreachable);
    };
    std::fs::rename(&root, parent.path().join("elsewhere")).unwrap();
    unreachable().await;
    // The mount point that an unmounted disk leaves behind.
    std::fs::create_dir(&root).unwrap();
    unreachable().await;
    std::fs::remove_dir(&root).unwrap();
    std::fs::write(&root, "a file").unwrap();
    unreachable().await;
    std::fs::remove_file(&root).unwrap();
    std::fs::rename(parent.path().join("elsewhere"), &root).unwrap();
    assert_eq!(walk(&backend, "").len(), 1);
    assert!(backend.check().await.is_ok());
}

#[test]
fn a_root_is_known_again_by_what_was_kept_of_it() {
    let parent = TempDir::new().unwrap();
    let (root, other) = (parent.path().join("disk"), parent.path().join("other"));
    std::fs::create_dir(&root).unwrap();
    let id = LocalBackend::open(&root).unwrap().folder.root_id().unwrap();
    assert_eq!(id.to_string().parse(), Ok(id));
    assert!("".parse::<RootId>().is_err() && "1-2-3-4".parse::<RootId>().is_err() && "1".parse::<RootId>().is_err());
    let settings = BTreeMap::from([("root_id".to_owned(), id.to_string())]);
    let spec = SourceSpec::from_path(&root, &settings).unwrap();
    let connect = || LocalBackend::connect(&spec, &Limits::default()).unwrap();
    assert_eq!(walk(&connect(), "").len(), 0);

    std::fs::rename(&root, &other).unwrap();
    let while_away = connect();
    assert_eq!(
        kind_of(while_away.walk_directory(&ObjectPath::root(), None, &mut |_, _| ())),
        ErrorKind::Unreachable
    );
    std::fs::create_dir(&root).unwrap();
    let error = while_away
        .walk_directory(&ObjectPath::root(), None, &mut |_, _| ())
        .unwrap_err();
    assert!(error.kind() == ErrorKind::Unreachable && error.may_retry(), "{error}");
    assert!(error.to_string().contains("another folder stands at"), "{error}");
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(&other, &root).unwrap();
    assert_eq!(walk(&while_away, "").len(), 0);

    let bad = SourceSpec::from_path(&root, &BTreeMap::from([("root_id".into(), "x".into())])).unwrap();
    assert_eq!(
        kind_of(LocalBackend::connect(&bad, &Limits::default())),
        ErrorKind::Settings
    );
}

#[test]
fn another_file_system_in_memory_at_the_same_place_is_not_taken_for_the_first() {
    let folder = TempDir::new().unwrap();
    let mount = || {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", folder.path(), "tmpfs", flags, c"size=64k").unwrap();
    };
    let unmount = || rustix::mount::unmount(folder.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    mount();
    std::fs::write(folder.path().join("f"), "x").unwrap();
    let backend = LocalBackend::open(folder.path()).unwrap();
    assert_eq!(walk(&backend, "").len(), 1);
    unmount();
    mount();
    let refused = backend.walk_directory(&ObjectPath::root(), None, &mut |_, _| ());
    assert_eq!(kind_of(refused), ErrorKind::Unreachable);
    unmount();
}

#[test]
fn a_root_is_a_folder_with_an_absolute_path() {
    assert_eq!(kind_of(LocalBackend::open(Path::new("relative"))), ErrorKind::Settings);
    assert_eq!(
        kind_of(LocalBackend::open(Path::new("/nowhere/at/all"))),
        ErrorKind::NoSuchSource
    );
    let odd = PathBuf::from(std::ffi::OsString::from_vec(b"/tmp/\xff".to_vec()));
    assert!(
        LocalBackend::open(&odd)
            .unwrap_err()
            .to_string()
            .contains("file:///tmp/%FF")
    );
}
