//! Puts in parts that are broken off and taken up, at a store that takes note of what reaches it.

use std::collections::BTreeMap;
use std::io;

use md5::{Digest as _, Md5};
use parking_lot::{Condvar, Mutex};

use super::*;
use crate::{PartLog, PartUpload, SentPart};

const PART: u64 = 8 << 20;
const SIZE: u64 = 3 * PART + 5;

/// What the store is told to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Does,
    /// Finds that the parts do not fit together.
    FitsNothing,
    /// Refuses to end anything.
    EndsNothing,
}

#[derive(Default)]
struct State {
    mood: Mood,
    count: u32,
    /// The parts of each upload, by number.
    uploads: BTreeMap<String, BTreeMap<u32, String>>,
    objects: BTreeMap<String, String>,
    /// The numbers of the parts that have arrived.
    arrived: Vec<u32>,
    /// Every method, with what was asked of an upload.
    asked: Vec<String>,
}

/// A bucket with one name in it.
#[derive(Clone, Default)]
struct Bucket(Arc<Mutex<State>>);

fn error(status: u16, code: &str) -> Said {
    (
        status,
        vec![],
        format!("<Error><Code>{code}</Code></Error>").into_bytes(),
    )
}

fn tag(bytes: &str) -> String {
    let sum = Md5::digest(bytes.as_bytes());
    let hex = sum.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    });
    format!("\"{hex}\"")
}

impl Bucket {
    fn backend(&self) -> OpendalBackend {
        let bucket = self.clone();
        Self::behind(move |asked| bucket.answer(asked))
    }

    /// A way to it on which no other parts arrive than those of these letters, whenever they come. None is refused before these are
    /// noted.
    fn backend_that_takes(&self, letters: &'static [u8], notes: Option<&Arc<Notes>>) -> OpendalBackend {
        let (bucket, notes) = (self.clone(), notes.map(Arc::clone));
        Self::behind(move |asked| {
            let is_part = asked.method == "PUT" && asked.target.contains("partNumber=");
            if is_part && !is_of(letters, &asked.body) {
                if let Some(notes) = &notes {
                    notes.until_there_are(letters.len());
                }
                return error(503, "ServiceUnavailable");
            }
            bucket.answer(asked)
        })
    }

    fn behind(answer: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> OpendalBackend {
        let settings = BTreeMap::from([
            ("endpoint".to_owned(), serve(answer)),
            ("anonymous".to_owned(), "true".to_owned()),
        ]);
        let spec = SourceSpec::parse("s3://bucket", &settings).expect("a good source");
        OpendalBackend::build(&spec, &Secrets::new(), &Limits::default(), None).expect("a backend")
    }

    fn answer(&self, asked: &Asked) -> Said {
        let mut state = self.0.lock();
        let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
        let value = |key: &str| {
            let found = query
                .split('&')
                .find_map(|pair| pair.strip_prefix(&format!("{key}=")))?;
            Some(
                percent_encoding::percent_decode_str(found)
                    .decode_utf8()
                    .ok()?
                    .into_owned(),
            )
        };
        if query.contains("ploads") || query.contains("uploadId") {
            state.asked.push(asked.method.clone());
        }
        match (&*asked.method, value("uploadId"), value("partNumber")) {
            ("POST", None, _) => {
                state.count += 1;
                let id = format!("a/<&>+{}", state.count);
                state.uploads.insert(id, BTreeMap::new());
                let escaped = format!("a/&lt;&amp;&gt;+{}", state.count);
                let body = format!(
                    "<InitiateMultipartUploadResult><UploadId>{escaped}</UploadId></InitiateMultipartUploadResult>"
                );
                (200, vec![], body.into_bytes())
            }
            ("PUT", Some(id), Some(number)) => {
                let number = number.parse().expect("a number");
                let tag = tag(&asked.body);
                let Some(upload) = state.uploads.get_mut(&id) else {
                    return error(404, "NoSuchUpload");
                };
                upload.insert(number, asked.body.clone());
                state.arrived.push(number);
                (200, vec![("ETag", tag)], vec![])
            }
            ("POST", Some(id), _) => {
                if state.mood == Mood::FitsNothing {
                    state.mood = Mood::Does;
                    return error(400, "InvalidPart");
                }
                let Some(parts) = state.uploads.remove(&id) else {
                    return error(404, "NoSuchUpload");
                };
                for part in parts.values() {
                    assert!(asked.body.contains(tag(part).trim_matches('"')), "{}", asked.body);
                }
                let bytes = parts.into_values().collect::<String>();
                let tag = format!("\"whole-{}\"", bytes.len());
                state.objects.insert(path.to_owned(), bytes);
                let body = format!("<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>");
                (200, vec![], body.into_bytes())
            }
            ("DELETE", Some(_), _) if state.mood == Mood::EndsNothing => error(403, "AccessDenied"),
            ("DELETE", Some(id), _) => match state.uploads.remove(&id) {
                Some(_) => (204, vec![], vec![]),
                None => error(404, "NoSuchUpload"),
            },
            ("PUT", None, _) => {
                state.objects.insert(path.to_owned(), asked.body.clone());
                (200, vec![("ETag", tag(&asked.body))], vec![])
            }
            ("HEAD", ..) => match state.objects.get(path) {
                Some(bytes) => {
                    let headers = vec![
                        ("ETag", format!("\"whole-{}\"", bytes.len())),
                        ("Last-Modified", "Tue, 02 Jan 2024 03:04:05 GMT".to_owned()),
                        ("Content-Length", bytes.len().to_string()),
                    ];
                    (200, headers, vec![])
                }
                None => error(404, "NoSuchKey"),
            },
            _ => {
                let empty = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
                (200, vec![], empty.as_bytes().to_vec())
            }
        }
    }

    fn set(&self, mood: Mood) {
        self.0.lock().mood = mood;
    }

    fn begun(&self) -> usize {
        self.0.lock().uploads.len()
    }

    /// Gives the numbers of the parts that have arrived since it was asked the last time.
    fn arrived(&self) -> Vec<u32> {
        let mut arrived = std::mem::take(&mut self.0.lock().arrived);
        arrived.sort_unstable();
        arrived
    }

    fn ended(&self) -> usize {
        self.0.lock().asked.iter().filter(|method| *method == "DELETE").count()
    }

    fn holds(&self, text: &Text) {
        let state = self.0.lock();
        assert!(state.objects.get("/bucket/file") == Some(&text.all()), "other bytes");
        assert!(state.uploads.is_empty());
    }
}

/// Remembers parts for as long as the test lives.
#[derive(Debug, Default)]
pub(super) struct Notes {
    upload: Mutex<Option<PartUpload>>,
    noted: Condvar,
    refuses: bool,
}

#[async_trait]
impl PartLog for Notes {
    async fn broken_off(&self) -> io::Result<Option<PartUpload>> {
        Ok(self.upload.lock().clone())
    }

