//! The HTTP client: its time limits, whom it trusts, and the status of the last answer.
//!
//! Always true: a server that has asked to be left alone for a while (429, or 503 with `Retry-After`) is sent nothing until
//! that is over. A request that has the time waits for it, once; one that has not fails at once, and says for how long.
//!
//! Connections that a path has silently lost are found out by the kernel ([`Vigil`]). What has taken one of them has taken the
//! others too: with the first, all that are kept are given up. A request that changes something is not made again, so that it
//! goes on a connection of which something was heard a moment ago, or on a new one.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::opendal::raw::{BoxedStaticFuture, Timestamp};
use ::opendal::{Buffer, Execute, HttpBody, HttpTransport};
use bytes::Bytes;
use futures::TryStreamExt;
use http::header::{CONTENT_LENGTH, DATE, RETRY_AFTER, SERVER};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use opendal_http_transport_reqwest::ReqwestTransport;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{range, resume, trust};
use crate::Limits;
use crate::socket::Vigil;

/// How long an idle connection is kept; servers drop theirs after a minute or more.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// How long one is kept for another request that changes something.
const FRESH: Duration = Duration::from_secs(2);

/// How many signs of life in a row may be missing.
const SIGNS_MISSING: u32 = 2;

/// How long a server is left alone that asks for fewer requests, and does not say for how long.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// A body longer than this is sent in pieces, each of which tells that bytes move.
const PIECE: usize = 64 * 1024;

/// What a server is known as, where that says how it puts a file in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Family {
    /// Writes a file of another name, renames it when the last byte has come, and keeps conditions.
    Apache,
    /// Anything else.
    #[default]
    Other,
}

/// What the last HTTP answer to a step said of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Its status; `None` if no answer came.
    pub(super) status: Option<u16>,
    /// The length of the object, where the question was HEAD.
    pub(super) object_length: Option<u64>,
    /// The server's time.
    pub(super) at: Option<Timestamp>,
    /// How long the server asked to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// The step that is under way.
struct Step {
    last: Mutex<Answer>,
    patience: Duration,
    /// Whether it waits for a server that asks to be left alone, if it has the time.
    waits: bool,
    /// When bytes of a body were last taken; when the step began, at first.
    moved: Mutex<Instant>,
    /// Whether the server was left alone meanwhile.
    has_waited: Mutex<bool>,
}

impl Step {
    fn due(&self) -> Instant {
        *self.moved.lock() + self.patience
    }
}

tokio::task_local! {
    static STEP: Arc<Step>;
}

/// Runs one step, for as long as no more than `patience` goes by in which no bytes of a body move; and tells of the last HTTP
/// answer that it got. `None` if nothing came in time. Unless it `waits`, it ends when a server asks to be left alone.
pub(super) async fn observe<F: Future>(step: F, patience: Duration, waits: bool) -> Option<(F::Output, Answer)> {
    let scope = Arc::new(Step {
        last: Mutex::default(),
        patience,
        waits,
        moved: Mutex::new(Instant::now()),
        has_waited: Mutex::default(),
    });
    STEP.scope(Arc::clone(&scope), async {
        let mut step = pin!(step);
        loop {
            let due = scope.due();
            match timeout_at(due, &mut step).await {
                Ok(outcome) => return Some((outcome, *scope.last.lock())),
                Err(_elapsed) if scope.due() > due => {}
                Err(_elapsed) => return None,
            }
        }
    })
    .await
}

/// Runs what a step does at once in tasks that belong to it.
pub(super) struct Tasks;

impl Execute for Tasks {
    fn execute(&self, task: BoxedStaticFuture<()>) {
        let task = resume::carry(task);
        match STEP.try_with(Arc::clone) {
            Ok(step) => drop(tokio::spawn(STEP.scope(step, task))),
            Err(_outside_a_step) => drop(tokio::spawn(task)),
        }
    }
}

/// The bytes of a request, of a length that is known.
pub(super) struct Outgoing {
    pieces: Pieces,
    left: u64,
    step: Option<Arc<Step>>,
}

enum Pieces {
    Here(Buffer),
    Coming(mpsc::Receiver<Bytes>),
}

impl Outgoing {
    fn new(pieces: Pieces, length: u64) -> Self {
        let step = STEP.try_with(Arc::clone).ok();
        Self {
            pieces,
            left: length,
            step,
        }
    }

    /// Takes bytes that come one after the other; their end before `length` breaks the request off.
    pub(super) fn coming(pieces: mpsc::Receiver<Bytes>, length: u64) -> Self {
        Self::new(Pieces::Coming(pieces), length)
    }

