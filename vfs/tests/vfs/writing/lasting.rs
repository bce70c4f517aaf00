//! Changes of names at a remote source: what was answered is known after a crash at once, and what the source has under a name is
//! shown to whoever is told that it is there.

use manifold_catalog::{Catalog, Options};
use manifold_vfs::Making;

use super::*;

impl World {
    /// Opens what a crash would leave of the catalog now.
    fn catalog_after_a_crash(&self) -> (TempDir, Catalog) {
        let copy = TempDir::new().unwrap();
        for name in ["catalog.redb", "catalog.redb-wal"] {
            std::fs::copy(self.library.folder.path().join(name), copy.path().join(name)).unwrap();
        }
        let catalog = Catalog::open(&copy.path().join("catalog.redb"), Options::default()).unwrap();
        (copy, catalog)
    }

    fn knows_after_a_crash(&self, path: &str) -> bool {
        self.catalog_after_a_crash()
            .1
            .resolve(path.as_bytes())
            .unwrap()
            .is_some()
    }

    async fn mkdir(&self, directory: EntryId, name: &str) -> Result<EntryId, Error> {
        let made = self.library.vfs.make_directory(directory, name.as_bytes(), 0o755, ME);
        made.wait().await.map(|made| made.id)
    }

    /// Counts how often the disk has been waited for since.
    fn synced(&self, before: &mut u64) -> u64 {
        let now = self.library.catalog.durable_commits();
        now - std::mem::replace(before, now)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_were_made_removed_or_changed_are_so_after_a_crash() {
    let world = World::new();
    world.shelf.place("old", b"bytes");
    world.shelf.place_directory("former");
    let root = world.root().await;
    world.library.relist("s").await;
    let mut before = 0;
    world.synced(&mut before);
    let made = world.mkdir(root, "made").await.unwrap();
    assert!(world.synced(&mut before) > 0, "it is on the disk");
    assert!(world.knows_after_a_crash("/s/made"));
    world.mkdir(made, "inner").await.unwrap();
    assert!(world.knows_after_a_crash("/s/made/inner"));
    before = world.library.catalog.durable_commits();
    let removed = world.library.vfs.remove_directory(root, b"former");
    removed.wait().await.unwrap();
    assert!(world.synced(&mut before) > 0, "it is on the disk");
    assert!(!world.knows_after_a_crash("/s/former"));
    world.unlink("old").await.unwrap();
    assert!(world.synced(&mut before) > 0, "it is on the disk");
    assert!(!world.knows_after_a_crash("/s/old"));
    world.rename("made", "renamed").await.unwrap();
    assert!(world.synced(&mut before) > 0, "it is on the disk");
    assert!(world.knows_after_a_crash("/s/renamed/inner") && !world.knows_after_a_crash("/s/made"));
    let node = world.library.vfs.make_node(root, b"empty", Making::File, 0o644, ME);
    node.wait().await.unwrap();
    assert!(world.knows_after_a_crash("/s/empty"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_has_and_the_catalog_lacks_is_shown_when_it_is_in_the_way() {
    let world = World::new();
    world.shelf.place_directory("known");
    let root = world.root().await;
    world.library.relist("s").await;
    // As a crash leaves it between the source's answer and the catalog.
    world.shelf.place_directory("made");
    let missing = world.library.find("s/made").await;
    assert!(matches!(missing, Err(Error::NotFound)), "{missing:?}");
    let again = world.mkdir(root, "made").await;
    assert!(matches!(again, Err(Error::Exists)), "{again:?}");
    world.library.find("s/made").await.unwrap();
    world.library.relist("s/known").await;
    world.shelf.place("known/inner", b"bytes");
    let removed = world.library.vfs.remove_directory(root, b"known").wait().await;
    assert!(matches!(removed, Err(Error::NotEmpty)), "{removed:?}");
    world.library.find("s/known/inner").await.unwrap();
}

/// As `flock` makes its files, and who leaves a mark: nobody writes to it, so that nobody ends anything when he closes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_made_by_who_only_reads_it_is_uploaded_and_is_there_after_a_crash() {
    let world = World::new();
    world.library.relist("s").await;
    world.shelf.set_cue(Cue::IsAway);
    let creation = Creation {
        mode: 0o644,
        access: Access::Read,
        exclusive: true,
    };
    let created = world.library.vfs.create(world.root().await, b"mark", creation, ME);
    let created = created.wait().await.unwrap();
    assert!(created.is_new);
    assert_eq!(world.read(created.opened.handle).await.unwrap(), b"");
    world.close(created.opened.handle).await.unwrap();
    assert!(world.knows_after_a_crash("/s/mark"));
    let world = world.die_and_come_back().await;
    assert_eq!(world.size("s/mark").await, 0);
    world.shelf.set_cue(Cue::Does);
    world.uploaded("mark", b"").await;
}

/// What was asked for is done, though who asked is killed, or the mount has ended.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_closed_is_uploaded_though_nobody_waits_for_that() {
    let world = World::new();
    for number in 0..20 {
        let name = format!("f{number}");
        let handle = world.create(&name).await;
        // Longer than what lies beside its row, so that the disk is waited for.
        let bytes = super::pattern(300_000, number);
        world.write(handle, WriteAt::Offset(0), &bytes).await.unwrap();
        let closing = world.library.vfs.flush(handle);
        drop(tokio::time::timeout(Duration::ZERO, closing.wait()).await);
        world.uploaded(&name, &bytes).await;
        world.library.vfs.release(handle);
    }
}

/// A part of it was written here; the rest shows through from what is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn what_its_source_replaces_while_nobody_hears_of_that_is_whole_here() {
    let world = World::new();
    let mut bytes = super::pattern(300_000, 7);
    world.shelf.place("f", &bytes);
    world.shelf.place("g", b"another");
    world.library.relist("s").await;
    world.shelf.set_cue(Cue::HoldsReads);
    let handle = world.open("s/f", Access::ReadWrite).await;
    world.write(handle, WriteAt::Offset(10), b"changed").await.unwrap();
    bytes[10..17].copy_from_slice(b"changed");
    world.close(handle).await.unwrap();
    world.shelf.set_cue(Cue::RenamesAndIsSilent);
    let unheard = world.rename("g", "f").await;
    assert!(unheard.is_err(), "nobody hears of it");
    assert_eq!(world.shelf.bytes("f").unwrap(), b"another");
    let world = world.die_and_come_back().await;
    world.shelf.set_cue(Cue::Does);
    let uploaded = tokio::time::timeout(Duration::from_secs(30), world.until_quiet());
    uploaded.await.expect("it can be uploaded");
    world.library.relist("s").await;
    let mut found = Vec::new();
    for name in world.names("s").await {
        found.push(world.read_path(&format!("s/{name}")).await);
    }
    assert!(
        found.contains(&bytes) && found.contains(&b"another".to_vec()),
        "both are kept"
    );
}
