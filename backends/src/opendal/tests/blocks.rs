//! Puts in blocks that are broken off and taken up, at an Azure of a few lines that takes note of what reaches it.

use parking_lot::Mutex;

use super::parts::{Notes, Text, is_of, put};
use super::*;
use crate::Presence;

#[derive(Default)]
struct State {
    /// The blocks of which nothing was made, by name.
    blocks: BTreeMap<String, String>,
    object: Option<String>,
    /// How many blocks have arrived.
    arrived: usize,
}

/// A container with one name in it.
#[derive(Clone, Default)]
struct Container(Arc<Mutex<State>>);

fn error(status: u16, code: &str) -> Said {
    let body = format!("<Error><Code>{code}</Code></Error>").into_bytes();
    (status, vec![("x-ms-error-code", code.to_owned())], body)
}

fn object(bytes: &str) -> Vec<(&'static str, String)> {
    vec![
        ("ETag", format!("\"0x{:X}\"", bytes.len())),
        ("Last-Modified", "Tue, 02 Jan 2024 03:04:05 GMT".to_owned()),
        ("x-ms-blob-type", "BlockBlob".to_owned()),
    ]
}

impl Container {
    fn backend(&self) -> OpendalBackend {
        let container = self.clone();
        Self::behind(move |asked| container.answer(asked))
    }

    /// A way to it on which no other blocks arrive than those of these letters, whenever they come. None is refused before these
    /// are noted.
    fn backend_that_takes(&self, letters: &'static [u8], notes: &Arc<Notes>) -> OpendalBackend {
        let (container, notes) = (self.clone(), Arc::clone(notes));
        Self::behind(move |asked| {
            let is_block = asked.method == "PUT" && asked.target.contains("blockid=");
            if is_block && !is_of(letters, &asked.body) {
                notes.until_there_are(letters.len());
                return error(503, "ServerBusy");
            }
            container.answer(asked)
        })
    }

    fn behind(answer: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> OpendalBackend {
        let settings = BTreeMap::from([
            ("endpoint".to_owned(), serve(answer)),
            ("account_name".to_owned(), "account".to_owned()),
            ("anonymous".to_owned(), "true".to_owned()),
        ]);
        let spec = SourceSpec::parse("azblob://files", &settings).expect("a good source");
        OpendalBackend::build(&spec, &Secrets::new(), &Limits::default(), None).expect("a backend")
    }

    fn answer(&self, asked: &Asked) -> Said {
        let mut state = self.0.lock();
        let (_, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
        let name = query.split('&').find_map(|pair| pair.strip_prefix("blockid="));
        match (&*asked.method, name) {
            ("PUT", Some(name)) => {
                let name = percent_encoding::percent_decode_str(name).decode_utf8().expect("UTF-8");
                state.blocks.insert(name.into_owned(), asked.body.clone());
                state.arrived += 1;
                (201, vec![], vec![])
            }
            ("PUT", None) => {
                let listed = asked.body.split("<Latest>").skip(1);
                let listed: Option<Vec<_>> = listed
                    .map(|piece| state.blocks.get(piece.split_once('<')?.0).cloned())
                    .collect();
                let Some(bytes) = listed.map(|blocks| blocks.concat()) else {
                    return error(400, "InvalidBlockList");
                };
                state.blocks.clear();
                let headers = object(&bytes);
                state.object = Some(bytes);
                (201, headers, vec![])
            }
            ("HEAD", _) => match &state.object {
                Some(bytes) => {
                    let length = ("Content-Length", bytes.len().to_string());
                    (200, [object(bytes), vec![length]].concat(), vec![])
                }
                None => error(404, "BlobNotFound"),
            },
            _ => {
                let empty = "<EnumerationResults><Blobs></Blobs><NextMarker/></EnumerationResults>";
                (200, vec![], empty.as_bytes().to_vec())
            }
        }
    }

    fn holds(&self, text: &Text) {
        assert!(self.0.lock().object.as_ref() == Some(&text.all()), "other bytes");
    }

    fn arrived(&self) -> usize {
        std::mem::take(&mut self.0.lock().arrived)
    }

    /// Breaks a put off of which two blocks have arrived.
    async fn break_off(&self, notes: &Arc<Notes>) {
        self.arrived();
        let broken = put(&self.backend_that_takes(b"ab", notes), &Text::noted(notes)).await;
        broken.expect_err("it is broken off");
        assert_eq!((self.arrived(), notes.numbers().len()), (2, 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_in_blocks_that_was_broken_off_is_taken_up_and_no_block_is_sent_twice() {
    let (container, notes) = (Container::default(), Arc::default());
    container.break_off(&notes).await;
    put(&container.backend(), &Text::noted(&notes))
        .await
        .expect("it is put");
    assert_eq!(container.arrived(), 2);
    container.holds(&Text::noted(&notes));
    assert_eq!(notes.left(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_whose_blocks_the_service_has_forgotten_begins_anew_at_once() {
    let (container, notes) = (Container::default(), Arc::default());
    container.break_off(&notes).await;
    container.0.lock().blocks.clear();
    put(&container.backend(), &Text::noted(&notes))
        .await
        .expect("it is put");
    assert_eq!(container.arrived(), 4 + 2);
    container.holds(&Text::noted(&notes));
    assert_eq!(notes.left(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_of_other_bytes_is_sent_and_blocks_of_the_same_bytes_are_each_what_they_are() {
    let (container, notes) = (Container::default(), Arc::default());
    container.break_off(&notes).await;
    let mut text = Text::noted(&notes);
    for letters in [*b"abxa", *b"bbbb"] {
        text.letters = letters;
        put(&container.backend(), &text).await.expect("it is put");
        container.holds(&text);
        container.0.lock().object = None;
        notes.forget();
        container.break_off(&notes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_of_the_service_to_give_a_put_in_blocks_up() {
    let (container, notes) = (Container::default(), Arc::<Notes>::default());
    container.break_off(&notes).await;
    let (path, upload) = (ObjectPath::from_bytes("file"), notes.left().expect("it was noted"));
    let ended = container
        .backend()
        .give_up(&path, &upload.id)
        .await
        .expect("it is ended");
    assert_eq!((ended, container.arrived()), (Presence::Found(()), 0));
    assert!(container.0.lock().object.is_none());
}