    /// Takes no bytes at all.
    pub(super) fn nothing() -> Self {
        Self::here(Buffer::new())
    }

    fn here(bytes: Buffer) -> Self {
        let length = bytes.len() as u64;
        Self::new(Pieces::Here(bytes), length)
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let piece = match &mut this.pieces {
            Pieces::Here(bytes) => {
                let piece = bytes.slice(0..bytes.len().min(PIECE)).to_bytes();
                *bytes = bytes.slice(piece.len()..);
                (!piece.is_empty()).then_some(piece)
            }
            Pieces::Coming(pieces) => match pieces.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(piece) => piece,
            },
        };
        if let Some(piece) = &piece {
            this.left = this.left.saturating_sub(piece.len() as u64);
            if let Some(step) = &this.step {
                *step.moved.lock() = Instant::now();
            }
        }
        Poll::Ready(piece.map(|piece| Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

/// Reads how long the server asks to be left alone: in seconds, or until a date by its own clock.
fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let date = |text: &str| Some(Timestamp::parse_rfc2822(text).ok()?.into_inner().as_second());
    let told = text(RETRY_AFTER).and_then(|told| {
        if let Ok(seconds) = told.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let seconds = date(told)?.saturating_sub(date(text(DATE)?)?);
        Some(Duration::from_secs(seconds.max(0).unsigned_abs()))
    });
    told.or((status == StatusCode::TOO_MANY_REQUESTS).then_some(LEFT_ALONE))
}

/// The HTTP client of one source. Cheap to clone.
#[derive(Clone)]
pub(super) struct Transport(Arc<Line>);

struct Line {
    /// The connections of requests that change nothing.
    asking: Mutex<Kept>,
    /// The connections of those that do.
    changing: Kept,
    plan: Plan,
    /// What takes the place of the service's own scheme and host.
    origin: Option<http::uri::Parts>,
    /// Until when the server has asked to be left alone.
    left_alone: Mutex<Option<Instant>>,
    family: Mutex<Family>,
}

/// Connections that are kept.
#[derive(Clone)]
struct Kept {
    client: reqwest::Client,
    since: Instant,
}

/// How clients are built.
struct Plan {
    connect_timeout: Duration,
    vigil: Vigil,
    concurrency: u32,
    tls: Option<rustls::ClientConfig>,
}

impl Plan {
    /// Builds a client, with no connections yet.
    fn kept(&self, changing: bool) -> Result<Kept, String> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("manifold/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .tcp_keepalive(self.vigil.quiet)
            .tcp_keepalive_interval(self.vigil.again)
            .tcp_keepalive_retries(SIGNS_MISSING)
            .pool_idle_timeout(if changing { FRESH } else { IDLE_LIMIT })
            .pool_max_idle_per_host(self.concurrency as usize)
            // Parallel ranges travel on connections of their own; on one they would wait for each other.
            .http1_only()
            .no_proxy();
        if !changing {
            // A server that takes a body may acknowledge no more than its buffers hold, while its disk takes its time.
            builder = builder.tcp_user_timeout(self.vigil.unacknowledged);
        }
        if let Some(tls) = &self.tls {
            builder = builder.tls_backend_preconfigured(tls.clone());
        }
        let client = builder
            .build()
            .map_err(|error| format!("the HTTP client cannot be set up: {error}"))?;
        Ok(Kept {
            client,
            since: Instant::now(),
        })
    }
}

/// Tells whether a request may change something.
fn changes(method: &http::Method) -> bool {
    let asks = [http::Method::GET, http::Method::HEAD, http::Method::OPTIONS];
    !asks.contains(method) && method.as_str() != "PROPFIND"
}

/// Tells whether a request failed because its connection was lost, after it was made.
fn is_loss(error: &::opendal::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<reqwest::Error>() {
            return error.is_request() && !error.is_connect();
        }
        cause = error.source();
    }
    false
}

impl Transport {
    /// Builds the client, or says why it cannot be. Nothing is taken from the environment.
    pub(super) fn new(
        limits: &Limits,
        concurrency: u32,
        ca_file: Option<&str>,
        origin: Option<&str>,
    ) -> Result<Self, String> {
        let mut plan = Plan {
            connect_timeout: limits.connect_timeout,
            vigil: Vigil::of(limits.request_timeout),
            concurrency,
            tls: None,
        };
        if let Some(file) = ca_file {
            let unusable = |why: String| format!("the certificate in the file `{file}` cannot be used: {why}");
            let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
            plan.tls = Some(trust::tls(&pem).map_err(unusable)?);
        }
        let origin = match origin {
            None => None,
            Some(origin) => {
                let uri: Uri = origin
                    .parse()
                    .map_err(|error| format!("the address `{origin}` is invalid: {error}"))?;
                Some(uri.into_parts())
            }
        };
        Ok(Self(Arc::new(Line {
            asking: Mutex::new(plan.kept(false)?),
            changing: plan.kept(true)?,
            plan,
            origin,
            left_alone: Mutex::new(None),
            family: Mutex::default(),
        })))
    }

