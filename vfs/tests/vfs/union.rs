//! Unions: several sources shown as one tree, and changed as one.

mod changing;
mod model;
mod placing;
mod turns;

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crate::library::Library;
use crate::scripted::{Mood, Scripted};
use crate::shelf::{Cue, Shelf};
use manifold_backends::local::LocalBackend;
use manifold_backends::{Backend, ErrorKind};
use manifold_catalog::Kind;
use manifold_vfs::{
    Access, AttributeChange, Attributes, Creation, Cursor, Durable, EntryId, Error, Event, EventStream, NameMatch,
    Placement, Received, RenameMode, Requester, Settings, SourceId, Union, WriteAt, WritePolicy, WriteSettings,
    Writing,
};
use tempfile::TempDir;

const ME: Requester = Requester {
    uid: 0,
    gid: 0,
    pid: 1,
    umask: 0o022,
};
const NEW: Creation = Creation {
    mode: 0o644,
    access: Access::ReadWrite,
    exclusive: true,
};

fn union() -> Union {
    Union {
        at: b"/u".to_vec(),
        order: Vec::new(),
        place: Placement::First,
        min_free: 0,
        rules: Vec::new(),
    }
}

/// Two folders and a remote source, attached at `/u/a`, `/u/b` and `/u/s`, and shown as one at `/u`.
struct World {
    library: Library,
    a: TempDir,
    b: TempDir,
    shelf: Arc<Shelf>,
}

impl World {
    fn new(fill: impl FnOnce(&TempDir, &TempDir, &Shelf)) -> Self {
        Self::with(Settings::default(), fill)
    }

    fn with(settings: Settings, fill: impl FnOnce(&TempDir, &TempDir, &Shelf)) -> Self {
        let (a, b, shelf) = (TempDir::new().unwrap(), TempDir::new().unwrap(), Shelf::new());
        fill(&a, &b, &shelf);
        Self::over(TempDir::new().unwrap(), a, b, shelf, settings)
    }

    fn over(folder: TempDir, a: TempDir, b: TempDir, shelf: Arc<Shelf>, settings: Settings) -> Self {
        let local = |folder: &TempDir| -> Arc<dyn Backend> { Arc::new(LocalBackend::open(folder.path()).unwrap()) };
        let sources = [
            ("u/a", local(&a)),
            ("u/b", local(&b)),
            ("u/s", Arc::clone(&shelf) as Arc<dyn Backend>),
        ];
        let library = Library::reopen(folder, &sources, settings);
        let now_ns = Arc::clone(&library.now_ns);
        let settings = WriteSettings {
            folder: library.folder.path().join("staging"),
            bytes: 64 << 20,
            host: "desk".to_owned(),
            clock: Arc::new(move || now_ns.fetch_add(1_000_000, std::sync::atomic::Ordering::SeqCst)),
            listener: Arc::new(|_| {}),
            policies: HashMap::new(),
        };
        library.vfs.accept_writes(settings).unwrap();
        library.vfs.set_unions(vec![union()]).unwrap();
        let world = Self { library, a, b, shelf };
        world.library.vfs.set_write_policy(world.source("s"), WritePolicy::Back);
        world
    }

    async fn reopened(self) -> Self {
        let folder = self.library.die().await;
        Self::over(folder, self.a, self.b, self.shelf, Settings::default())
    }

    fn source(&self, member: &str) -> SourceId {
        let attach = format!("/u/{member}").into_bytes();
        let sources = self.library.catalog.sources().unwrap();
        sources.into_iter().find(|it| it.attach == attach).unwrap().id
    }

    async fn find(&self, path: &str) -> Result<EntryId, Error> {
        self.library.find(&format!("u/{path}")).await
    }

    async fn attributes(&self, path: &str) -> Attributes {
        let id = self.find(path).await.unwrap();
        self.library.vfs.attributes(id, None).wait().await.unwrap()
    }

