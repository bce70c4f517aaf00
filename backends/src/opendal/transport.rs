//! The HTTP client: its time limits, whom it trusts, and the status of the last answer.
//!
//! Always true: a server that has asked to be left alone for a while (429, or 503 with `Retry-After`) is sent nothing until
//! that is over. A request that has the time waits for it, once; one that has not fails at once, and says for how long.

use std::cell::Cell;
use std::time::Duration;

use ::opendal::raw::Timestamp;
use ::opendal::{Buffer, HttpBody, HttpTransport};
use http::header::{CONTENT_LENGTH, DATE, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use opendal_http_transport_reqwest::ReqwestTransport;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::{range, trust};
use crate::Limits;

/// How long an idle connection is kept; servers drop theirs after a minute or more.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// How long a server is left alone that asks for fewer requests, and does not say for how long.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// What the last HTTP answer to a step said of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Its status; `None` if no answer came.
    pub(super) status: Option<u16>,
    /// The length of the object, where the question was HEAD.
    pub(super) object_length: Option<u64>,
    /// How long the server asked to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// The step that is under way.
struct Step {
    last: Cell<Answer>,
    due: Instant,
    /// Whether the server was left alone meanwhile.
    has_waited: Cell<bool>,
}

tokio::task_local! {
    static STEP: Step;
}

/// Runs one step, which waits no longer than `patience` for a server that asks to be left alone, and tells of the last HTTP
/// answer that it got.
pub(super) async fn observe<F: Future>(step: F, patience: Duration) -> (F::Output, Answer) {
    let scope = Step {
        last: Cell::default(),
        due: Instant::now() + patience,
        has_waited: Cell::new(false),
    };
    STEP.scope(scope, async {
        let outcome = step.await;
        (outcome, STEP.with(|step| step.last.get()))
    })
    .await
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

/// The HTTP client of one source.
pub(super) struct Transport {
    inner: ReqwestTransport,
    /// What takes the place of the service's own scheme and host.
    origin: Option<http::uri::Parts>,
    /// Until when the server has asked to be left alone.
    left_alone: Mutex<Option<Instant>>,
}

impl Transport {
    /// Builds the client, or says why it cannot be. Nothing is taken from the environment.
    pub(super) fn new(
        limits: &Limits,
        concurrency: u32,
        ca_file: Option<&str>,
        origin: Option<&str>,
    ) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("manifold/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect_timeout)
            .pool_idle_timeout(IDLE_LIMIT)
            .pool_max_idle_per_host(concurrency as usize)
            // Parallel ranges travel on connections of their own; on one they would wait for each other.
            .http1_only()
            .no_proxy();
        if let Some(file) = ca_file {
            let unusable = |why: String| format!("the certificate in the file `{file}` cannot be used: {why}");
            let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
            builder = builder.tls_backend_preconfigured(trust::tls(&pem).map_err(unusable)?);
        }
        let client = builder
            .build()
            .map_err(|error| format!("the HTTP client cannot be set up: {error}"))?;
        let origin = match origin {
            None => None,
            Some(origin) => {
                let uri: Uri = origin
                    .parse()
                    .map_err(|error| format!("the address `{origin}` is invalid: {error}"))?;
                Some(uri.into_parts())
            }
        };
        Ok(Self {
            inner: ReqwestTransport::new(client),
            origin,
            left_alone: Mutex::new(None),
        })
    }

    /// Waits while the server has asked to be left alone, if the step that is under way has the time.
    async fn leave_alone(&self) -> ::opendal::Result<()> {
        loop {
            let until = *self.left_alone.lock();
            let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
            let Some(until) = until.filter(|_| !left.is_zero()) else {
                return Ok(());
            };
            if STEP.try_with(|step| step.due <= until).unwrap_or(false) {
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
            let _outside_a_step = STEP.try_with(|step| step.has_waited.set(true));
            sleep_until(until).await;
        }
    }

    /// Sends a request elsewhere, with its path and query as they are.
    fn redirect(&self, request: &mut Request<Buffer>) -> ::opendal::Result<()> {
        let Some(origin) = &self.origin else { return Ok(()) };
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
    async fn fetch(&self, mut request: Request<Buffer>) -> ::opendal::Result<Response<HttpBody>> {
        self.redirect(&mut request)?;
        let is_head = request.method() == http::Method::HEAD;
        // Nothing earlier may speak for a request that fails.
        note(Answer::default());
        self.leave_alone().await?;
        let asked = request.headers().clone();
        let response = self.inner.fetch(request).await?;
        if let Some(why) = range::contradiction(&asked, response.status(), response.headers()) {
            return Err(::opendal::Error::new(::opendal::ErrorKind::RangeNotSatisfied, why));
        }
        let length = response.headers().get(CONTENT_LENGTH).filter(|_| is_head);
        let answer = Answer {
            status: Some(response.status().as_u16()),
            object_length: length.and_then(|length| length.to_str().ok()?.parse().ok()),
            retry_after: retry_after(response.status(), response.headers()),
        };
        if let Some(until) = answer.retry_after.and_then(|after| Instant::now().checked_add(after)) {
            let mut left_alone = self.left_alone.lock();
            *left_alone = Some(left_alone.map_or(until, |before| before.max(until)));
        }
        note(answer);
        let in_vain = answer.retry_after.is_some() && STEP.try_with(|step| step.has_waited.get()).unwrap_or(false);
        if in_vain {
            // Whoever asks has waited already, and may ask somebody else.
            let why = "the server still asks to be left alone";
            return Err(::opendal::Error::new(::opendal::ErrorKind::RateLimited, why));
        }
        Ok(response)
    }
}

/// Notes the answer to the step that is under way. What is asked outside of one is of no interest.
fn note(answer: Answer) {
    let _outside_a_step = STEP.try_with(|step| step.last.set(answer));
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