    /// Waits while the server has asked to be left alone, if the step that is under way has the time.
    async fn leave_alone(&self) -> ::opendal::Result<()> {
        loop {
            let until = *self.0.left_alone.lock();
            let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
            let Some(until) = until.filter(|_| !left.is_zero()) else {
                return Ok(());
            };
            if STEP
                .try_with(|step| !step.waits || step.due() <= until)
                .unwrap_or(false)
            {
                let told = Answer {
                    retry_after: Some(left),
                    ..Answer::default()
                };
                note(told);
                let why = format!(
                    "the server has asked to be left alone for {} s more",
                    left.as_secs().max(1)
                );
                return Err(::opendal::Error::new(::opendal::ErrorKind::RateLimited, why));
            }
            let _outside_a_step = STEP.try_with(|step| *step.has_waited.lock() = true);
            sleep_until(until).await;
        }
    }

    /// Sends a request elsewhere, with its path and query as they are.
    fn redirect<B>(&self, request: &mut Request<B>) -> ::opendal::Result<()> {
        let Some(origin) = &self.0.origin else { return Ok(()) };
        let mut parts = request.uri().clone().into_parts();
        parts.scheme.clone_from(&origin.scheme);
        parts.authority.clone_from(&origin.authority);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|error| {
            ::opendal::Error::new(::opendal::ErrorKind::ConfigInvalid, "the address is invalid").set_source(error)
        })?;
        Ok(())
    }
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> ::opendal::Result<Response<HttpBody>> {
        resume::exchange(request, |request| self.ask(request)).await
    }
}

impl Transport {
    async fn ask(&self, request: Request<Buffer>) -> ::opendal::Result<Response<HttpBody>> {
        if request.body().len() > PIECE {
            return self.send(request.map(Outgoing::here)).await;
        }
        let fetch = |client, request| async move { ReqwestTransport::new(client).fetch(request).await };
        self.exchange(request, fetch).await
    }

    /// Says who has answered last.
    pub(super) fn family(&self) -> Family {
        *self.0.family.lock()
    }

    fn kept(&self, method: &http::Method) -> Kept {
        if changes(method) {
            self.0.changing.clone()
        } else {
            self.0.asking.lock().clone()
        }
    }

    /// Gives up all connections that were kept before that, but for those that something is under way on.
    fn give_up(&self, before: Instant) {
        let mut asking = self.0.asking.lock();
        if asking.since < before
            && let Ok(fresh) = self.0.plan.kept(false)
        {
            *asking = fresh;
        }
    }

    /// Sends a request with a body that is not in memory, or that tells of its bytes when they move.
    pub(super) async fn send(&self, request: Request<Outgoing>) -> ::opendal::Result<Response<HttpBody>> {
        self.exchange(request, pass_on).await
    }

