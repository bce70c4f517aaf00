//! The HTTP client: its time limits, whom it trusts, and the status of the last answer.

use std::cell::Cell;
use std::time::Duration;

use ::opendal::{Buffer, HttpBody, HttpTransport};
use http::{Request, Response, Uri};
use opendal_http_transport_reqwest::ReqwestTransport;

use super::trust;
use crate::Limits;

/// How long an idle connection is kept; servers drop theirs after a minute or more.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// What the last HTTP answer to a step said of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Its status; `None` if no answer came.
    pub(super) status: Option<u16>,
    /// The length of the object, where the question was HEAD.
    pub(super) object_length: Option<u64>,
}

tokio::task_local! {
    /// The last answer to the step that is under way.
    static ANSWER: Cell<Answer>;
}

/// Runs one step, and tells of the last HTTP answer that it got.
pub(super) async fn observe<F: Future>(step: F) -> (F::Output, Answer) {
    ANSWER
        .scope(Cell::default(), async {
            let outcome = step.await;
            (outcome, ANSWER.with(Cell::get))
        })
        .await
}

/// The HTTP client of one source.
pub(super) struct Transport {
    inner: ReqwestTransport,
    /// What takes the place of the service's own scheme and host.
    origin: Option<http::uri::Parts>,
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
        })
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
        let _outside_a_step = ANSWER.try_with(Cell::take);
        let response = self.inner.fetch(request).await?;
        let length = response.headers().get(http::header::CONTENT_LENGTH).filter(|_| is_head);
        let answer = Answer {
            status: Some(response.status().as_u16()),
            object_length: length.and_then(|length| length.to_str().ok()?.parse().ok()),
        };
        let _outside_a_step = ANSWER.try_with(|last| last.set(answer));
        Ok(response)
    }
}
