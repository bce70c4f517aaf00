//! Words for puts that are sent in parts: what a source has of an object whose put was broken off, and who remembers that.
//!
//! Always true: what is remembered is only ever left out of what is sent where the very bytes are at hand that it stands for.

use std::fmt::Debug;
use std::io;

use async_trait::async_trait;

pub(crate) mod onward;

/// The beginning of a put that the source still has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartUpload {
    /// What the source calls it, or the name of the file beside the object's place. It belongs to the object's path.
    pub id: String,
    /// What of it has arrived, in any order.
    pub parts: Vec<SentPart>,
}

/// A part that the source has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentPart {
    /// Its number, from 1 on.
    pub number: u32,
    /// Its length in bytes.
    pub length: u64,
    /// The MD5 of its bytes; where it lies in one file with the others, the first half of their BLAKE3.
    pub sum: [u8; 16],
    /// What the source calls it when the parts are put together; nothing where it lies in one file with the others.
    pub tag: String,
}

/// Remembers what a source has of one object that is put in parts, so that a put that was broken off is taken up by the next.
///
/// A put that has one takes nothing back when it fails or is dropped: whoever remembers it either puts the same bytes to the
/// same path again, or has it given up ([`Backend::give_up`](crate::Backend::give_up)).
#[async_trait]
pub trait PartLog: Debug + Send + Sync {
    /// Gives what is left of an earlier put.
    async fn broken_off(&self) -> io::Result<Option<PartUpload>>;

    /// Notes that an upload begins, before anything of it is sent: durably, since the source keeps it, and what was sent, until
    /// somebody ends it. Where this fails nothing is sent.
    async fn begun(&self, id: &str) -> io::Result<()>;

    /// Notes that a part has arrived. What of this is lost is sent again.
    async fn sent(&self, part: SentPart) -> io::Result<()>;

    /// Notes that the source has no such upload any more: the object was made of it, or it was taken back.
    async fn ended(&self) -> io::Result<()>;
}
