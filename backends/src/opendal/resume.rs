//! Puts in parts that are taken up where an earlier one was broken off.
//!
//! `OpenDAL`'s writers begin an upload by themselves and do not take one that has begun. So they are given the answers that the
//! service gave then: to the request that begins an upload, the name of the one that there is; to one that sends a part, the tag
//! that it has there, if the source has confirmed a part of that number, length and MD5. What is answered here is not sent. All
//! else passes, and what the service says of parts is noted. (Of blocks, which have no numbers: [`blocks`].)
//!
//! Always true:
//! - the requests of one put, and no others, are seen here: it runs within [`Way::scope`], and so do its tasks ([`carry`]);
//! - nothing is sent of an upload that is not noted durably.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use ::opendal::raw::{BoxedStaticFuture, ServiceOperation};
use ::opendal::{Buffer, Error, ErrorKind, HttpBody, Result};
use bytes::Bytes;
use http::header::ETAG;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;

use super::blocks::{self, Blocks};
use super::{fault, transport};
use crate::{ErrorKind as Ours, PartLog, PartUpload, SentPart};

tokio::task_local! {
    static WAY: Way;
}

/// How what is asked of a service in parts is treated.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// It is taken up, and noted.
    TakeUp(Arc<Resumption>),
    /// Nothing but its end is asked for: of the upload of this name.
    GiveUp(Arc<str>),
}

impl Way {
    /// Runs what belongs to one put.
    pub(super) async fn scope<F: Future>(self, future: F) -> F::Output {
        WAY.scope(self, future).await
    }
}

/// Lets a task belong to the put that belongs to whoever starts it, if any.
pub(super) fn carry(task: BoxedStaticFuture<()>) -> BoxedStaticFuture<()> {
    match WAY.try_with(Clone::clone) {
        Ok(way) => Box::pin(way.scope(task)),
        Err(_none) => task,
    }
}

/// One put, and what is known of it.
#[derive(Debug)]
pub(super) struct Resumption {
    log: Arc<dyn PartLog>,
    /// What an earlier put has left.
    left: Option<PartUpload>,
    /// The part of each number that the source has confirmed to an earlier put.
    confirmed: HashMap<u32, SentPart>,
    /// Whether the upload that is under way is noted; held while it is being noted.
    is_noted: tokio::sync::Mutex<bool>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Length and MD5 of the parts that are cut so far, in order.
    cut: Vec<(u64, [u8; 16])>,
    /// What stands for them, where parts have no numbers.
    blocks: Blocks,
    is_noted: bool,
    is_useless: bool,
}

impl Resumption {
    /// Takes up what is left of an earlier put.
    pub(super) async fn of(log: Arc<dyn PartLog>) -> std::io::Result<Self> {
        let left = log.broken_off().await?;
        let confirmed = left.iter().flat_map(|left| &left.parts);
        Ok(Self {
            confirmed: confirmed.map(|part| (part.number, part.clone())).collect(),
            is_noted: tokio::sync::Mutex::new(left.is_some()),
            state: Mutex::new(State {
                is_noted: left.is_some(),
                ..State::default()
            }),
            log,
            left,
        })
    }

    /// Says what the next part is, before it is handed to the service's writer.
    pub(super) fn cut(&self, length: u64, md5: [u8; 16]) {
        self.state.lock().cut.push((length, md5));
    }

    /// Tells whether an earlier put is taken up.
    pub(super) fn takes_up(&self) -> bool {
        self.left.is_some()
    }

    /// Tells whether nothing can be made any more of what has been sent: the source does not have it, or will not take it.
    pub(super) fn is_useless(&self) -> bool {
        self.state.lock().is_useless
    }

    /// Tells whether the source may have something that a later put can take up.
    pub(super) fn is_to_be_kept(&self) -> bool {
        let state = self.state.lock();
        state.is_noted && !state.is_useless
    }

    /// Notes that the source has nothing of it any more.
    pub(super) async fn ended(&self) {
        if let Err(error) = self.log.ended().await {
            // Whoever tries to give it up finds out.
            tracing::debug!(%error, "it could not be noted that an upload has ended");
        }
    }

    pub(super) fn is_confirmed(&self, number: u32, length: u64) -> Option<&SentPart> {
        let part = self.confirmed.get(&number)?;
        let state = self.state.lock();
        let cut = state.cut.get(number.checked_sub(1)? as usize)?;
        (length == part.length && *cut == (part.length, part.sum)).then_some(part)
    }

