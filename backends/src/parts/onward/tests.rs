use std::convert::Infallible;

use async_trait::async_trait;
use futures::stream;

use super::*;
use crate::PartUpload;

const NAME: &str = ".manifold-0123456789abcdef0123456789abcdef";
/// The length of parts here.
const PART: u64 = 1000;
const SIZE: u64 = 2 * PART + 7;
/// A piece, of which several make a part.
const PIECE: u64 = PART / 2;

/// Remembers parts for as long as the test lives.
#[derive(Debug, Default)]
struct Notes {
    left: Mutex<Option<PartUpload>>,
    noted: watch::Sender<usize>,
}

#[async_trait]
impl PartLog for Notes {
    async fn broken_off(&self) -> io::Result<Option<PartUpload>> {
        Ok(self.left.lock().clone())
    }

    async fn begun(&self, id: &str) -> io::Result<()> {
        let id = id.to_owned();
        *self.left.lock() = Some(PartUpload { id, parts: vec![] });
        Ok(())
    }

    async fn sent(&self, part: SentPart) -> io::Result<()> {
        self.left.lock().as_mut().expect("it has begun").parts.push(part);
        self.noted.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn ended(&self) -> io::Result<()> {
        *self.left.lock() = None;
        Ok(())
    }
}

fn bytes() -> Bytes {
    (0..SIZE).map(|at| (at / 251) as u8).collect()
}

fn part(number: u32, bytes: &[u8]) -> SentPart {
    SentPart {
        number,
        length: bytes.len() as u64,
        sum: *blake3::hash(bytes).as_bytes().first_chunk().unwrap(),
        tag: String::new(),
    }
}

fn parts(bytes: &Bytes) -> Vec<SentPart> {
    (1..)
        .zip(bytes.chunks(PART as usize))
        .map(|(number, bytes)| part(number, bytes))
        .collect()
}

async fn begun(parts: Vec<SentPart>) -> Arc<Notes> {
    let notes = Arc::<Notes>::default();
    notes.begun(NAME).await.unwrap();
    notes.left.lock().as_mut().unwrap().parts = parts;
    notes
}

fn onward(notes: &Arc<Notes>, size: u64, left: Option<&Left>) -> Onward {
    let mut onward = Onward::new(Arc::<Notes>::clone(notes), size, left);
    onward.part = PART;
    onward
}

async fn left(parts: Vec<SentPart>) -> Left {
    let notes = begun(parts).await;
    Left::of(&*notes, SIZE).await.unwrap().expect("something is left")
}

#[tokio::test]
async fn what_is_left_is_gone_on_with_as_far_as_it_has_no_gap_where_the_bytes_at_hand_are_the_same() {
    let bytes = bytes();
    let all = parts(&bytes);
    for (there, end) in [
        (&[0, 1, 2][..], SIZE),
        (&[1, 0], 2 * PART),
        (&[0, 2], PART),
        (&[1, 2], 0),
        (&[], 0),
    ] {
        let left = left(there.iter().map(|at| all[*at].clone()).collect()).await;
        assert_eq!(left.end(), end, "{there:?}");
        assert_eq!(left.is_of(&bytes).await.unwrap(), end > 0, "{there:?}");
        assert_eq!((left.may_be(end), left.may_be(SIZE + 1)), (true, false));
        assert!(end == 0 || !left.may_be(end - 1));
        let last = left.last().map(|(range, sum)| (range.end, sum));
        let expected = there.len().checked_sub(1).filter(|_| end > 0);
        assert_eq!(last.is_some(), expected.is_some(), "{there:?}");
    }
    let mut others = all.clone();
    others[1].sum[0] ^= 1;
    assert!(!left(others).await.is_of(&bytes).await.unwrap());
}

#[tokio::test]
async fn what_another_kind_of_source_has_left_or_a_longer_file_is_not_gone_on_with() {
    let notes = begun(parts(&bytes())).await;
    let shorter = Left::of(&*notes, PART + 1).await.unwrap().expect("something is left");
    assert_eq!(shorter.end(), PART);
    notes.left.lock().as_mut().unwrap().id = "upload/of/a/store".to_owned();
    assert!(Left::of(&*notes, SIZE).await.unwrap().is_none());
}

/// Sends one piece after the other, of which those that arrive do so in that order.
async fn send(onward: &Onward, bytes: &Bytes, order: &[usize]) {
    let pieces: Vec<_> = (onward.start()..SIZE)
        .step_by(PIECE as usize)
        .map(|start| start..SIZE.min(start + PIECE))
        .collect();
    for range in &pieces {
        let piece = bytes.slice(range.start as usize..range.end as usize);
        onward.sum(range.start, &piece).await;
    }
    for at in order {
        onward.arrived(pieces[*at].clone());
    }
}

#[tokio::test]
async fn a_part_is_noted_when_all_before_its_end_has_arrived() {
    let bytes = bytes();
    let all = parts(&bytes);
    for (order, count) in [
        (&[0, 1][..], 1),
        (&[1, 2, 3, 4], 0),
        (&[1, 2, 3, 0], 2),
        (&[4, 0, 2, 1], 1),
        (&[4, 3, 2, 1, 0], 3),
    ] {
        let notes = begun(vec![]).await;
        let onward = onward(&notes, SIZE, None);
        send(&onward, &bytes, order).await;
        onward.synced().await;
        assert_eq!(notes.left.lock().as_ref().unwrap().parts, all[..count], "{order:?}");
    }
}

#[tokio::test]
async fn one_that_goes_on_notes_what_follows_and_ends_at_the_same_places() {
    let bytes = bytes();
    let all = parts(&bytes);
    let left = left(all[..1].to_vec()).await;
    let notes = begun(all[..1].to_vec()).await;
    let onward = onward(&notes, SIZE, Some(&left));
    assert_eq!(onward.start(), PART);
    assert_eq!(
        [PART, 2 * PART - 1, 2 * PART].map(|at| onward.part_end(at)),
        [2 * PART, 2 * PART, SIZE]
    );
    send(&onward, &bytes, &[0, 1, 2]).await;
    onward.synced().await;
    assert_eq!(notes.left.lock().as_ref().unwrap().parts, all);
}

#[tokio::test]
async fn nothing_is_noted_that_the_source_has_not_brought_to_its_disk() {
    let (bytes, notes) = (bytes(), begun(vec![]).await);
    let onward = onward(&notes, SIZE, None);
    send(&onward, &bytes, &[0, 1, 2, 3, 4]).await;
    // Nothing else is said to it after that.
    let pieces = stream::iter([Ok(()), Ok(())]).chain(stream::pending());
    let written = write(Some(&onward), pieces, || std::future::ready(Err("the disk has failed"))).await;
    assert_eq!(written, Err("the disk has failed"));
    assert_eq!(notes.left.lock().as_ref().unwrap().parts, []);
}

#[tokio::test]
async fn a_put_does_not_end_before_the_source_has_answered() {
    let (bytes, notes) = (bytes(), begun(vec![]).await);
    let onward = onward(&notes, SIZE, None);
    send(&onward, &bytes, &[0, 1]).await;
    let answers = || async {
        tokio::task::yield_now().await;
        Err("the disk has failed")
    };
    let written = write(Some(&onward), stream::iter([Ok(())]), answers).await;
    assert_eq!(written, Err("the disk has failed"));
}

/// Counts how often a source is asked to bring bytes to its disk that takes so long for it, while a part arrives each second.
async fn asked(takes: Duration) -> usize {
    const COUNT: u64 = 40;
    let notes = begun(vec![]).await;
    let size = COUNT * PART;
    let onward = onward(&notes, size, None);
    let (piece, asked) = (Bytes::from(vec![0; PART as usize]), Mutex::new(0));
    let pieces = stream::iter((0..size).step_by(PART as usize)).then(|start| {
        let (onward, piece) = (&onward, &piece);
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            onward.sum(start, piece).await;
            onward.arrived(start..start + PART);
            Ok::<_, Infallible>(())
        }
    });
    let sync = || {
        *asked.lock() += 1;
        async {
            tokio::time::sleep(takes).await;
            Ok(())
        }
    };
    write(Some(&onward), pieces, sync).await.unwrap();
    onward.synced().await;
    assert_eq!(notes.left.lock().as_ref().unwrap().parts.len() as u64, COUNT);
    asked.into_inner()
}

#[tokio::test(start_paused = true)]
async fn a_source_that_takes_its_time_is_asked_the_more_seldom() {
    assert_eq!(asked(Duration::ZERO).await, 40);
    let seldom = asked(Duration::from_secs(1)).await;
    assert!((10..=20).contains(&seldom), "{seldom} times");
}

#[test]
fn parts_are_as_long_as_the_file_needs() {
    for (size, part) in [
        (super::PART + 1, super::PART),
        (super::PART * PARTS_MAX, super::PART),
        (super::PART * PARTS_MAX + 1, 2 * super::PART),
    ] {
        assert_eq!(part_of(size), part, "{size}");
    }
    assert!(u64::MAX / part_of(u64::MAX) <= PARTS_MAX);
}