    /// Finds the directory of a path, and the last name.
    async fn place<'a>(&self, path: &'a str) -> (EntryId, &'a [u8]) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.find(directory).await.unwrap(), name.as_bytes())
    }

    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let (directory, name) = self.place(path).await;
        let vfs = &self.library.vfs;
        let handle = vfs.create(directory, name, NEW, ME).wait().await?.opened.handle;
        let writing = Writing {
            at: WriteAt::Offset(0),
            durable: Durable::Later,
            keep_privileges: true,
        };
        vfs.write(handle, bytes, writing).wait().await?;
        vfs.flush(handle).wait().await?;
        vfs.release(handle);
        Ok(())
    }

    async fn make_directory(&self, path: &str) -> Result<Attributes, Error> {
        let (directory, name) = self.place(path).await;
        self.library.vfs.make_directory(directory, name, 0o755, ME).wait().await
    }

    async fn read(&self, path: &str) -> Vec<u8> {
        let file = self.library.open(&format!("u/{path}")).await;
        let bytes = self.library.read(&file, 0, 1 << 20).await.unwrap().to_vec();
        self.library.vfs.release(file.handle);
        bytes
    }

    async fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), Error> {
        let (from, to) = (self.place(from).await, self.place(to).await);
        self.library.vfs.rename(from, to, mode).wait().await
    }

    async fn unlink(&self, path: &str) -> Result<(), Error> {
        let (directory, name) = self.place(path).await;
        self.library.vfs.remove_file(directory, name).wait().await
    }

    async fn rmdir(&self, path: &str) -> Result<(), Error> {
        let (directory, name) = self.place(path).await;
        self.library.vfs.remove_directory(directory, name).wait().await
    }

    /// Lists a directory through a handle, and compares each item with what a look-up says.
    async fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        let (vfs, id) = (&self.library.vfs, self.find(path).await?);
        let handle = vfs.open_directory(id).wait().await?;
        let mut items = Vec::new();
        vfs.read_directory(handle, Cursor::Offset(0), &mut |item| {
            items.push((item.name.to_vec(), item.attributes.clone()));
            std::ops::ControlFlow::Continue(())
        })?;
        vfs.release_directory(handle);
        let mut names = Vec::new();
        for (name, attributes) in items {
            let (found, mut looked_up) = vfs.lookup(id, &name, NameMatch::Exact).wait().await?;
            // An upload may have ended since it was listed, and with it the doubt about what the file will look like.
            looked_up.volatile |= attributes.volatile;
            assert_eq!((&*found, looked_up), (name.as_slice(), attributes), "{path}");
            names.push(String::from_utf8(name).unwrap());
        }
        Ok(names)
    }

    /// Has a member's directory listed anew.
    async fn relist(&self, path: &str) {
        let directory = self.library.catalog.resolve(format!("/u/{path}").as_bytes());
        let directory = directory.unwrap().unwrap().id;
        // The first may have begun before now.
        for _ in 0..2 {
            self.library.indexer.list_now(directory).await.unwrap();
        }
    }

    /// Waits until the sources have what was written, and what gave way to it is taken away there.
    async fn until_uploaded(&self) {
        let (vfs, catalog) = (&self.library.vfs, &self.library.catalog);
        while vfs.staging_usage().unwrap().files > 0 || !catalog.all_origins().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All that the kernel is told from now until nothing more comes.
    fn told(&self, events: &EventStream) -> Vec<Event> {
        self.library.vfs.settle(Duration::from_secs(20));
        let mut told = Vec::new();
        while let Received::Event(event) = events.receive(Duration::ZERO) {
            told.push(event);
        }
        told
    }
}