    async fn part<F>(
        &self,
        request: Request<Buffer>,
        send: impl FnOnce(Request<Buffer>) -> F,
    ) -> Result<Response<HttpBody>>
    where
        F: Future<Output = Result<Response<HttpBody>>>,
    {
        let length = request.body().len() as u64;
        let Some((number, id)) = place(request.uri()) else {
            return send(request).await;
        };
        if let Some(part) = self.is_confirmed(number, length) {
            transport::moved();
            return confirmed(&part.tag);
        }
        self.note_begun(&id).await?;
        let response = self.judged(send(request).await?).await?;
        let md5 = self.state.lock().cut.get(number as usize - 1).map(|(_, md5)| *md5);
        let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
        if let (StatusCode::OK, Some(md5), Some(tag)) = (response.status(), md5, tag) {
            let part = SentPart {
                number,
                length,
                sum: md5,
                tag: tag.to_owned(),
            };
            self.note_sent(part).await;
        }
        Ok(response)
    }

    /// Looks at the blocks, and at length and MD5 of the parts that are cut so far.
    pub(super) fn with_blocks<T>(&self, look: impl FnOnce(&mut Blocks, &[(u64, [u8; 16])]) -> T) -> T {
        let State { blocks, cut, .. } = &mut *self.state.lock();
        look(blocks, cut)
    }

    pub(super) async fn note_sent(&self, part: SentPart) {
        let number = part.number;
        if let Err(error) = self.log.sent(part).await {
            tracing::debug!(%error, number, "a part that was sent could not be noted");
        }
    }

    pub(super) async fn note_begun(&self, id: &str) -> Result<()> {
        let mut is_noted = self.is_noted.lock().await;
        if !*is_noted {
            let unnoted = |error| Error::new(ErrorKind::Unexpected, "the upload could not be noted").set_source(error);
            self.log.begun(id).await.map_err(unnoted)?;
            *is_noted = true;
            self.state.lock().is_noted = true;
        }
        Ok(())
    }

    /// Looks at whether a service will have anything to do with an upload. Some say that they will not with a status of success.
    pub(super) async fn judged(&self, response: Response<HttpBody>) -> Result<Response<HttpBody>> {
        let (head, mut body) = response.into_parts();
        let body = body.to_buffer().await?;
        if makes_useless(head.status, &body.to_bytes()) {
            self.state.lock().is_useless = true;
        }
        Ok(Response::from_parts(head, whole(body)))
    }
}

/// Passes a request on, or answers it.
pub(super) async fn exchange<F>(
    request: Request<Buffer>,
    send: impl FnOnce(Request<Buffer>) -> F,
) -> Result<Response<HttpBody>>
where
    F: Future<Output = Result<Response<HttpBody>>>,
{
    let Ok(way) = WAY.try_with(Clone::clone) else {
        return send(request).await;
    };
    let operation = request
        .extensions()
        .get::<ServiceOperation>()
        .map(|operation| operation.0);
    match (operation, way) {
        (Some("CreateMultipartUpload"), Way::TakeUp(put)) => match &put.left {
            Some(left) => Ok(begun(&left.id)),
            None => send(request).await,
        },
        (Some("UploadPart"), Way::TakeUp(put)) => put.part(request, send).await,
        (Some("CompleteMultipartUpload"), Way::TakeUp(put)) => put.judged(send(request).await?).await,
        (Some("PutBlock"), Way::TakeUp(put)) => put.block(request, send).await,
        (Some("PutBlockList"), Way::TakeUp(put)) => put.list(request, send).await,
        (Some("CreateMultipartUpload"), Way::GiveUp(id)) => Ok(begun(&id)),
        // Nothing is made of it.
        (Some("UploadPart"), Way::GiveUp(_)) => confirmed("none"),
        (Some("PutBlock"), Way::GiveUp(_)) => Ok(blocks::arrived()),
        (Some(other), Way::GiveUp(_)) if other != "AbortMultipartUpload" => {
            let why = "this service has no uploads that are ended by their names";
            Err(Error::new(ErrorKind::Unsupported, why))
        }
        _ => send(request).await,
    }
}

