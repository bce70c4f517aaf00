//! Attributes that a source cannot store: kept here, for as long as what they were set for is there.

use manifold_backends::ErrorKind;
use manifold_vfs::{
    Access, AttributeChange, AttributePolicy, Attributes, Creation, EntryId, Error, NewTime, RenameMode, Requester,
    SetMode, WriteAt,
};

use super::{ME, World};
use crate::shelf::Cue;

const NOTE: &[u8] = b"user.note";

const TIMES: AttributeChange = AttributeChange {
    mode: None,
    uid: None,
    gid: None,
    size: None,
    accessed: Some(NewTime::At(1_000, 1)),
    modified: Some(NewTime::At(-2, 3)),
};

fn mode(mode: u32) -> AttributeChange {
    AttributeChange {
        mode: Some(mode),
        ..AttributeChange::default()
    }
}

impl World {
    async fn change(&self, path: &str, change: AttributeChange) -> Result<Attributes, Error> {
        let id = self.library.find(path).await?;
        self.library.vfs.set_attributes(id, None, change, ME).wait().await
    }

    async fn attributes(&self, path: &str) -> Attributes {
        let id = self.library.find(path).await.unwrap();
        self.library.vfs.attributes(id, None).wait().await.unwrap()
    }

    async fn set(&self, path: &str, name: &[u8], value: &[u8], how: SetMode) -> Result<(), Error> {
        let id = self.library.find(path).await?;
        self.library.vfs.set_attribute(id, name, value, how).wait().await
    }

    async fn note(&self, path: &str) -> Result<Vec<u8>, Error> {
        let id = self.library.find(path).await?;
        self.library.vfs.attribute(id, NOTE).wait().await
    }

    async fn attribute_names(&self, path: &str) -> Vec<u8> {
        let id = self.library.find(path).await.unwrap();
        self.library.vfs.attribute_names(id, ME).wait().await.unwrap()
    }

    /// Sets everything that can be kept of a file.
    async fn adorn(&self, path: &str) {
        self.change(path, mode(0o751)).await.unwrap();
        let owner = AttributeChange {
            uid: Some(5),
            gid: Some(6),
            ..AttributeChange::default()
        };
        self.change(path, owner).await.unwrap();
        self.set(path, NOTE, b"kept", SetMode::Any).await.unwrap();
        self.change(path, TIMES).await.unwrap();
    }

