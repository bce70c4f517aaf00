//! Changes and openings of what was replaced behind the mount a moment ago: the kernel has judged who asks by what had the name before.

use super::*;

/// Puts another file in the place of `f`, which has its own mode.
fn replace(two: &Two, mode: u32) {
    let (new, place) = (two.a.path().join("new"), two.a.path().join("f"));
    fs::write(&new, "another's").unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(new, place).unwrap();
}

/// A library whose file `f` everybody may write to, as far as it knows.
async fn known() -> (Two, EntryId) {
    let two = two();
    let root = two.library.find("a").await.unwrap();
    let file = two.create(root, "f").await.unwrap();
    two.close(&file).await;
    let id = file.attributes.id;
    let open_to_all = AttributeChange {
        mode: Some(0o666),
        ..AttributeChange::default()
    };
    let set = two.library.vfs.set_attributes(id, None, open_to_all, ME);
    set.wait().await.unwrap();
    (two, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_another_mode_by_now_is_neither_changed_nor_opened_before_that_is_known() {
    for turn in 0..5 {
        let (two, id) = known().await;
        let vfs = &two.library.vfs;
        replace(&two, 0o600);
        let place = two.a.path().join("f");
        let change = AttributeChange {
            mode: (turn == 0).then_some(0o777),
            size: (turn == 1).then_some(0),
            ..AttributeChange::default()
        };
        let root = two.library.find("a").await.unwrap();
        let refused = match turn {
            0 | 1 => vfs.set_attributes(id, None, change, ME).wait().await.err(),
            2 => vfs.set_attribute(id, b"user.x", b"y", SetMode::Any).wait().await.err(),
            3 => vfs.make_link(id, root, b"other").wait().await.err(),
            _ => vfs.open(id, Access::ReadWrite).wait().await.err(),
        };
        assert!(matches!(refused, Some(Error::Stale)), "{turn}: {refused:?}");
        assert_eq!(fs::read(&place).unwrap(), b"another's", "{turn}");
        assert_eq!(
            fs::metadata(&place).unwrap().permissions().mode() & 0o7777,
            0o600,
            "{turn}"
        );
        assert!(!two.a.path().join("other").exists());
        // The kernel asks anew, and is told whose it is.
        let now = vfs.lookup(root, b"f", NameMatch::Exact).wait().await.unwrap();
        assert_eq!(now.1.mode & 0o7777, 0o600, "{turn}");
        let done = vfs.set_attributes(
            now.1.id,
            None,
            AttributeChange {
                mode: Some(0o640),
                ..change
            },
            ME,
        );
        done.wait().await.unwrap();
        two.agrees("a/f", &place).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_everybody_may_do_the_same_with_is_changed_at_once() {
    let (two, id) = known().await;
    replace(&two, 0o666);
    let change = AttributeChange {
        size: Some(3),
        ..AttributeChange::default()
    };
    let set = two.library.vfs.set_attributes(id, None, change, ME);
    set.wait().await.unwrap();
    assert_eq!(fs::read(two.a.path().join("f")).unwrap(), b"ano");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_makes_what_is_there_already_is_told() {
    let two = two();
    let root = two.library.find("a").await.unwrap();
    fs::write(two.a.path().join("f"), "another's").unwrap();
    let creation = Creation {
        exclusive: false,
        ..NEW
    };
    for (name, is_new) in [(&b"f"[..], false), (b"g", true)] {
        let created = two.library.vfs.create(root, name, creation, ME).wait().await.unwrap();
        assert_eq!(created.is_new, is_new);
        two.close(&created).await;
    }
    assert_eq!(fs::read(two.a.path().join("f")).unwrap(), b"another's");
}