/// Gives the number of a part, and the name of its upload.
fn place(uri: &Uri) -> Option<(u32, String)> {
    let number = value(uri, "partNumber")?.parse().ok().filter(|number| *number > 0)?;
    Some((number, value(uri, "uploadId")?))
}

/// Gives what a request has under a key.
pub(super) fn value(uri: &Uri, key: &str) -> Option<String> {
    let mut pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == key)?;
    Some(percent_decode_str(value).decode_utf8().ok()?.into_owned())
}

pub(super) fn whole(body: Buffer) -> HttpBody {
    let length = body.len() as u64;
    HttpBody::new(futures::stream::iter([Ok(body)]), Some(length))
}

/// Says that there is an upload of that name.
fn begun(id: &str) -> Response<HttpBody> {
    let mut text = "<InitiateMultipartUploadResult><UploadId>".to_owned();
    for letter in id.chars() {
        match letter {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            letter => text.push(letter),
        }
    }
    text.push_str("</UploadId></InitiateMultipartUploadResult>");
    Response::new(whole(Buffer::from(Bytes::from(text))))
}

/// Says that a part has arrived.
fn confirmed(tag: &str) -> Result<Response<HttpBody>> {
    let tag = HeaderValue::from_str(tag)
        .map_err(|error| Error::new(ErrorKind::Unexpected, "the tag of a part has no form").set_source(error))?;
    let mut response = Response::new(whole(Buffer::new()));
    response.headers_mut().insert(ETAG, tag);
    Ok(response)
}

/// Tells whether an answer means that nothing will be made of an upload, so that it is to begin anew. What passes, and what
/// concerns whoever asks rather than the upload, is none of that.
fn makes_useless(status: StatusCode, body: &[u8]) -> bool {
    let code = code(body);
    let known = code.and_then(fault::by_code);
    let of_somebody_else = matches!(
        known,
        Some(Ours::CredentialsRefused | Ours::NoSuchSource | Ours::Full | Ours::RateLimited)
    ) || matches!(
        code,
        Some(
            // The object that was to be replaced is gone.
            "NoSuchKey"
                | "RequestTimeout"
                | "InternalError"
                | "OperationAborted"
                | "PreconditionFailed"
                | "AccessDenied"
        )
    );
    match status.as_u16() {
        200..=299 => code.is_some() && !of_somebody_else,
        401 | 403 | 407 | 408 | 412 | 413 | 429 => false,
        400..=498 => !of_somebody_else,
        _ => false,
    }
}

/// Takes the code of an error from an answer.
fn code(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("<Code>")?;
    Some(rest.split_once("</Code>")?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn useless(status: u16, code: &str) -> bool {
        let body = format!("<Error><Code>{code}</Code></Error>");
        makes_useless(StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn only_what_is_said_of_the_upload_itself_makes_it_useless() {
        for (status, code) in [
            (404, "NoSuchUpload"),
            (400, "InvalidPart"),
            (400, "InvalidRequest"),
            (409, "ConditionalRequestConflict"),
            (200, "InvalidPart"),
        ] {
            assert!(useless(status, code), "{status} {code}");
        }
        for (status, code) in [
            (404, "NoSuchBucket"),
            (404, "NoSuchKey"),
            (400, "ExpiredToken"),
            (400, "RequestTimeout"),
            (403, "AccessDenied"),
            (412, "PreconditionFailed"),
            (429, "SlowDown"),
            (503, "SlowDown"),
            (500, "InternalError"),
            (200, "InternalError"),
        ] {
            assert!(!useless(status, code), "{status} {code}");
        }
        assert!(!makes_useless(StatusCode::OK, b"<CompleteMultipartUploadResult/>"));
        assert!(makes_useless(StatusCode::NOT_FOUND, b""));
        assert!(!makes_useless(StatusCode::BAD_GATEWAY, b"<html>"));
    }

    #[test]
    fn a_part_is_known_by_its_request_whatever_the_service_calls_the_upload() {
        let uri: Uri = "http://h/b/k?partNumber=12&uploadId=a%2Fb%3D+c".parse().unwrap();
        assert_eq!(place(&uri), Some((12, "a/b=+c".to_owned())));
        for other in [
            "http://h/b/k",
            "http://h/b/k?uploadId=x",
            "http://h/b/k?partNumber=0&uploadId=x",
        ] {
            assert_eq!(place(&other.parse().unwrap()), None, "{other}");
        }
    }
}