    /// Finds all that [`adorn`](Self::adorn) has set.
    async fn is_adorned(&self, path: &str) {
        let shown = self.attributes(path).await;
        assert_eq!((shown.mode, shown.owner), (0o751, Some((5, 6))), "{path}");
        assert_eq!(
            (shown.modified_ns, shown.accessed_ns),
            (-1_999_999_997, Some(1_000_000_000_001)),
            "{path}"
        );
        assert!(shown.changed_ns >= 1_700_000_000_000_000_000, "{path}");
        assert_eq!(self.note(path).await.unwrap(), b"kept", "{path}");
        assert_eq!(self.attribute_names(path).await, b"user.note\0", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_a_file_stays_through_listings_renames_and_restarts() {
    let world = World::new();
    world.shelf.place("f", b"bytes");
    world.adorn("s/f").await;
    world.is_adorned("s/f").await;
    world.library.relist("s").await;
    world.is_adorned("s/f").await;
    world.rename("f", "g").await.unwrap();
    world.is_adorned("s/g").await;
    let root = world.root().await;
    let made = world.library.vfs.make_directory(root, b"d", 0o700, ME).wait().await;
    let d = made.unwrap();
    assert_eq!(d.mode, 0o700);
    let moved = world
        .library
        .vfs
        .rename((root, b"g"), (d.id, b"h"), RenameMode::Replace);
    moved.wait().await.unwrap();
    let world = world.die_and_come_back().await;
    world.library.relist("s").await;
    world.library.relist("s/d").await;
    world.is_adorned("s/d/h").await;
    assert_eq!(world.attributes("s/d").await.mode, 0o700);
    assert_eq!(world.read_path("s/d/h").await, b"bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_before_during_and_after_an_upload_is_there_when_it_has_arrived() {
    let world = World::new();
    world.shelf.set_cue(Cue::Holds);
    for name in ["open", "closed", "uploading"] {
        let handle = world.create(name).await;
        world.write(handle, WriteAt::Offset(0), name.as_bytes()).await.unwrap();
        if name == "open" {
            world.adorn("s/open").await;
        }
        world.close(handle).await.unwrap();
        if name == "closed" {
            world.adorn("s/closed").await;
        }
    }
    world.shelf.until_puts(3).await;
    world.adorn("s/uploading").await;
    for name in ["open", "closed", "uploading"] {
        world.is_adorned(&format!("s/{name}")).await;
    }
    world.shelf.set_cue(Cue::Does);
    world.until_quiet().await;
    world.library.relist("s").await;
    for name in ["open", "closed", "uploading"] {
        assert_eq!(world.shelf.bytes(name).unwrap(), name.as_bytes());
        world.is_adorned(&format!("s/{name}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_on_a_file_that_waits_survives_the_daemon() {
    let world = World::new();
    world.shelf.set_cue(Cue::Holds);
    world.save("f", b"waits").await;
    world.adorn("s/f").await;
    let world = world.die_and_come_back().await;
    world.is_adorned("s/f").await;
    world.shelf.set_cue(Cue::Does);
    world.uploaded("f", b"waits").await;
    world.until_quiet().await;
    world.is_adorned("s/f").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_as_old_as_its_last_write_also_when_it_arrives_later() {
    let world = World::new();
    world.save("f", b"first").await;
    let written = world.attributes("s/f").await.modified_ns;
    world.uploaded("f", b"first").await;
    world.until_quiet().await;
    world.library.relist("s").await;
    assert_eq!(world.attributes("s/f").await.modified_ns, written);
    world.adorn("s/f").await;
    let handle = world.open("s/f", Access::Write).await;
    world.write(handle, WriteAt::Append, b" and more").await.unwrap();
    world.close(handle).await.unwrap();
    let again = world.attributes("s/f").await;
    assert!(again.modified_ns > written, "a write is a change");
    world.uploaded("f", b"first and more").await;
    world.until_quiet().await;
    world.library.relist("s").await;
    let after = world.attributes("s/f").await;
    assert_eq!((after.modified_ns, after.mode), (again.modified_ns, 0o751));
    assert_eq!(world.note("s/f").await.unwrap(), b"kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_anothers_ends_kept_times_and_nothing_else() {
    let world = World::new();
    for (name, open) in [("f", false), ("g", true)] {
        let path = format!("s/{name}");
        world.shelf.place(name, b"mine");
        world.library.relist("s").await;
        world.adorn(&path).await;
        let reader = if open {
            Some(world.open(&path, Access::Read).await)
        } else {
            None
        };
        world.shelf.place(name, b"another's");
        world.library.relist("s").await;
        let shown = world.attributes(&path).await;
        assert_eq!((shown.mode, shown.owner, shown.size), (0o751, Some((5, 6)), 9));
        assert!(shown.modified_ns > 0 && shown.accessed_ns.is_none(), "{shown:?}");
        assert_eq!(world.note(&path).await.unwrap(), b"kept");
        assert_eq!(world.read_path(&path).await, b"another's");
        if let Some(handle) = reader {
            world.library.vfs.release(handle);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_of_a_name_has_nothing_of_the_one_that_was_removed() {
    let world = World::new();
    world.shelf.place("f", b"old");
    world.adorn("s/f").await;
    world.unlink("f").await.unwrap();
    world.save("f", b"new").await;
    let shown = world.attributes("s/f").await;
    assert_eq!((shown.mode, shown.owner, shown.accessed_ns), (0o644, None, None));
    assert!(matches!(world.note("s/f").await, Err(Error::NoData)));
    // A save by rename brings its own.
    world.adorn("s/f").await;
    world.save("f.new", b"newer").await;
    world.change("s/f.new", mode(0o600)).await.unwrap();
    world.rename("f.new", "f").await.unwrap();
    assert_eq!(world.attributes("s/f").await.mode, 0o600);
    assert!(matches!(world.note("s/f").await, Err(Error::NoData)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_has_the_permissions_that_were_asked_for() {
    let world = World::new();
    let root = world.root().await;
    let creation = Creation {
        mode: 0o776,
        access: Access::Write,
        exclusive: true,
    };
    let made = world
        .library
        .vfs
        .create(root, b"tool", creation, ME)
        .wait()
        .await
        .unwrap();
    assert_eq!(made.attributes.mode, 0o754, "less what the asker masks");
    world.close(made.opened.handle).await.unwrap();
    world.until_quiet().await;
    world.library.relist("s").await;
    assert_eq!(world.attributes("s/tool").await.mode, 0o754);
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_attributes_are_refused_in_the_words_that_programs_expect() {
    let world = World::new();
    world.shelf.place("f", b"");
    assert!(matches!(world.note("s/f").await, Err(Error::NoData)));
    assert!(matches!(
        world.set("s/f", NOTE, b"x", SetMode::Replace).await,
        Err(Error::NoData)
    ));
    world.set("s/f", NOTE, b"x", SetMode::Create).await.unwrap();
    assert!(matches!(
        world.set("s/f", NOTE, b"x", SetMode::Create).await,
        Err(Error::Exists)
    ));
    let long = vec![0; (64 << 10) + 1];
    assert!(matches!(
        world.set("s/f", NOTE, &long, SetMode::Any).await,
        Err(Error::ValueTooLong)
    ));
    assert!(matches!(
        world.set("s/f", b"user.other", &long[..64 << 10], SetMode::Any).await,
        Err(Error::Full)
    ));
    assert!(matches!(
        world.set("s/f", b"user.", b"x", SetMode::Any).await,
        Err(Error::InvalidArgument)
    ));
    for theirs in [&b"trusted.x"[..], b"security.capability", b"system.posix_acl_access"] {
        assert!(matches!(
            world.set("s/f", theirs, b"x", SetMode::Any).await,
            Err(Error::Unsupported(_))
        ));
    }
    let id = world.library.find("s/f").await.unwrap();
    let remove = || world.library.vfs.remove_attribute(id, NOTE);
    remove().wait().await.unwrap();
    assert!(matches!(remove().wait().await, Err(Error::NoData)));
    let library = world.library.vfs.attribute(EntryId::ROOT, NOTE).wait().await;
    assert!(matches!(library, Err(Error::Unsupported(_))), "{library:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_which_nothing_is_to_be_kept_refuses_what_it_cannot_store() {
    let world = World::new();
    let source = world.library.source();
    world.library.vfs.set_attribute_policy(source, AttributePolicy::Refuse);
    world.shelf.place("f", b"bytes");
    let owner = AttributeChange {
        uid: Some(5),
        ..AttributeChange::default()
    };
    for change in [mode(0o700), owner, TIMES] {
        let refused = world.change("s/f", change).await;
        assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
    }
    assert!(matches!(
        world.set("s/f", NOTE, b"x", SetMode::Any).await,
        Err(Error::Unsupported(_))
    ));
    assert!(matches!(world.note("s/f").await, Err(Error::Unsupported(_))));
    // What changes nothing is accepted, and so is what matters to nobody.
    let now = AttributeChange {
        mode: Some(0o644),
        accessed: Some(NewTime::At(1, 1)),
        modified: Some(NewTime::Now),
        ..AttributeChange::default()
    };
    world.change("s/f", now).await.unwrap();
    world.save("g", b"new").await;
    world.until_quiet().await;
    let there = world.attributes("s/g").await;
    assert_eq!(there.mode, 0o644);
    assert_eq!(there.modified_ns % 1_000_000_000, 0, "as the source tells");
    // What was kept before stays, and is shown.
    world.library.vfs.set_attribute_policy(source, AttributePolicy::Keep);
    world.adorn("s/f").await;
    world.library.vfs.set_attribute_policy(source, AttributePolicy::Refuse);
    world.is_adorned("s/f").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_that_are_kept_need_no_source() {
    let world = World::new();
    world.shelf.place("f", b"bytes");
    world.library.relist("s").await;
    world.shelf.set_cue(Cue::Fails(ErrorKind::Unreachable));
    world.adorn("s/f").await;
    world.is_adorned("s/f").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_makes_is_his() {
    const SHE: Requester = Requester {
        uid: 1_000,
        gid: 1_001,
        ..ME
    };
    let world = World::new();
    let (root, vfs) = (world.root().await, &world.library.vfs);
    let made = vfs.make_directory(root, b"hers", 0o700, SHE).wait().await.unwrap();
    assert_eq!(made.owner, Some((1_000, 1_001)));
    let creation = Creation {
        mode: 0o600,
        access: Access::ReadWrite,
        exclusive: true,
    };
    let created = vfs.create(made.id, b"file", creation, SHE).wait().await.unwrap();
    assert_eq!(created.attributes.owner, Some((1_000, 1_001)));
    world.close(created.opened.handle).await.unwrap();
    world.uploaded("hers/file", b"").await;
    world.until_quiet().await;
    let world = world.die_and_come_back().await;
    for path in ["s/hers", "s/hers/file"] {
        assert_eq!(world.attributes(path).await.owner, Some((1_000, 1_001)), "{path}");
    }
}
