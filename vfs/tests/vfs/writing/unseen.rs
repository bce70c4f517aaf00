//! Files whose upload was broken off, removed and renamed while their source is away: that is done at once, and what has arrived unseen goes
//! when the source is back, if it is what was sent.

use super::*;

const SENT: &[u8] = b"what was sent";
/// As long as that.
const THEIRS: &[u8] = b"another's own";

impl World {
    /// Saves a file that arrives unseen: its source is away from then on.
    async fn send_unseen(&self, name: &str) {
        self.shelf.set_cue(Cue::TakesAndGoes);
        self.save(name, SENT).await;
        self.uploaded(name, SENT).await;
    }

    /// Lets the source be back, and waits until nothing is left to be done.
    async fn be_back(&self) {
        self.shelf.set_cue(Cue::Does);
        self.library.vfs.retry_uploads();
        while !self.library.catalog.all_origins().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.until_quiet().await;
        self.library.relist("s").await;
        assert!(self.library.vfs.conflicts().is_empty());
        self.library.catalog.examine().unwrap();
    }

    /// Asserts what is there, here and at the source.
    async fn holds(&self, files: &[(&str, &[u8])]) {
        let names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
        assert_eq!((self.shelf.files(), self.names("s").await), (own(&names), own(&names)));
        for (name, bytes) in files {
            assert_eq!(self.shelf.bytes(name).as_deref(), Some(*bytes), "{name}");
            assert_eq!(self.read_path(&format!("s/{name}")).await, *bytes, "{name}");
        }
    }
}

fn own(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_sent_to_its_end_is_removed_and_renamed_here_alone() {
    let world = World::new();
    let half = u64::from(BLOCK);
    world.shelf.set_cue(Cue::BreaksOff {
        after: half,
        kind: ErrorKind::Unreachable,
    });
    let bytes = pattern(3 * half, 7);
    for name in ["removed", "renamed"] {
        world.save(name, &bytes).await;
    }
    world.shelf.until(|shelf| shelf.begun().len() == 2).await;
    world.shelf.set_cue(Cue::IsAway);
    world.unlink("removed").await.unwrap();
    world.rename("renamed", "other").await.unwrap();
    assert_eq!(
        world.library.catalog.all_origins().unwrap(),
        [],
        "nothing is there of it"
    );
    let world = world.die_and_come_back().await;
    world.be_back().await;
    world.holds(&[("other", &bytes)]).await;
    world.shelf.until(|shelf| shelf.begun().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_arrived_unseen_of_a_removed_file_goes_when_its_source_is_back() {
    for has_trash in [false, true] {
        for dies_before in [false, true] {
            let mut world = World::new();
            world.send_unseen("file").await;
            if dies_before {
                world = world.die_and_come_back().await;
            }
            let source = world.library.catalog.sources().unwrap()[0].id;
            world.library.vfs.set_trash(source, has_trash);
            world.unlink("file").await.unwrap();
            assert_eq!(world.names("s").await, [""; 0], "{has_trash} {dies_before}");
            assert_eq!(world.library.vfs.staging_usage().unwrap().files, 0);
            let world = world.die_and_come_back().await;
            assert!(world.shelf.bytes("file").is_some());
            world.be_back().await;
            world.holds(&[]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_arrived_is_not_shown_before_that_is_known_and_anothers_stays() {
    let world = World::new();
    world.send_unseen("file").await;
    world.unlink("file").await.unwrap();
    world.shelf.place("file", THEIRS);
    world.shelf.place("longer", b"of another length");
    // Nothing that is looked at can be read.
    world.shelf.set_cue(Cue::HoldsReads);
    world.library.vfs.retry_uploads();
    world.shelf.until_held_reads(1).await;
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["longer"]);
    world.be_back().await;
    world.holds(&[("file", THEIRS), ("longer", b"of another length")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_of_the_name_is_uploaded_after_what_has_arrived_unseen_has_gone() {
    let world = World::new();
    world.send_unseen("file").await;
    world.unlink("file").await.unwrap();
    world.save("file", b"new").await;
    let world = world.die_and_come_back().await;
    world.be_back().await;
    world.uploaded("file", b"new").await;
    world.holds(&[("file", b"new")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_arrived_unseen_under_its_former_name_is_under_the_new_one_alone() {
    for dies_before in [false, true] {
        let mut world = World::new();
        world.send_unseen("file").await;
        if dies_before {
            world = world.die_and_come_back().await;
        }
        world.rename("file", "other").await.unwrap();
        // And to and fro, as often as somebody likes.
        world.rename("other", "file").await.unwrap();
        world.rename("file", "other").await.unwrap();
        assert_eq!(world.names("s").await, ["other"]);
        let world = world.die_and_come_back().await;
        assert_eq!(world.read_path("s/other").await, SENT);
        world.be_back().await;
        world.holds(&[("other", SENT)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_has_arrived_unseen_is_replaced_while_its_source_is_away() {
    for dies_before in [false, true] {
        let mut world = World::new();
        world.send_unseen("file").await;
        if dies_before {
            world = world.die_and_come_back().await;
        }
        // As editors save.
        for text in ["first", "second"] {
            world.save("temporary", text.as_bytes()).await;
            world.rename("temporary", "file").await.unwrap();
        }
        let world = world.die_and_come_back().await;
        assert_eq!(world.read_path("s/file").await, b"second");
        world.be_back().await;
        world.holds(&[("file", b"second")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_is_known_to_have_is_not_removed_while_it_is_away() {
    let world = World::new();
    world.shelf.place("file", b"known");
    let handle = world.open("s/file", Access::ReadWrite).await;
    world.write(handle, WriteAt::Offset(0), b"K").await.unwrap();
    world.shelf.set_cue(Cue::TakesAndGoes);
    world.close(handle).await.unwrap();
    world.uploaded("file", b"Known").await;
    let refused = world.unlink("file").await;
    assert!(matches!(refused, Err(Error::Unreachable(_))), "{refused:?}");
    world.be_back().await;
    world.holds(&[("file", b"Known")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_arrived_unseen_stays_and_shows_where_it_may_not_be_removed() {
    for is_renamed in [false, true] {
        let world = World::new();
        world.send_unseen("file").await;
        if is_renamed {
            world.rename("file", "other").await.unwrap();
        } else {
            world.unlink("file").await.unwrap();
        }
        assert!(!world.names("s").await.contains(&"file".to_owned()));
        world.shelf.set_cue(Cue::ForbidsRemovals);
        world.library.vfs.retry_uploads();
        while !world.library.catalog.all_origins().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if is_renamed {
            world.uploaded("other", SENT).await;
        }
        world.until_quiet().await;
        world.library.relist("s").await;
        let both: &[(&str, &[u8])] = &[("file", SENT), ("other", SENT)];
        world.holds(if is_renamed { both } else { &both[..1] }).await;
    }
}

/// By another path to the same directory, it may be in its own way.
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_file_is_uploaded_after_what_it_has_left_unseen_has_gone() {
    let world = World::new();
    world.send_unseen("file").await;
    world.rename("file", "other").await.unwrap();
    world.shelf.set_cue(Cue::RemovesNothing);
    world.library.vfs.retry_uploads();
    world.shelf.until_refused_removals(2).await;
    assert_eq!(world.shelf.files(), ["file"]);
    world.be_back().await;
    world.holds(&[("other", SENT)]).await;
}
