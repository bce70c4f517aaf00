//! Changes on a `WebDAV` server, in requests of our own: `OpenDAL` holds a whole file in memory, sends no conditions, and makes
//! directories that are missing.
//!
//! A put sends the bytes as they are read. Apache writes a file of another name and renames it when the last byte has
//! come, so that it is given the object's own name; the last piece is held back until another look has shown that what
//! stands there is still what was expected. Of other servers nothing of the kind is known: they get a file of a temporary
//! name, which is then moved. `Overwrite: F` keeps the move from replacing anything.

use std::sync::Arc;

use ::opendal::raw::percent_encode_path;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, IF_NONE_MATCH};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use tokio::sync::mpsc;

use super::fault;
use super::source::Source;
use super::transport::{Family, Outgoing};
use super::unfinished::Unfinished;
use super::upload;
use crate::{Body, Error, ErrorKind, Expected, Metadata, ObjectPath, Operation, Presence, Result};

/// Bytes of a body that are read at once.
const PIECE: u64 = 256 * 1024;
/// Pieces that wait to be sent.
const PIECES: usize = 2;
/// Pieces that the HTTP client takes before it has sent them: it fills a buffer of some 400 KiB.
const PIECES_TAKEN: usize = 3;
/// Bytes that a put holds at most: those that wait, those that were taken, and one that is being read.
pub(super) const MEMORY_MAX: u64 = PIECE * (PIECES + PIECES_TAKEN + 1) as u64;

const DESTINATION: HeaderName = HeaderName::from_static("destination");
const OVERWRITE: HeaderName = HeaderName::from_static("overwrite");

/// A server, and who asks it.
pub(super) struct Dav {
    pub(super) endpoint: String,
    pub(super) authorization: Option<HeaderValue>,
}

impl Dav {
    pub(super) async fn put(
        &self,
        source: &Arc<Source>,
        path: &ObjectPath,
        body: &dyn Body,
        expected: &Expected,
    ) -> Result<Metadata> {
        source.expect(Operation::Put, path, expected).await?;
        let apache = source.transport.family() == Family::Apache;
        if !apache || body.size() > MEMORY_MAX {
            // Some servers make the directories on the way; and a refusal is heard better before much is sent.
            source.has_parent(Operation::Put, path).await?;
        }
        let raw = source.raw(Operation::Put, path, false)?;
        if apache {
            let headers = match expected {
                Expected::Absent => vec![(IF_NONE_MATCH, HeaderValue::from_static("*"))],
                _ => Vec::new(),
            };
            Box::pin(self.send(source, path, &raw, headers, body, Some(expected))).await?;
            return source.look_after(path, body.size(), ErrorKind::Conflict).await;
        }
        let unfinished = Unfinished::beside(source, path)?;
        Box::pin(self.send(source, path, unfinished.raw(), Vec::new(), body, None)).await?;
        source
            .look_after(unfinished.path(), body.size(), ErrorKind::Nonsense)
            .await?;
        source.expect(Operation::Put, path, expected).await?;
        let replace = *expected != Expected::Absent;
        match self
            .move_to(source, Operation::Put, path, (unfinished.raw(), &raw), replace)
            .await?
        {
            Presence::Found(()) => {}
            Presence::Absent => return Err(source.no_directory(Operation::Put, path)),
        }
        unfinished.finish();
        source.look_after(path, body.size(), ErrorKind::Conflict).await
    }

    /// Sends a body. If `held_back`, the last piece goes only if that is still what stands there.
    async fn send(
        &self,
        source: &Arc<Source>,
        path: &ObjectPath,
        raw: &str,
        mut headers: Vec<(HeaderName, HeaderValue)>,
        body: &dyn Body,
        held_back: Option<&Expected>,
    ) -> Result<()> {
        let size = body.size();
        let (pieces, coming) = mpsc::channel(PIECES);
        if size == 0 {
            headers.push((CONTENT_LENGTH, HeaderValue::from_static("0")));
        }
        let feed = feed(source, path, body, pieces, held_back);
        let ask = self.ask(
            source,
            Operation::Put,
            path,
            (Method::PUT, raw),
            headers,
            Some((coming, size)),
        );
        let (sent, answer) = tokio::join!(feed, ask);
        // What broke the sending off says more than that it was broken off.
        sent?;
        match answer? {
            Presence::Found(()) => Ok(()),
            Presence::Absent => Err(source.no_directory(Operation::Put, path)),
        }
    }

