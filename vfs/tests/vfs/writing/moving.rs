//! Directories renamed at a source that has none to rename: the tree shows the new name at once, the objects follow, and what
//! others and applications do meanwhile is neither lost nor mixed up.

mod apart;
mod copies;
mod model;
mod places;

use std::sync::Arc;
use std::time::Duration;

use crate::shelf::{Cue, Shelf};
use manifold_backends::{Backend, ErrorKind, ObjectPath, Presence};
use manifold_catalog::{Copied, EntryId, Keep, NewChild, SeenAttributes};
use manifold_index::seen_attributes;
use manifold_vfs::{Access, Creation, Error, MoveState, RenameMode, UploadEvent, WriteAt};
use tempfile::TempDir;

use super::{ME, World, pattern};

/// More than are brought at once.
const FILES: u64 = 12;

fn world() -> World {
    let shelf = Shelf::store();
    for number in 0..FILES {
        shelf.place(&format!("a/{number:02}"), &content(number));
    }
    shelf.place("a/sub/deep", b"deep");
    shelf.place("beside", b"beside");
    World::over(shelf, TempDir::new().unwrap())
}

fn content(number: u64) -> Vec<u8> {
    pattern(1_000 + number, number)
}

impl World {
    async fn at(&self, path: &str) -> (EntryId, Vec<u8>) {
        let (parent, name) = path.rsplit_once('/').unwrap();
        (self.library.find(parent).await.unwrap(), name.as_bytes().to_vec())
    }

    async fn move_to(&self, from: &str, to: &str) -> Result<(), Error> {
        let (from, to) = (self.at(from).await, self.at(to).await);
        let (from, to) = ((from.0, &*from.1), (to.0, &*to.1));
        self.library.vfs.rename(from, to, RenameMode::Replace).wait().await
    }

    async fn make_directory(&self, path: &str) -> Result<(), Error> {
        let (parent, name) = self.at(path).await;
        let made = self.library.vfs.make_directory(parent, &name, 0o755, ME).wait().await;
        made.map(drop)
    }

    async fn remove(&self, path: &str) -> Result<(), Error> {
        let (parent, name) = self.at(path).await;
        self.library.vfs.remove_file(parent, &name).wait().await
    }

    async fn remove_directory(&self, path: &str) -> Result<(), Error> {
        let (parent, name) = self.at(path).await;
        self.library.vfs.remove_directory(parent, &name).wait().await
    }

    async fn save_at(&self, path: &str, bytes: &[u8]) {
        let (parent, name) = self.at(path).await;
        let creation = Creation {
            mode: 0o644,
            access: Access::ReadWrite,
            exclusive: true,
        };
        let created = self
            .library
            .vfs
            .create(parent, &name, creation, ME)
            .wait()
            .await
            .unwrap();
        let handle = created.opened.handle;
        self.write(handle, WriteAt::Offset(0), bytes).await.unwrap();
        self.close(handle).await.unwrap();
    }

    /// Waits until nothing is on the move.
    async fn until_settled(&self) {
        while !self.library.catalog.moves().unwrap().is_empty() || !self.library.vfs.moves().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.until_quiet().await;
        self.library.catalog.examine().unwrap();
    }

    /// Begins to rename `a` to `b`, and stops when as many copies are under way as there may be.
    async fn rename_and_hold(&self) {
        self.names("s/a").await;
        self.library.find("s/a/sub/deep").await.unwrap();
        self.shelf.set_cue(Cue::Holds);
        self.move_to("s/a", "s/b").await.unwrap();
        self.shelf.until_copies(4).await;
    }

    async fn is_whole_at(&self, path: &str) {
        for number in 0..FILES {
            assert_eq!(
                self.read_path(&format!("{path}/{number:02}")).await,
                content(number),
                "{number}"
            );
        }
        assert_eq!(self.read_path(&format!("{path}/sub/deep")).await, b"deep");
    }

    async fn relist_all(&self) {
        for path in ["s", "s/b", "s/b/sub"] {
            self.library.relist(path).await;
        }
    }

