//! What is done with a file whose original has not been taken away yet, when the machine loses power before the catalog knows of it.

use tokio::time::timeout;

use super::*;

const CATALOG: [&str; 2] = ["catalog.redb", "catalog.redb-wal"];

impl World {
    /// `t` has the copy of `x/dir/a`, which could not be taken away.
    async fn with_an_original_that_stays() -> Self {
        let world = Self::new();
        world.t.place_directory("inner");
        world.library.relist("t").await;
        world.x.set_cue(Cue::RemovesNothing);
        world.rename("x/dir/a", "t/inner/a").await.unwrap();
        world.until_nothing_is_staged().await;
        world.x.until_refused_removals(1).await;
        assert!(world.x.bytes("dir/a").is_some() && world.t.bytes("inner/a").is_some());
        world
    }

    /// Does something at `t` of which the source knows, and the catalog not, and comes back with what the disk had then.
    async fn loses_power_after(self, change: impl AsyncFnOnce(&Self)) -> Self {
        self.t.set_cue(Cue::HoldsNames);
        let kept = TempDir::new().unwrap();
        tokio::join!(change(&self), self.keep_when_names_are_held(&kept));
        self.with_catalog_of(&kept).await
    }

    /// Copies the catalog as it is on the disk when `t` is asked for the first change of a name, which is done then.
    async fn keep_when_names_are_held(&self, kept: &TempDir) {
        self.t.until_held_names(1).await;
        for name in CATALOG {
            fs::copy(self.library.folder.path().join(name), kept.path().join(name)).unwrap();
        }
        self.t.set_cue(Cue::Does);
    }

    async fn with_catalog_of(self, kept: &TempDir) -> Self {
        self.die_with(|folder| {
            for name in CATALOG {
                fs::copy(kept.path().join(name), folder.join(name)).unwrap();
            }
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_original_does_not_come_back_when_its_copy_was_removed_and_power_was_lost() {
    let world = World::with_an_original_that_stays().await;
    let world = world
        .loses_power_after(async |world| world.remove("t/inner/a").await.unwrap())
        .await;
    world.x.set_cue(Cue::Does);
    world.until_settled().await;
    assert_eq!(world.undone(), 0);
    assert_eq!(world.x.files(), ["b"]);
    world.library.relist("t/inner").await;
    assert!(!world.is_there("x/dir/a").await && !world.is_there("t/inner/a").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_when_its_copy_or_a_directory_above_got_another_name() {
    for (from, to, object) in [
        ("t/inner/a", "t/inner/other", "inner/other"),
        ("t/inner", "t/other", "other/a"),
    ] {
        let world = World::with_an_original_that_stays().await;
        let world = world
            .loses_power_after(async |world| world.rename(from, to).await.unwrap())
            .await;
        world.x.set_cue(Cue::Does);
        world.until_settled().await;
        assert_eq!(world.undone(), 0, "{from}");
        assert_eq!(world.x.files(), ["b"], "{from}");
        assert_eq!(world.t.bytes(object).unwrap(), pattern(300_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_when_its_copy_was_replaced() {
    let world = World::with_an_original_that_stays().await;
    let world = world
        .loses_power_after(async |world| world.rename("t/b", "t/inner/a").await.unwrap())
        .await;
    world.x.set_cue(Cue::Does);
    world.until_settled().await;
    assert_eq!(world.undone(), 0);
    assert_eq!(world.x.files(), ["b"]);
    assert_eq!(world.t.bytes("inner/a").unwrap(), b"b of t");
}

/// The end of its upload, and so that its original may go, is known only when the removal waits already.
#[tokio::test(flavor = "multi_thread")]
async fn nor_when_its_copy_arrived_while_its_removal_waited_for_that() {
    let world = World::new();
    world.t.place_directory("inner");
    world.library.relist("t").await;
    world.t.set_cue(Cue::Holds);
    world.rename("x/dir/a", "t/inner/a").await.unwrap();
    world.until_sent().await;
    let kept = TempDir::new().unwrap();
    {
        let mut removing = std::pin::pin!(world.remove("t/inner/a"));
        let early = timeout(Duration::from_millis(100), &mut removing).await;
        assert!(early.is_err(), "it waits for its upload: {early:?}");
        let arrives = async {
            world.t.set_cue(Cue::HoldsNames);
            world
                .until(|library| !library.catalog.due_origins().unwrap().is_empty())
                .await;
            // As who takes it away does first.
            world.library.catalog.sync().unwrap();
            world.keep_when_names_are_held(&kept).await;
        };
        let (removed, ()) = tokio::join!(removing, arrives);
        removed.unwrap();
    }
    let world = world.with_catalog_of(&kept).await;
    world.until_settled().await;
    assert_eq!(world.undone(), 0);
    assert_eq!(world.x.files(), ["b"]);
}

/// What another does to the copy after that is another's: then the original is the only one.
#[tokio::test(flavor = "multi_thread")]
async fn an_original_stays_when_another_removes_the_copy_after_it_got_another_name() {
    let world = World::with_an_original_that_stays().await;
    world.rename("t/inner/a", "t/inner/other").await.unwrap();
    world.t.take("inner/other");
    world.x.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.until_settled().await;
    assert_eq!(world.undone(), 1);
    assert_eq!(world.x.bytes("dir/a").unwrap(), pattern(300_000));
}
