//! Puts of large files that somebody remembers, to servers on which each is one file beside its place: they are broken off, and go
//! on. What travels is counted in bytes on the line.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use manifold_backends::{ErrorKind, Expected, Metadata, PartLog, PartUpload, Presence, SentPart, is_temporary_name};
use manifold_tests::servers::{Behind, Samba, Server, Sshd};
use tokio::sync::watch;

use crate::content::Content;
use crate::subject::{Subject, within};
use crate::writing::{MIB, done, path, refused};

const PART: u64 = 16 * MIB;
const SIZE: u64 = 4 * PART + 5;
/// Where it is broken off.
const BROKEN: u64 = 2 * PART + 3 * MIB;
/// What requests take besides the bytes of a file.
const REST: u64 = 2 * MIB;
/// What a put that was dropped has on its way, and that travels after it: a few pieces.
const ON_ITS_WAY: u64 = 4 * MIB;
/// The most that may travel where what was noted is not sent again: the first part is noted in any case.
const LEFT: u64 = SIZE - PART + ON_ITS_WAY + REST;

/// A server behind a line whose bytes are counted, and a backend over it.
pub(crate) struct Workplace {
    server: Arc<Behind>,
    subject: Subject,
}

impl Workplace {
    pub(crate) async fn smb() -> Self {
        Self::over("SMB", Samba::start()).await
    }

    pub(crate) async fn sftp() -> Self {
        Self::over("SFTP", Sshd::start()).await
    }

    async fn over(name: &'static str, server: impl Server + 'static) -> Self {
        let server = Arc::new(Behind::proxy(server));
        let subject = Subject::over(name, Arc::<Behind>::clone(&server)).await;
        Self { server, subject }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.subject.name()
    }

    /// Breaks a put off of which the beginning was noted.
    async fn break_off(&self, name: &str, content: Content, notes: &Arc<Notes>) {
        self.server.make_directory(directory(name).as_bytes());
        let (content, mut stop) = content.remembered(Arc::<Notes>::clone(notes)).stop_at(BROKEN);
        let (backend, object) = (Arc::clone(&self.subject.backend), path(name));
        let put = tokio::spawn(async move { backend.put(&object, &content, &Expected::Absent).await });
        within(stop.reached()).await;
        notes.until_noted().await;
        put.abort();
        assert!(within(put).await.is_err(), "it was put");
        assert_eq!(self.unfinished(name).len(), 1);
    }

    /// Puts it again, and makes sure that it is there and nothing else. Gives the bytes that travelled.
    async fn put(&self, name: &str, content: Content, notes: &Arc<Notes>) -> (u64, Metadata) {
        let before = self.server.line().taken();
        let content = content.remembered(Arc::<Notes>::clone(notes));
        let put = within(self.subject.backend.put(&path(name), &content, &Expected::Absent)).await;
        let metadata = done(put, name);
        assert_eq!(self.subject.stat(name.as_bytes()).await, metadata);
        self.holds(name, &content);
        assert!(self.unfinished(name).is_empty());
        assert_eq!(notes.left(), None);
        (self.server.line().taken() - before, metadata)
    }

    fn holds(&self, name: &str, content: &Content) {
        let there = fs::read(self.server.file(name.as_bytes())).expect("read");
        assert!(there == content.all(), "{name} holds other bytes");
    }

    /// Lists what lies unfinished beside a file.
    fn unfinished(&self, name: &str) -> Vec<PathBuf> {
        let listed = fs::read_dir(self.server.file(directory(name).as_bytes())).expect("list");
        let paths = listed.map(|item| item.expect("an entry").path());
        paths
            .filter(|path| is_temporary_name(path.file_name().expect("a name").as_encoded_bytes()))
            .collect()
    }
}

fn directory(name: &str) -> &str {
    name.rsplit_once('/').expect("it lies in a directory").0
}

/// Remembers parts for as long as the test lives.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    left: Mutex<Option<PartUpload>>,
    noted: watch::Sender<u64>,
}

impl Notes {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<PartUpload>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> Option<PartUpload> {
        self.lock().clone()
    }

    async fn until_noted(&self) {
        let mut noted = self.noted.subscribe();
        within(noted.wait_for(|noted| *noted > 0)).await.expect("it is there");
    }
}

#[async_trait::async_trait]
impl PartLog for Notes {
    async fn broken_off(&self) -> io::Result<Option<PartUpload>> {
        Ok(self.left())
    }

    async fn begun(&self, id: &str) -> io::Result<()> {
        let id = id.to_owned();
        *self.lock() = Some(PartUpload { id, parts: vec![] });
        Ok(())
    }

    async fn sent(&self, part: SentPart) -> io::Result<()> {
        // A put that was dropped may have a word left to say.
        if let Some(left) = self.lock().as_mut() {
            left.parts.push(part);
        }
        self.noted.send_modify(|noted| *noted += 1);
        Ok(())
    }

    async fn ended(&self) -> io::Result<()> {
        *self.lock() = None;
        Ok(())
    }
}

pub(crate) async fn a_put_that_was_dropped_goes_on(place: &Workplace) {
    let notes = Arc::<Notes>::default();
    place.break_off("dropped/file", Content::new(SIZE, 1), &notes).await;
    let (travelled, _) = place.put("dropped/file", Content::new(SIZE, 1), &notes).await;
    assert!(travelled < LEFT, "{travelled} bytes were sent");
}