    fn lies_only_beneath(&self, directory: &str) {
        let files = self.shelf.files();
        let elsewhere: Vec<_> = files
            .iter()
            .filter(|path| *path != "beside" && !path.starts_with(&format!("{directory}/")))
            .collect();
        assert!(elsewhere.is_empty(), "{elsewhere:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_directory_is_shown_at_once_and_its_objects_follow() {
    let world = world();
    let ids = [
        world.library.find("s/a").await.unwrap(),
        world.library.find("s/a/03").await.unwrap(),
    ];
    world.rename_and_hold().await;
    assert_eq!(world.names("s").await, ["b", "beside"]);
    world.is_whole_at("s/b").await;
    world.relist_all().await;
    assert_eq!(
        world.names("s").await,
        ["b", "beside"],
        "neither the old name nor a gap"
    );
    assert_eq!(world.names("s/b").await.len(), FILES as usize + 1);
    let reports = world.library.vfs.moves();
    assert_eq!(reports.len(), 1);
    assert_eq!((&*reports[0].path, &*reports[0].from), (&b"/s/b"[..], &b"a"[..]));
    assert_eq!((reports[0].moved, reports[0].left), (0, FILES + 1));
    let reader = world.open("s/b/00", Access::Read).await;
    world.shelf.set_cue(Cue::Does);
    world.until_settled().await;
    assert_eq!(
        world.read(reader).await.unwrap(),
        content(0),
        "through a handle from before"
    );
    assert_eq!(world.library.find("s/b").await.unwrap(), ids[0]);
    assert_eq!(world.library.find("s/b/03").await.unwrap(), ids[1]);
    world.lies_only_beneath("b");
    world.relist_all().await;
    assert_eq!(world.names("s").await, ["b", "beside"]);
    world.is_whole_at("s/b").await;
    assert_eq!(world.library.vfs.moved(), FILES + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_goes_on_where_the_daemon_has_died() {
    let world = world();
    world.rename_and_hold().await;
    let world = world.die_and_come_back().await;
    assert_eq!(world.names("s").await, ["b", "beside"]);
    world.is_whole_at("s/b").await;
    world.shelf.set_cue(Cue::Does);
    world.until_settled().await;
    world.lies_only_beneath("b");
    world.is_whole_at("s/b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_answer_was_lost_is_known_again() {
    let world = world();
    world.names("s/a").await;
    world.shelf.set_cue(Cue::LosesAnswers);
    world.move_to("s/a", "s/b").await.unwrap();
    world.shelf.until_copies(1).await;
    let world = world.die_and_come_back().await;
    world.shelf.set_cue(Cue::Does);
    world.until_settled().await;
    world.lies_only_beneath("b");
    world.is_whole_at("s/b").await;
    assert!(
        world.library.vfs.conflicts().is_empty(),
        "it is no conflict with itself"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_place_is_cleared_after_the_daemon_has_died_unless_it_is_another_s_by_then() {
    let world = world();
    world.names("s/a").await;
    world.library.find("s/a/sub/deep").await.unwrap();
    world.shelf.set_cue(Cue::RemovesNothing);
    world.move_to("s/a", "s/b").await.unwrap();
    world.shelf.until(|shelf| shelf.bytes("b/00").is_some()).await;
    while world
        .library
        .catalog
        .moved(world.library.find("s/b/00").await.unwrap())
        .unwrap()
        .is_none()
    {
        tokio::task::yield_now().await;
    }
    let world = world.die_and_come_back().await;
    assert!(world.shelf.bytes("a/00").is_some(), "it lies in both places");
    world.is_whole_at("s/b").await;
    world.relist_all().await;
    assert_eq!(world.names("s").await, ["b", "beside"]);
    world.shelf.place("a/00", b"of another");
    world.shelf.set_cue(Cue::Does);
    world.until_settled().await;
    world.is_whole_at("s/b").await;
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["a", "b", "beside"]);
    assert_eq!(world.read_path("s/a/00").await, b"of another");
    world.library.relist("s/a").await;
    assert_eq!(world.names("s/a").await, ["00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_put_or_change_in_the_old_place_meanwhile_shows_there_in_the_end() {
    let world = world();
    world.rename_and_hold().await;
    world.shelf.place("a/new", b"new");
    world.shelf.place("a/11", b"changed by another");
    world.shelf.place("a/10", b"changed, too");
    world.remove("s/b/10").await.unwrap();
    world.relist_all().await;
    assert_eq!(world.names("s").await, ["b", "beside"]);
    world.shelf.set_cue(Cue::Does);
    world.until_settled().await;
    world.shelf.until(|shelf| shelf.bytes("b/sub/deep").is_some()).await;
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["a", "b", "beside"]);
    world.library.relist("s/a").await;
    assert_eq!(world.names("s/a").await, ["10", "11", "new"]);
    assert_eq!(
        world.read_path("s/a/10").await,
        b"changed, too",
        "only ours was removed"
    );
    assert_eq!(world.read_path("s/a/11").await, b"changed by another");
    assert_eq!(world.read_path("s/a/new").await, b"new");
    assert_eq!(world.names("s/b").await.len(), FILES as usize - 1);
    assert_eq!(world.read_path("s/b/09").await, content(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_put_into_the_new_place_is_kept_beside_ours() {
    let world = world();
    world.rename_and_hold().await;
    world.shelf.place("b/11", b"of another");
    world.shelf.set_cue(Cue::Does);
    world.until_settled().await;
    world.library.relist("s/b").await;
    assert_eq!(world.read_path("s/b/11").await, b"of another");
    let kept = "s/b/11 (conflict 2023-11-14 desk)";
    assert_eq!(world.read_path(kept).await, content(11));
    assert!(matches!(&world.events.lock()[..], [UploadEvent::Conflict(_)]));
    world.lies_only_beneath("b");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_within_meanwhile_is_as_on_a_disk() {
    let world = world();
    world.rename_and_hold().await;
    world.save_at("s/b/new", b"new").await;
    world.make_directory("s/b/made").await.unwrap();
    world.save_at("s/b/made/in", b"in").await;
    world.remove("s/b/08").await.unwrap();
    world.move_to("s/b/09", "s/b/10").await.unwrap();
    world.move_to("s/b/11", "s/out").await.unwrap();
    world.move_to("s/beside", "s/b/beside").await.unwrap();
    let handle = world.open("s/b/07", Access::ReadWrite).await;
    world.write(handle, WriteAt::Offset(0), b"changed").await.unwrap();
    world.close(handle).await.unwrap();
    world.make_directory("s/else").await.unwrap();
    world.move_to("s/b/sub", "s/else/sub").await.unwrap();
    world.move_to("s/b", "s/c").await.unwrap();
    assert_eq!(world.names("s").await, ["c", "else", "out"]);
    world.shelf.set_cue(Cue::Does);
    world.until_settled().await;
    for path in ["s", "s/c", "s/c/made", "s/else", "s/else/sub"] {
        assert!(
            world.library.find(path).await.is_ok(),
            "{path}: {:?}",
            world.shelf.files()
        );
        world.library.relist(path).await;
    }
    assert_eq!(world.names("s").await, ["c", "else", "out"]);
    assert_eq!(
        world.names("s/c").await,
        [
            "00", "01", "02", "03", "04", "05", "06", "07", "10", "beside", "made", "new"
        ]
    );
    let mut changed = content(7);
    changed[..7].copy_from_slice(b"changed");
    for (path, bytes) in [
        ("s/c/00", content(0)),
        ("s/c/07", changed),
        ("s/c/10", content(9)),
        ("s/c/beside", b"beside".to_vec()),
        ("s/c/made/in", b"in".to_vec()),
        ("s/c/new", b"new".to_vec()),
        ("s/else/sub/deep", b"deep".to_vec()),
        ("s/out", content(11)),
    ] {
        assert_eq!(world.read_path(path).await, bytes, "{path}");
    }
    assert!(world.library.vfs.conflicts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_move_is_still_in_the_way_of_waits_for_it_or_is_busy() {
    let world = world();
    world.rename_and_hold().await;
    let refused = world.make_directory("s/a").await;
    assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
    let being_brought = world.remove("s/b/00").await;
    assert!(matches!(being_brought, Err(Error::Busy)), "{being_brought:?}");
    let making = world.make_directory("s/a");
    let release = async {
        tokio::task::yield_now().await;
        world.shelf.set_cue(Cue::Does);
    };
    let (made, ()) = tokio::join!(making, release);
    made.unwrap();
    world.until_settled().await;
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["a", "b", "beside"]);
    assert!(world.names("s/a").await.is_empty());
    world.save_at("s/a/00", b"another").await;
    world.uploaded("a/00", b"another").await;
    world.is_whole_at("s/b").await;
}

/// It was taken for one that others had removed at the source, and its name was gone before anything could be written to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_being_made_meanwhile_stays() {
    let world = world();
    world.rename_and_hold().await;
    let directory = world.library.find("s/b").await.unwrap();
    let seen = SeenAttributes {
        kind: manifold_catalog::Kind::File,
        size: 0,
        modified_ns: 1,
        changed_ns: 1,
        created_ns: None,
        mode: 0o644,
        owner: None,
        links: 1,
        device: 0,
        version: (*b"made").into(),
        identity: None,
    };
    let child = NewChild {
        name: (*b"made").into(),
        raw_name: None,
        seen,
        adopt: None,
    };
    // As far as whoever makes it has come when the catalog has it.
    let made = world
        .library
        .catalog
        .create_staged(directory, child, &Keep::default(), false, b"row");
    let (id, _) = made.unwrap();
    world.shelf.set_cue(Cue::Does);
    while world.library.vfs.moved() < FILES + 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    loop {
        if let [report] = &world.library.vfs.moves()[..]
            && report.state == MoveState::Waiting
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.library.find("s/b/made").await.unwrap(), id);
    world.library.catalog.follow_removed(directory, b"made", 1).unwrap();
    world.until_settled().await;
    world.is_whole_at("s/b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_removed_on_the_way_stays_removed() {
    let world = world();
    // Or it would go with the last file in it, whether or not anybody removes it.
    world.shelf.place_directory("a");
    world.rename_and_hold().await;
    world.remove("s/b/sub/deep").await.unwrap();
    world.remove_directory("s/b/sub").await.unwrap();
    world.shelf.set_cue(Cue::Does);
    for number in 0..FILES {
        world.remove(&format!("s/b/{number:02}")).await.unwrap();
    }
    world.remove_directory("s/b").await.unwrap();
    world.until_settled().await;
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["beside"]);
    assert_eq!(world.shelf.files(), ["beside"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_refused_says_why_and_is_tried_again_when_told_to() {
    let world = world();
    world.names("s/a").await;
    world.library.find("s/a/sub/deep").await.unwrap();
    world.shelf.set_cue(Cue::Fails(ErrorKind::PermissionDenied));
    world.move_to("s/a", "s/b").await.unwrap();
    let remedy = loop {
        if let [report] = &world.library.vfs.moves()[..]
            && let MoveState::Refused { remedy, .. } = &report.state
        {
            break remedy.clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(remedy.contains("rename the folder back"), "{remedy}");
    assert!(matches!(&world.events.lock()[..], [UploadEvent::MoveRefused { .. }]));
    world.is_whole_at("s/b").await;
    world.shelf.set_cue(Cue::Does);
    assert_eq!(world.library.vfs.retry_uploads(), 1);
    world.until_settled().await;
    world.lies_only_beneath("b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_goes_back_where_it_came_from() {
    let world = world();
    world.rename_and_hold().await;
    world.move_to("s/b", "s/a").await.unwrap();
    world.shelf.set_cue(Cue::Does);
    world.until_settled().await;
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["a", "beside"]);
    world.lies_only_beneath("a");
    world.is_whole_at("s/a").await;
    assert!(world.library.vfs.conflicts().is_empty());
    let shelf = Arc::clone(&world.shelf);
    assert!(shelf.bytes("b/00").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_somebody_has_made_takes_the_object_along_that_keeps_it() {
    let world = world();
    for made in ["s/out", "s/out/in", "s/out/with"] {
        world.make_directory(made).await.unwrap();
    }
    world.save_at("s/out/with/file", b"file").await;
    world.uploaded("out/with/file", b"file").await;
    world.move_to("s/out", "s/there").await.unwrap();
    world.until_settled().await;
    for path in ["s", "s/there", "s/there/in", "s/there/with"] {
        world.library.relist(path).await;
    }
    assert_eq!(world.names("s").await, ["a", "beside", "there"]);
    assert_eq!(world.names("s/there").await, ["in", "with"]);
    world.remove("s/there/with/file").await.unwrap();
    world.library.relist("s/there").await;
    assert_eq!(world.names("s/there").await, ["in", "with"]);
    for empty in ["s/there/in", "s/there/with"] {
        world.remove_directory(empty).await.unwrap();
    }
    world.library.relist("s").await;
    assert_eq!(world.names("s").await, ["a", "beside", "there"]);
    assert!(world.names("s/there").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_nobody_has_made_gets_no_object_of_its_own() {
    let world = world();
    world.names("s/a").await;
    world.move_to("s/a", "s/b").await.unwrap();
    world.until_settled().await;
    for path in ["b", "b/sub"] {
        assert!(!world.shelf.has_object(path), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_on_who_was_not_told_yet_that_its_file_lies_elsewhere() {
    let world = world();
    world.rename_and_hold().await;
    let id = world.library.find("s/b/00").await.unwrap();
    let reader = world.open("s/b/00", Access::Read).await;
    // As far as whoever brings it has come when the catalog has taken it in.
    world.shelf.place("b/00", &content(0));
    let Presence::Found(copy) = world.shelf.stat(&ObjectPath::from_bytes("b/00")).await.unwrap() else {
        panic!("it was put there");
    };
    let version = world.library.catalog.details(id).unwrap().unwrap().version;
    let copied = Copied {
        id,
        lies_at: b"b/00".to_vec(),
        left: Some((b"a/00".to_vec(), version.to_vec())),
        seen: Some(seen_attributes(&copy)),
    };
    assert!(world.library.catalog.note_copied(&copied).unwrap());
    assert_eq!(world.read(reader).await.unwrap(), content(0));
    world.shelf.set_cue(Cue::Does);
    world.until_settled().await;
    world.lies_only_beneath("b");
    world.is_whole_at("s/b").await;
}