    pub(super) async fn create_directory(&self, source: &Source, path: &ObjectPath, raw: &str) -> Result<()> {
        let operation = Operation::CreateDirectory;
        let method = Method::from_bytes(b"MKCOL").expect("invariant: it is a token");
        match self.ask(source, operation, path, (method, raw), Vec::new(), None).await {
            Ok(Presence::Found(())) => Ok(()),
            Ok(Presence::Absent) => Err(source.no_directory(operation, path)),
            // What can only be made where nothing stands.
            Err(error) if error.kind() == ErrorKind::Unsupported => Err(error.with_kind(ErrorKind::Exists)),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn delete(
        &self,
        source: &Source,
        operation: Operation,
        path: &ObjectPath,
        raw: &str,
    ) -> Result<Presence<()>> {
        self.ask(source, operation, path, (Method::DELETE, raw), Vec::new(), None)
            .await
    }

    pub(super) async fn rename(
        &self,
        source: &Source,
        from: &ObjectPath,
        to: &ObjectPath,
        raw: (&str, &str),
        replace: bool,
    ) -> Result<()> {
        source.has_parent(Operation::Rename, to).await?;
        match self.move_to(source, Operation::Rename, from, raw, replace).await {
            Ok(Presence::Found(())) => Ok(()),
            Ok(Presence::Absent) => Err(source.no_directory(Operation::Rename, to)),
            Err(error) if error.kind() == ErrorKind::VersionChanged => Err(source.exists(Operation::Rename, to)),
            Err(error) => Err(error),
        }
    }

    async fn move_to(
        &self,
        source: &Source,
        operation: Operation,
        path: &ObjectPath,
        raw: (&str, &str),
        replace: bool,
    ) -> Result<Presence<()>> {
        let destination = HeaderValue::from_str(&self.url(raw.1))
            .map_err(|error| source.error(ErrorKind::BadPath, operation, path, error.to_string()))?;
        let overwrite = HeaderValue::from_static(if replace { "T" } else { "F" });
        let headers = vec![(DESTINATION, destination), (OVERWRITE, overwrite)];
        let method = Method::from_bytes(b"MOVE").expect("invariant: it is a token");
        self.ask(source, operation, path, (method, raw.0), headers, None).await
    }

    fn url(&self, raw: &str) -> String {
        format!("{}/{}", self.endpoint, percent_encode_path(raw))
    }

    /// Sends one request. `Absent` if it, or the directory that it is to lie in, is not there.
    async fn ask(
        &self,
        source: &Source,
        operation: Operation,
        path: &ObjectPath,
        (method, raw): (Method, &str),
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Option<(mpsc::Receiver<Bytes>, u64)>,
    ) -> Result<Presence<()>> {
        let puts = body.is_some();
        let patience = if puts { source.put_patience() } else { source.patience };
        let mut request = Request::builder().method(method).uri(self.url(raw));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let step = async {
            // Made within the step, whose time goes on while the bytes of the body move.
            let body = match body {
                Some((_, 0)) | None => Outgoing::nothing(),
                Some((pieces, size)) => Outgoing::coming(pieces, size),
            };
            let request = request.body(body).map_err(|error| {
                ::opendal::Error::new(::opendal::ErrorKind::ConfigInvalid, "the request cannot be made")
                    .set_source(error)
            })?;
            let response = source.transport.send(request).await?;
            let status = response.status();
            response.into_body().to_buffer().await?;
            match status {
                // Some of what was to be changed was not.
                StatusCode::MULTI_STATUS => Err(refusal(status)),
                status if status.is_success() => Ok(()),
                StatusCode::CONFLICT => Err(::opendal::Error::new(
                    ::opendal::ErrorKind::NotFound,
                    "no such directory",
                )),
                status => Err(refusal(status)),
            }
        };
        let step = source.step_within(patience, operation, path, step);
        let outcome = if puts {
            let _turn = source.put_turn(1).await;
            step.await?
        } else {
            let _slot = source.slot().await;
            step.await?
        };
        Ok(match outcome {
            Presence::Found(_) => Presence::Found(()),
            Presence::Absent => Presence::Absent,
        })
    }
}

fn refusal(status: StatusCode) -> ::opendal::Error {
    let kind = match fault::by_status(status.as_u16()) {
        None if status == StatusCode::NOT_FOUND => ::opendal::ErrorKind::NotFound,
        _ => ::opendal::ErrorKind::Unexpected,
    };
    ::opendal::Error::new(kind, "the server refused")
}

/// Reads a body piece by piece for as long as somebody takes them.
async fn feed(
    source: &Source,
    path: &ObjectPath,
    body: &dyn Body,
    pieces: mpsc::Sender<Bytes>,
    held_back: Option<&Expected>,
) -> std::result::Result<(), Error> {
    let size = body.size();
    let mut start = 0;
    while start < size {
        let end = size.min(start + PIECE);
        let piece = upload::read(source, path, body, start..end).await?;
        if let Some(expected) = held_back
            && end == size
            && start > 0
            && *expected != Expected::Anything
        {
            source.expect(Operation::Put, path, expected).await?;
        }
        if pieces.send(piece).await.is_err() {
            return Ok(());
        }
        start = end;
    }
    Ok(())
}