pub(crate) async fn a_put_goes_on_after_the_server_was_killed(place: &Workplace) {
    let notes = Arc::<Notes>::default();
    place.break_off("killed/file", Content::new(SIZE, 2), &notes).await;
    place.server.kill9();
    place.server.restart();
    let again = Subject::over("the same", Arc::<Behind>::clone(&place.server)).await;
    let place = Workplace {
        server: Arc::clone(&place.server),
        subject: again,
    };
    let (travelled, _) = place.put("killed/file", Content::new(SIZE, 2), &notes).await;
    assert!(travelled < LEFT, "{travelled} bytes were sent");
}

pub(crate) async fn what_is_put_in_the_end_is_what_is_at_hand_then(place: &Workplace) {
    let notes = Arc::<Notes>::default();
    place.break_off("other/file", Content::new(SIZE, 3), &notes).await;
    place.put("other/file", Content::new(SIZE, 4), &notes).await;
    // And what is shorter.
    place.break_off("other/shorter", Content::new(SIZE, 3), &notes).await;
    place.put("other/shorter", Content::new(SIZE - 1, 3), &notes).await;
}

pub(crate) async fn a_put_that_was_sent_to_its_end_only_gets_its_name(place: &Workplace) {
    let (notes, name) = (Arc::<Notes>::default(), "named/file");
    place.server.make_directory(b"named");
    let server = Arc::clone(&place.server);
    let content = Content::new(SIZE, 5).remembered(Arc::<Notes>::clone(&notes));
    // Somebody else takes the name while it is sent.
    let content = content.when_read(SIZE - 1, move || server.put(name.as_bytes(), b"theirs"));
    let put = within(place.subject.backend.put(&path(name), &content, &Expected::Absent)).await;
    refused(put, ErrorKind::Conflict, "a put over what somebody has made");
    assert_eq!(fs::read(place.server.file(name.as_bytes())).expect("read"), b"theirs");
    place.server.remove(name.as_bytes());
    let (travelled, _) = place.put(name, Content::new(SIZE, 5), &notes).await;
    assert!(travelled < REST, "{travelled} bytes were sent");
}

pub(crate) async fn what_somebody_has_removed_or_spoilt_is_not_gone_on_with(place: &Workplace) {
    let notes = Arc::<Notes>::default();
    let spoil = |file: &PathBuf, way: &str| {
        let open = || OpenOptions::new().write(true).open(file).expect("open");
        match way {
            "removed" => fs::remove_file(file).expect("remove"),
            "shortened" => open().set_len(PART - 1).expect("shorten"),
            "longer" => open().set_len(SIZE + 1).expect("make it longer"),
            "changed" => {
                let end = notes_end(&notes);
                open().write_all_at(b"other", end - 5).expect("write");
            }
            _ => {
                fs::remove_file(file).expect("remove");
                fs::create_dir(file).expect("make a folder");
            }
        }
    };
    for (seed, way) in (10..).zip(["removed", "shortened", "longer", "changed", "folder"]) {
        let name = format!("{way}/file");
        place.break_off(&name, Content::new(SIZE, seed), &notes).await;
        let [file] = &place.unfinished(&name)[..] else {
            panic!("one is unfinished")
        };
        // What is on its way must not make it longer again.
        place.server.kill9();
        place.server.restart();
        spoil(file, way);
        let content = Content::new(SIZE, seed).remembered(Arc::<Notes>::clone(&notes));
        let before = place.server.line().taken();
        let put = within(place.subject.backend.put(&path(&name), &content, &Expected::Absent)).await;
        done(put, &name);
        place.holds(&name, &content);
        assert!(place.server.line().taken() - before >= SIZE, "{way}: it went on");
        let left = place.unfinished(&name);
        // A folder is not ours.
        assert_eq!(left.len(), usize::from(way == "folder"), "{way}: {left:?}");
        assert_eq!(notes.left(), None, "{way}");
    }
}

fn notes_end(notes: &Notes) -> u64 {
    let left = notes.left().expect("it was noted");
    left.parts.iter().map(|part| part.length).sum()
}

pub(crate) async fn what_nobody_will_go_on_with_is_removed(place: &Workplace) {
    let (notes, name) = (Arc::<Notes>::default(), "given-up/file");
    place.break_off(name, Content::new(SIZE, 20), &notes).await;
    place.server.put(b"given-up/other", b"other");
    let backend = &place.subject.backend;
    let left = notes.left().expect("it was noted");
    for (upload, expected) in [
        ("other", Presence::Absent),
        (&left.id, Presence::Found(())),
        (&left.id, Presence::Absent),
    ] {
        let ended = within(backend.give_up(&path(name), upload)).await;
        assert_eq!(done(ended, upload), expected, "{upload}");
    }
    let nowhere = within(backend.give_up(&path("nowhere/file"), &left.id)).await;
    assert_eq!(done(nowhere, "in no folder"), Presence::Absent);
    assert!(place.unfinished(name).is_empty());
    assert!(place.server.file(b"given-up/other").exists());
}

pub(crate) async fn what_is_not_large_is_not_remembered(place: &Workplace) {
    let notes = Arc::<Notes>::default();
    place.server.make_directory(b"small");
    let (content, mut stop) = Content::new(PART, 30)
        .remembered(Arc::<Notes>::clone(&notes))
        .stop_at(PART - 1);
    let backend = Arc::clone(&place.subject.backend);
    let put = tokio::spawn(async move { backend.put(&path("small/file"), &content, &Expected::Absent).await });
    within(stop.reached()).await;
    assert_eq!(notes.left(), None);
    stop.go();
    let metadata = done(within(put).await.expect("the put ends"), "small/file");
    assert_eq!(metadata.size, PART);
    assert_eq!(*notes.noted.borrow(), 0);
}