    async fn exchange<B, F>(
        &self,
        mut request: Request<B>,
        send: impl FnOnce(reqwest::Client, Request<B>) -> F + Send,
    ) -> ::opendal::Result<Response<HttpBody>>
    where
        B: Send,
        F: Future<Output = ::opendal::Result<Response<HttpBody>>> + Send,
    {
        self.redirect(&mut request)?;
        let is_head = request.method() == http::Method::HEAD;
        let is_put = request.method() == http::Method::PUT;
        // Nothing earlier may speak for a request that fails.
        note(Answer::default());
        self.leave_alone().await?;
        let asked = request.headers().clone();
        let (begun, kept) = (Instant::now(), self.kept(request.method()));
        let outcome = send(kept.client, request).await;
        if let Err(error) = &outcome
            && is_loss(error)
            // What is reset or closed at once says nothing of the others, and a server in trouble does that all the time.
            && begun.elapsed() >= self.0.plan.vigil.unacknowledged / 2
        {
            self.give_up(begun);
        }
        let response = outcome?;
        if let Some(why) = range::contradiction(&asked, response.status(), response.headers()) {
            return Err(::opendal::Error::new(::opendal::ErrorKind::RangeNotSatisfied, why));
        }
        let length = response.headers().get(CONTENT_LENGTH).filter(|_| is_head);
        let date = response.headers().get(DATE).filter(|_| is_put);
        let answer = Answer {
            status: Some(response.status().as_u16()),
            object_length: length.and_then(|length| length.to_str().ok()?.parse().ok()),
            at: date.and_then(|date| Timestamp::parse_rfc2822(date.to_str().ok()?).ok()),
            retry_after: retry_after(response.status(), response.headers()),
        };
        *self.0.family.lock() = family(response.headers());
        if let Some(until) = answer.retry_after.and_then(|after| Instant::now().checked_add(after)) {
            let mut left_alone = self.0.left_alone.lock();
            *left_alone = Some(left_alone.map_or(until, |before| before.max(until)));
        }
        note(answer);
        let in_vain = answer.retry_after.is_some() && STEP.try_with(|step| *step.has_waited.lock()).unwrap_or(false);
        if in_vain {
            // Whoever asks has waited already, and may ask somebody else.
            let why = "the server still asks to be left alone";
            return Err(::opendal::Error::new(::opendal::ErrorKind::RateLimited, why));
        }
        Ok(response)
    }
}

/// Sends a request as it is.
async fn pass_on(client: reqwest::Client, request: Request<Outgoing>) -> ::opendal::Result<Response<HttpBody>> {
    use ::opendal::{Error, ErrorKind};
    // An address may be signed: it is left out of what is said of an error.
    let failed = |what: &'static str| {
        move |error: reqwest::Error| {
            let temporary = error.is_request() || error.is_body() || error.is_decode();
            Error::new(ErrorKind::Unexpected, what)
                .with_temporary(temporary)
                .set_source(error.without_url())
        }
    };
    let (parts, body) = request.into_parts();
    let url = reqwest::Url::parse(&parts.uri.to_string())
        .map_err(|error| Error::new(ErrorKind::ConfigInvalid, "the address is invalid").set_source(error))?;
    let request = client.request(parts.method, url).headers(parts.headers);
    let request = request.body(reqwest::Body::wrap(body));
    let mut answer = request.send().await.map_err(failed("send http request"))?;
    let mut response = Response::builder().status(answer.status()).version(answer.version());
    if let Some(headers) = response.headers_mut() {
        std::mem::swap(headers, answer.headers_mut());
    }
    let body = answer
        .bytes_stream()
        .map_ok(Buffer::from)
        .map_err(failed("read data from http response"));
    response
        .body(HttpBody::new(body, None))
        .map_err(|error| Error::new(ErrorKind::Unexpected, "the answer has no form").set_source(error))
}

fn family(headers: &HeaderMap) -> Family {
    let name = headers.get(SERVER).map(http::HeaderValue::as_bytes).unwrap_or_default();
    if name.starts_with(b"Apache") {
        Family::Apache
    } else {
        Family::Other
    }
}

/// Says that a step goes on, though no bytes move: more are waited for.
pub(super) fn moved() {
    let _outside_a_step = STEP.try_with(|step| *step.moved.lock() = Instant::now());
}

/// Notes the answer to the step that is under way. What is asked outside of one is of no interest.
fn note(answer: Answer) {
    let _outside_a_step = STEP.try_with(|step| *step.last.lock() = answer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_server_is_left_alone_is_its_own_word() {
        let told = |status, fields: &[(http::HeaderName, &str)]| {
            let headers = fields
                .iter()
                .map(|(name, value)| (name.clone(), value.parse().unwrap()));
            retry_after(StatusCode::from_u16(status).unwrap(), &headers.collect())
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(told(429, &[(RETRY_AFTER, "7")]), seconds(7));
        assert_eq!(told(503, &[(RETRY_AFTER, " 120 ")]), seconds(120));
        assert_eq!(told(429, &[]), Some(LEFT_ALONE));
        assert_eq!(told(429, &[(RETRY_AFTER, "soon")]), Some(LEFT_ALONE));
        assert_eq!(told(503, &[]), None, "it is down, and said nothing of pauses");
        assert_eq!(told(500, &[(RETRY_AFTER, "7")]), None);
        let dates = |at| [(RETRY_AFTER, at), (DATE, "Wed, 21 Oct 2015 07:28:00 GMT")];
        assert_eq!(told(503, &dates("Wed, 21 Oct 2015 07:28:30 GMT")), seconds(30));
        assert_eq!(told(503, &dates("Wed, 21 Oct 2015 07:00:00 GMT")), seconds(0));
    }
}