    async fn begun(&self, id: &str) -> io::Result<()> {
        if self.refuses {
            return Err(io::Error::other("no room"));
        }
        let id = id.to_owned();
        *self.upload.lock() = Some(PartUpload { id, parts: vec![] });
        Ok(())
    }

    async fn sent(&self, part: SentPart) -> io::Result<()> {
        self.upload.lock().as_mut().expect("it has begun").parts.push(part);
        self.noted.notify_all();
        Ok(())
    }

    async fn ended(&self) -> io::Result<()> {
        *self.upload.lock() = None;
        Ok(())
    }
}

impl Notes {
    pub(super) fn left(&self) -> Option<PartUpload> {
        self.upload.lock().clone()
    }

    /// Waits until so many parts are noted.
    pub(super) fn until_there_are(&self, parts: usize) {
        let mut upload = self.upload.lock();
        let are_there = |upload: &Option<PartUpload>| upload.as_ref().is_some_and(|it| it.parts.len() >= parts);
        self.noted.wait_while(&mut upload, |upload| !are_there(upload));
    }

    pub(super) fn forget(&self) {
        *self.upload.lock() = None;
    }

    pub(super) fn numbers(&self) -> Vec<u32> {
        let upload = self.upload.lock();
        let parts = upload.iter().flat_map(|upload| &upload.parts);
        let mut numbers: Vec<_> = parts.map(|part| part.number).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// Tells whether a part has one of these letters.
pub(super) fn is_of(letters: &[u8], part: &str) -> bool {
    part.bytes().next().is_some_and(|letter| letters.contains(&letter))
}

/// Letters, another one in each part.
#[derive(Clone)]
pub(super) struct Text {
    pub(super) letters: [u8; 4],
    notes: Option<Arc<Notes>>,
}

impl Text {
    pub(super) fn noted(notes: &Arc<Notes>) -> Self {
        Self {
            letters: *b"abcd",
            notes: Some(Arc::clone(notes)),
        }
    }

    pub(super) fn all(&self) -> String {
        let letter = |at: u64| char::from(self.letters[(at / PART) as usize]);
        (0..SIZE).map(letter).collect()
    }
}

#[async_trait]
impl Body for Text {
    fn size(&self) -> u64 {
        SIZE
    }

    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let letters = range.map(|at| self.letters[(at / PART) as usize]);
        Ok(letters.collect::<Vec<_>>().into())
    }

    fn parts(&self) -> Option<Arc<dyn PartLog>> {
        let notes = self.notes.as_ref()?;
        Some(Arc::<Notes>::clone(notes))
    }
}

pub(super) async fn put(backend: &OpendalBackend, text: &Text) -> Result<Metadata> {
    backend
        .put(&ObjectPath::from_bytes("file"), text, &Expected::Absent)
        .await
}

/// Breaks a put off of which two parts have arrived.
async fn break_off(bucket: &Bucket, notes: &Arc<Notes>) {
    let backend = bucket.backend_that_takes(b"ab", Some(notes));
    put(&backend, &Text::noted(notes)).await.expect_err("it is broken off");
    assert_eq!((bucket.arrived(), notes.numbers()), (vec![1, 2], vec![1, 2]));
    assert_eq!((bucket.begun(), bucket.ended()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_was_broken_off_is_taken_up_and_no_part_is_sent_twice() {
    let (bucket, notes) = (Bucket::default(), Arc::default());
    break_off(&bucket, &notes).await;
    let metadata = put(&bucket.backend(), &Text::noted(&notes)).await.expect("it is put");
    assert_eq!(metadata.size, SIZE);
    assert_eq!(bucket.arrived(), [3, 4]);
    bucket.holds(&Text::noted(&notes));
    assert_eq!((notes.upload.lock().clone(), bucket.ended()), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_other_bytes_is_sent_though_one_of_its_number_was_confirmed() {
    let (bucket, notes) = (Bucket::default(), Arc::default());
    let backend = bucket.backend();
    break_off(&bucket, &notes).await;
    let mut text = Text::noted(&notes);
    text.letters[0] = b'x';
    put(&backend, &text).await.expect("it is put");
    assert_eq!(bucket.arrived(), [1, 3, 4]);
    bucket.holds(&text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_the_store_has_forgotten_begins_anew_at_once() {
    let (bucket, notes) = (Bucket::default(), Arc::default());
    let backend = bucket.backend();
    break_off(&bucket, &notes).await;
    bucket.0.lock().uploads.clear();
    put(&backend, &Text::noted(&notes)).await.expect("it is put");
    assert_eq!(bucket.arrived(), [1, 2, 3, 4]);
    bucket.holds(&Text::noted(&notes));
    assert_eq!(notes.upload.lock().clone(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_do_not_fit_together_are_taken_back_and_sent_anew() {
    let (bucket, notes) = (Bucket::default(), Arc::default());
    let backend = bucket.backend();
    break_off(&bucket, &notes).await;
    bucket.set(Mood::FitsNothing);
    put(&backend, &Text::noted(&notes)).await.expect("it is put");
    assert_eq!(bucket.ended(), 1);
    bucket.holds(&Text::noted(&notes));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_of_which_the_answer_was_lost_is_not_made_twice() {
    let (bucket, notes) = (Bucket::default(), Arc::default());
    let backend = bucket.backend();
    break_off(&bucket, &notes).await;
    // As if the one before had made the object after all.
    let made = notes.upload.lock().clone();
    put(&backend, &Text::noted(&notes)).await.expect("it is put");
    *notes.upload.lock() = made;
    bucket.arrived();
    let refused = put(&backend, &Text::noted(&notes)).await.expect_err("it is there");
    assert_eq!((refused.kind(), bucket.arrived()), (ErrorKind::Conflict, vec![]));
    bucket.holds(&Text::noted(&notes));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_that_could_not_be_noted_and_what_nobody_remembers_is_taken_back() {
    let bucket = Bucket::default();
    let backend = bucket.backend();
    let notes = Arc::new(Notes {
        refuses: true,
        ..Notes::default()
    });
    put(&backend, &Text::noted(&notes)).await.expect_err("it is not put");
    assert_eq!((bucket.arrived(), bucket.begun(), bucket.ended()), (vec![], 0, 1));
    let text = Text {
        letters: *b"abcd",
        notes: None,
    };
    put(&bucket.backend_that_takes(b"ab", None), &text)
        .await
        .expect_err("it is broken off");
    assert_eq!((bucket.begun(), bucket.ended()), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_ended_by_its_name_and_nothing_else_is_asked_for() {
    let (bucket, notes) = (Bucket::default(), Arc::<Notes>::default());
    let backend = bucket.backend();
    break_off(&bucket, &notes).await;
    let upload = notes.upload.lock().clone().expect("it was noted");
    let path = ObjectPath::from_bytes("file");
    bucket.set(Mood::EndsNothing);
    let refused = backend.give_up(&path, &upload.id).await.expect_err("it is refused");
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    bucket.set(Mood::Does);
    bucket.0.lock().asked.clear();
    let ended = backend.give_up(&path, &upload.id).await.expect("it is ended");
    assert_eq!((ended, bucket.begun()), (Presence::Found(()), 0));
    assert_eq!(bucket.0.lock().asked, ["DELETE"]);
    let again = backend.give_up(&path, &upload.id).await.expect("it is known");
    assert_eq!(again, Presence::Absent);
    assert!(bucket.0.lock().objects.is_empty());
}