fn put(folder: &TempDir, path: &str, bytes: &str) {
    let path = folder.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn mixed() -> World {
    World::new(|a, b, shelf| {
        put(a, "both/from-a", "a");
        put(a, "both/twice", "first");
        put(b, "both/from-b", "b");
        put(b, "both/twice", "second");
        put(b, "only-b/deep/file", "deep");
        put(b, "odd/inside", "hidden");
        put(a, "odd", "a file");
        shelf.place("both/from-s", b"s");
        shelf.place("both/deeper/x", b"x");
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_member_has_by_now_is_found_by_a_look_all_the_way() {
    let world = World::new(|a, _, _| std::fs::create_dir_all(a.path().join("d/e")).unwrap());
    let way = [
        EntryId::ROOT,
        world.find("").await.unwrap(),
        world.find("d").await.unwrap(),
    ];
    let deepest = world.find("d/e").await.unwrap();
    for path in ["", "d", "d/e"] {
        let id = world.find(path).await.unwrap();
        world.library.vfs.open_directory(id).wait().await.unwrap();
    }
    world.shelf.place("d/e/new", b"x");
    assert!(matches!(world.find("d/e/new").await, Err(Error::NotFound)));
    world
        .library
        .vfs
        .look_in(&[&way[..], &[deepest]].concat())
        .await
        .unwrap();
    world.find("d/e/new").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_merged_and_of_two_files_the_first_members_is_shown() {
    let world = mixed();
    assert_eq!(world.list("").await.unwrap(), ["both", "odd", "only-b"]);
    assert_eq!(
        world.list("both").await.unwrap(),
        ["deeper", "from-a", "from-b", "from-s", "twice"]
    );
    assert_eq!(world.read("both/twice").await, b"first");
    assert_eq!(world.read("both/from-b").await, b"b");
    assert_eq!(world.read("both/from-s").await, b"s");
    assert_eq!(world.read("only-b/deep/file").await, b"deep");
    assert_eq!(world.attributes("odd").await.kind, Kind::File);
    assert!(matches!(world.find("both/none").await, Err(Error::NotFound)));
    // The members' own places are not shown.
    assert!(matches!(world.find("a").await, Err(Error::NotFound)));
    let path_of = |id| world.library.catalog.tree_path(id).unwrap().unwrap();
    let hidden = |id| {
        world
            .library
            .vfs
            .hidden_by(id)
            .unwrap()
            .into_iter()
            .map(path_of)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        hidden(world.find("both/twice").await.unwrap()),
        [b"/u/b/both/twice".to_vec()]
    );
    assert_eq!(hidden(world.find("odd").await.unwrap()), [b"/u/b/odd".to_vec()]);
    assert_eq!(hidden(world.find("both").await.unwrap()), Vec::<Vec<u8>>::new());
    let parts = world.library.vfs.parts(world.find("both").await.unwrap()).unwrap();
    let parts: Vec<_> = parts.into_iter().map(path_of).collect();
    assert_eq!(
        parts,
        [b"/u/a/both".to_vec(), b"/u/b/both".to_vec(), b"/u/s/both".to_vec()]
    );
    let fold = world
        .library
        .vfs
        .lookup(world.find("").await.unwrap(), b"BOTH", NameMatch::Fold);
    let (name, found) = fold.wait().await.unwrap();
    assert_eq!(
        (&*name, found.id),
        (b"both".as_slice(), world.find("both").await.unwrap())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn long_listings_are_read_in_pages_and_each_name_comes_once() {
    let world = World::new(|a, b, shelf| {
        for number in 0..700 {
            let name = format!("d/{number:04}");
            if number % 2 == 0 {
                put(a, &name, "a");
            }
            if number % 3 == 0 {
                put(b, &name, "b");
            }
            if number % 5 == 0 {
                shelf.place(&name, b"s");
            }
        }
    });
    let wanted: Vec<_> = (0..700)
        .filter(|it| it % 2 == 0 || it % 3 == 0 || it % 5 == 0)
        .map(|number| format!("{number:04}"))
        .collect();
    let (vfs, id) = (&world.library.vfs, world.find("d").await.unwrap());
    let handle = vfs.open_directory(id).wait().await.unwrap();
    for per_reply in [1, 7, 1000] {
        let (mut offset, mut names) = (0, Vec::new());
        loop {
            let before = names.len();
            vfs.read_directory(handle, Cursor::Offset(offset), &mut |item| {
                if names.len() == before + per_reply {
                    return std::ops::ControlFlow::Break(());
                }
                names.push(String::from_utf8(item.name.to_vec()).unwrap());
                offset = item.next_offset;
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
            if names.len() == before {
                break;
            }
        }
        assert_eq!(names, wanted, "{per_reply} at a time");
    }
    vfs.release_directory(handle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merged_directory_keeps_its_number_through_changes_and_restarts() {
    let world = mixed();
    world.list("both").await.unwrap();
    let root = world.find("").await.unwrap();
    let both = world.find("both").await.unwrap();
    let world = world.reopened().await;
    assert_eq!(
        (world.find("").await.unwrap(), world.find("both").await.unwrap()),
        (root, both)
    );
    // Whichever part is asked for, the whole answers.
    for member in ["a", "b", "s"] {
        let part = world.library.catalog.resolve(format!("/u/{member}/both").as_bytes());
        let part = part.unwrap().unwrap().id;
        let shown = world.library.vfs.attributes(part, None).wait().await.unwrap();
        assert_eq!(shown.id, both, "{member}");
        let inside = world.library.vfs.lookup(part, b"from-s", NameMatch::Exact).wait().await;
        assert_eq!(inside.unwrap().1.id, world.find("both/from-s").await.unwrap());
    }
    world.rename("both", "renamed", RenameMode::Replace).await.unwrap();
    assert_eq!(world.find("renamed").await.unwrap(), both);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_behind_the_mount_is_told_of_by_the_number_that_is_shown() {
    let world = mixed();
    world.list("both").await.unwrap();
    let both = world.find("both").await.unwrap();
    let events = world.library.vfs.subscribe();
    for (member, folder) in [("a", &world.a), ("b", &world.b)] {
        let name = format!("new-at-{member}");
        put(folder, &format!("both/{name}"), "new");
        world.relist(&format!("{member}/both")).await;
        let told = world.told(&events);
        let parent = both;
        let name = name.as_bytes().into();
        assert!(told.contains(&Event::Entry { parent, name }), "{member}: {told:?}");
        assert!(told.contains(&Event::Directory { id: both }), "{member}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_tell_is_not_answered_as_not_there() {
    let a = TempDir::new().unwrap();
    put(&a, "d/known", "known");
    let away = Scripted::new("test://away", 64 << 10, 1 << 20, 4);
    away.set_mood(Mood::Fails(ErrorKind::Unreachable));
    let local: Arc<dyn Backend> = Arc::new(LocalBackend::open(a.path()).unwrap());
    let library = Library::new(&[("u/a", local), ("u/z", Arc::clone(&away) as _)], Settings::default());
    library.vfs.set_unions(vec![union()]).unwrap();
    library.find("u/d/known").await.unwrap();
    let missing = library.find("u/d/none").await.unwrap_err();
    assert!(matches!(missing, Error::Unreachable(_)), "{missing}");
    let root = library.find("u").await.unwrap();
    let opened = library.vfs.open_directory(root).wait().await.unwrap_err();
    assert!(matches!(opened, Error::Unreachable(_)), "{opened}");
    let made = library
        .vfs
        .make_directory(root, b"new", 0o755, ME)
        .wait()
        .await
        .unwrap_err();
    assert!(matches!(made, Error::Unreachable(_)), "it may be there: {made}");
    // Once the first in the order is the one that is away, what is found elsewhere may be hidden by it.
    library
        .vfs
        .set_unions(vec![Union {
            order: vec![b"z".as_slice().into()],
            ..union()
        }])
        .unwrap();
    let d = library.find("u/d").await.unwrap();
    let events = library.vfs.subscribe();
    let known = library.find("u/d/known").await.unwrap();
    away.set_mood(Mood::Answers);
    let root_of_away = library.catalog.resolve(b"/u/z").unwrap().unwrap();
    library.indexer.probe(root_of_away.source).await;
    library.indexer.list_now(root_of_away.id).await.unwrap();
    library.vfs.settle(Duration::from_secs(20));
    let mut told = Vec::new();
    while let Received::Event(event) = events.receive(Duration::ZERO) {
        told.push(event);
    }
    let again = |parent, name: &[u8]| Event::Entry {
        parent,
        name: name.into(),
    };
    assert!(
        told.contains(&again(root, b"d")) && told.contains(&again(d, b"known")),
        "{told:?}"
    );
    assert_eq!(library.find("u/d/known").await.unwrap(), known);
    assert!(matches!(library.find("u/d/none").await, Err(Error::NotFound)));
}

/// What the kernel is told with a name, it judges by who may go in.
#[tokio::test(flavor = "multi_thread")]
async fn the_top_of_a_union_looks_alike_from_above_and_from_within() {
    let world = mixed();
    let (vfs, id) = (&world.library.vfs, world.find("").await.unwrap());
    for mode in [0o750, 0o700] {
        let change = AttributeChange {
            mode: Some(mode),
            ..AttributeChange::default()
        };
        // As a kernel does that is told that what it knows is old: the source may have been listed just now.
        let set = match vfs.set_attributes(id, None, change, ME).wait().await {
            Err(Error::Stale) => vfs.set_attributes(id, None, change, ME).wait().await,
            set => set,
        };
        set.unwrap();
        let within = vfs.attributes(id, None).wait().await.unwrap();
        assert_eq!(u32::from(within.mode), mode);
        let named = vfs.lookup(EntryId::ROOT, b"u", NameMatch::Exact).wait().await.unwrap();
        assert_eq!(named.1, within);
        let handle = vfs.open_directory(EntryId::ROOT).wait().await.unwrap();
        let mut listed = Vec::new();
        vfs.read_directory(handle, Cursor::Offset(0), &mut |item| {
            listed.push(item.attributes.clone());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        vfs.release_directory(handle);
        assert_eq!(listed, [within]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_come_and_go_join_and_leave() {
    let world = mixed();
    let events = world.library.vfs.subscribe();
    let c = TempDir::new().unwrap();
    put(&c, "both/from-c", "c");
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::open(c.path()).unwrap());
    let source = world.library.catalog.add_source(manifold_catalog::NewSource {
        name: backend.name().to_owned(),
        attach: b"/u/c".to_vec(),
        spec: String::new(),
        options: String::new(),
    });
    let source = source.unwrap();
    world.library.indexer.attach(source.id, backend);
    world.library.vfs.sources_changed().unwrap();
    assert!(world.told(&events).contains(&Event::Everything));
    assert!(world.list("both").await.unwrap().contains(&"from-c".to_owned()));
    world.library.indexer.detach(source.id);
    world
        .library
        .catalog
        .remove_source(source.id, manifold_catalog::WhenStaged::Refuse)
        .unwrap();
    world.library.vfs.sources_changed().unwrap();
    assert!(world.told(&events).contains(&Event::Everything));
    assert!(!world.list("both").await.unwrap().contains(&"from-c".to_owned()));
}
