//! Puts in blocks, as Azure has them, that are taken up where an earlier one was broken off.
//!
//! A block has no number but a name, which its writer makes up, and the object is made of a list of names. So a block that the
//! service has confirmed is known by the length and the MD5 of its bytes; it is not sent again, and the list has its name in the
//! place of the one that the writer has made up. Nothing is to be taken back: what no object was made of is forgotten by the
//! service a week after the last block of its name.

use std::collections::{HashMap, HashSet};
use std::future::Future;

use ::opendal::{Buffer, HttpBody, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use md5::{Digest as _, Md5};

use super::resume::{Resumption, value, whole};
use super::transport;
use crate::SentPart;

/// What opens the name of a block in the list.
const LISTED: &str = "<Latest>";

/// The blocks of one put.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The number of the part that each is, by the name that its writer gave it.
    numbers: HashMap<String, u32>,
    /// The parts that have a block.
    taken: HashSet<u32>,
    /// What is to be listed in the place of a name.
    instead: HashMap<String, String>,
}

impl Blocks {
    /// Finds the number of the part that a block is: of several that are the same, the first that has none yet.
    fn number(&mut self, name: &str, cut: &[(u64, [u8; 16])], block: (u64, [u8; 16])) -> Option<u32> {
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        let parts = (1..).zip(cut);
        let mut same = parts.filter(|(_, part)| **part == block).map(|(number, _)| number);
        let number = same.find(|number| !self.taken.contains(number))?;
        self.taken.insert(number);
        self.numbers.insert(name.to_owned(), number);
        Some(number)
    }

    /// Names what the service has in the place of what was not sent.
    fn list(&self, text: &str) -> String {
        let mut pieces = text.split(LISTED);
        let mut list = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (name, rest) = piece.split_at(piece.find('<').unwrap_or(piece.len()));
            let listed = self.instead.get(name).map_or(name, String::as_str);
            list.extend([LISTED, listed, rest]);
        }
        list
    }
}

impl Resumption {
    /// Sends a block, unless the service has it.
    pub(super) async fn block<F>(
        &self,
        request: Request<Buffer>,
        send: impl FnOnce(Request<Buffer>) -> F,
    ) -> Result<Response<HttpBody>>
    where
        F: Future<Output = Result<Response<HttpBody>>>,
    {
        let Some(name) = value(request.uri(), "blockid") else {
            return send(request).await;
        };
        let bytes = request.body().to_bytes();
        let (length, md5) = (bytes.len() as u64, Md5::digest(&bytes).into());
        let number = self.with_blocks(|blocks, cut| blocks.number(&name, cut, (length, md5)));
        let Some(number) = number else {
            return send(request).await;
        };
        // The list must not become longer than was signed.
        if let Some(part) = self
            .is_confirmed(number, length)
            .filter(|part| part.tag.len() == name.len())
        {
            transport::moved();
            let tag = part.tag.clone();
            self.with_blocks(|blocks, _| blocks.instead.insert(name, tag));
            return Ok(arrived());
        }
        self.note_begun(&name).await?;
        let response = self.judged(send(request).await?).await?;
        if response.status() == StatusCode::CREATED {
            let part = SentPart {
                number,
                length,
                sum: md5,
                tag: name,
            };
            self.note_sent(part).await;
        }
        Ok(response)
    }

    /// Has the object made of its blocks.
    pub(super) async fn list<F>(
        &self,
        request: Request<Buffer>,
        send: impl FnOnce(Request<Buffer>) -> F,
    ) -> Result<Response<HttpBody>>
    where
        F: Future<Output = Result<Response<HttpBody>>>,
    {
        let request = request.map(|body| match std::str::from_utf8(&body.to_bytes()) {
            Ok(text) => Buffer::from(Bytes::from(self.with_blocks(|blocks, _| blocks.list(text)))),
            Err(_) => body,
        });
        self.judged(send(request).await?).await
    }
}

/// Says that a block has arrived.
pub(super) fn arrived() -> Response<HttpBody> {
    let mut response = Response::new(whole(Buffer::new()));
    *response.status_mut() = StatusCode::CREATED;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_by_its_bytes_and_of_those_that_are_the_same_each_once() {
        let (one, other) = ((8, [1; 16]), (8, [2; 16]));
        let cut = [one, other, one];
        let mut blocks = Blocks::default();
        for (name, block, number) in [
            ("a", one, Some(1)),
            ("b", one, Some(3)),
            // Sent once more.
            ("a", one, Some(1)),
            ("c", other, Some(2)),
            ("d", other, None),
            ("e", (9, [1; 16]), None),
        ] {
            assert_eq!(blocks.number(name, &cut, block), number, "{name}");
        }
    }

    #[test]
    fn the_list_names_what_the_service_has() {
        let mut blocks = Blocks::default();
        blocks.instead.insert("bbbb".to_owned(), "old=".to_owned());
        let text = "<BlockList><Latest>aaaa</Latest><Latest>bbbb</Latest></BlockList>";
        let listed = "<BlockList><Latest>aaaa</Latest><Latest>old=</Latest></BlockList>";
        assert_eq!(blocks.list(text), listed);
        assert_eq!(blocks.list("<BlockList/>"), "<BlockList/>");
        assert_eq!(blocks.list("<Latest>bbbb"), "<Latest>old=");
    }
}
