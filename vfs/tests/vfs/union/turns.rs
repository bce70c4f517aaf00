//! Directories that are renamed or removed while something is made in them: it is in them, wherever its member has it, and no old name comes
//! back.

use manifold_vfs::PlaceRule;

use super::*;

/// `d` at the first folder, and at the remote member if so asked. What ends in `.far` is made at the remote member, what ends in `.b` at
/// the second folder.
async fn world(is_far: bool, settings: Settings) -> World {
    let world = World::with(settings, |a, _, shelf| {
        fs::create_dir(a.path().join("d")).unwrap();
        fs::create_dir(a.path().join("other")).unwrap();
        if is_far {
            shelf.place_directory("d");
        }
    });
    let rule = |pattern: &str, member: &str| PlaceRule::new(pattern.as_bytes(), member.as_bytes()).unwrap();
    let rules = vec![rule("*.far", "s"), rule("*.b", "b")];
    world.library.vfs.set_unions(vec![Union { rules, ..union() }]).unwrap();
    world.list("").await.unwrap();
    world.list("d").await.unwrap();
    world
}

impl World {
    /// Begins to make an empty file in a directory, by its number as who has it open.
    fn begin_to_make(&self, directory: EntryId, name: &'static str) -> tokio::task::JoinHandle<Result<(), Error>> {
        let vfs = Arc::clone(&self.library.vfs);
        let made = vfs.create(directory, name.as_bytes(), NEW, ME);
        tokio::spawn(async move {
            let handle = made.wait().await?.opened.handle;
            vfs.flush(handle).wait().await?;
            vfs.release(handle);
            Ok(())
        })
    }

    async fn begin_to_rename(&self, from: &str, to: &str) -> tokio::task::JoinHandle<Result<(), Error>> {
        let (from, to) = (self.place(from).await, self.place(to).await);
        tokio::spawn(self.library.vfs.rename(from, to, RenameMode::Replace).wait())
    }

    async fn begin_to_remove(&self, path: &str) -> tokio::task::JoinHandle<Result<(), Error>> {
        let (directory, name) = self.place(path).await;
        tokio::spawn(self.library.vfs.remove_directory(directory, name).wait())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_made_in_a_directory_goes_with_it() {
    let world = world(false, Settings::default()).await;
    let d = world.find("d").await.unwrap();
    world.shelf.set_cue(Cue::HoldsNames);
    let making = world.begin_to_make(d, "new.far");
    world.shelf.until_held_names(1).await;
    let renaming = world.begin_to_rename("d", "e").await;
    world.shelf.set_cue(Cue::Does);
    making.await.unwrap().unwrap();
    renaming.await.unwrap().unwrap();
    assert_eq!(world.list("").await.unwrap(), ["e", "other"]);
    assert_eq!(world.list("e").await.unwrap(), ["new.far"]);
    world.until_uploaded().await;
    assert!(world.shelf.bytes("e/new.far").is_some() && !world.shelf.has_object("d"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_in_a_directory_that_is_being_renamed_is_in_it() {
    let world = world(true, Settings::default()).await;
    let d = world.find("d").await.unwrap();
    world.shelf.set_cue(Cue::HoldsNames);
    let renaming = world.begin_to_rename("d", "e").await;
    world.shelf.until_held_names(1).await;
    let making = world.begin_to_make(d, "new.b");
    world.shelf.set_cue(Cue::Does);
    renaming.await.unwrap().unwrap();
    making.await.unwrap().unwrap();
    assert_eq!(world.list("").await.unwrap(), ["e", "other"]);
    assert_eq!(world.list("e").await.unwrap(), ["new.b"]);
    assert!(world.b.path().join("e/new.b").exists() && !world.b.path().join("d").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_which_something_is_being_made_is_not_empty() {
    let world = world(false, Settings::default()).await;
    let d = world.find("d").await.unwrap();
    world.shelf.set_cue(Cue::HoldsNames);
    let making = world.begin_to_make(d, "new.far");
    world.shelf.until_held_names(1).await;
    let removing = world.begin_to_remove("d").await;
    world.shelf.set_cue(Cue::Does);
    making.await.unwrap().unwrap();
    let refused = removing.await.unwrap();
    assert!(matches!(refused, Err(Error::NotEmpty)), "{refused:?}");
    assert!(world.a.path().join("d").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_in_a_directory_that_is_being_removed() {
    let world = world(true, Settings::default()).await;
    let d = world.find("d").await.unwrap();
    world.shelf.set_cue(Cue::HoldsNames);
    let removing = world.begin_to_remove("d").await;
    world.shelf.until_held_names(1).await;
    let making = world.begin_to_make(d, "new.b");
    world.shelf.set_cue(Cue::Does);
    removing.await.unwrap().unwrap();
    let refused = making.await.unwrap();
    assert!(matches!(refused, Err(Error::Stale)), "{refused:?}");
    assert_eq!(world.list("").await.unwrap(), ["other"]);
    assert!(!world.b.path().join("d").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_does_not_answer_holds_up_only_the_directory_that_it_renames_and_not_for_ever() {
    let settings = Settings {
        metadata_deadline: Duration::from_secs(2),
        ..Settings::default()
    };
    let world = world(true, settings).await;
    let d = world.find("d").await.unwrap();
    world.shelf.set_cue(Cue::HoldsNames);
    let renaming = world.begin_to_rename("d", "e").await;
    world.shelf.until_held_names(1).await;
    world.write("other/new", b"1").await.unwrap();
    world.make_directory("new").await.unwrap();
    world
        .rename("other/new", "new/file", RenameMode::Replace)
        .await
        .unwrap();
    world.rename("other", "new/other", RenameMode::Replace).await.unwrap();
    world.unlink("new/file").await.unwrap();
    let late = world.begin_to_make(d, "late").await.unwrap();
    assert!(matches!(late, Err(Error::TimedOut(_))), "{late:?}");
    world.shelf.set_cue(Cue::Does);
    renaming.await.unwrap().unwrap();
    world.begin_to_make(d, "in-time").await.unwrap().unwrap();
    assert_eq!(world.list("e").await.unwrap(), ["in-time"]);
}
