//! tonic has no service config, so what other languages' gRPC makes of one is here.

use std::error::Error as StdError;
use std::fmt::{Debug, Formatter};
use std::future::ready;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Bytes};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Service, ServiceExt};

use crate::client::CALL_TIMEOUT;
use crate::credentials::{BoxError, Credentials};
use crate::endpoints::Endpoints;
use crate::events::{Events, Sink};
use crate::outcome::{DOMAIN, Failure, History, is_refusal};
use crate::service_config::RetryPolicy;
use crate::typed::{is_typed, named};
use crate::v1::ErrorReason;

/// The largest request that the service accepts, and the largest answer.
pub(crate) const MAX_REQUEST_BYTES: usize = 1 << 20;
pub(crate) const MAX_ANSWER_BYTES: usize = 16 << 20;

pub(crate) const CALL_TOOL: &str = "/agenta.ai.v1.ToolService/CallTool";
pub(crate) const CALL_TOOL_STREAM: &str = "/agenta.ai.v1.ToolService/CallToolStream";
const TIMEOUT: &str = "grpc-timeout";
const PUSHBACK: &str = "grpc-retry-pushback-ms";
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";
/// What comes before a message: whether it is compressed, and its size.
pub(crate) const PREFIX_BYTES: usize = 5;
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// A [`tower`](https://docs.rs/tower) service that generated clients use in place of a [`Channel`]. It adds the credentials,
/// applies the time-out of a request to all its attempts together, retries, and waits for rate limits if the client does.
/// [`Client::connection`](crate::Client::connection) returns it.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) target: String,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) credentials: Credentials,
    pub(crate) wait_for_limit: bool,
    pub(crate) retries: bool,
    pub(crate) closed: watch::Sender<bool>,
}

impl Debug for Connection {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Connection").field("target", &self.0.target).finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        if request.uri().path() == CALL_TOOL_STREAM {
            let events = Events::new(|sink| async move { shared.send(request, Some(sink)).await.map(drop) });
            return Box::pin(ready(Ok(Response::new(Body::new(events)))));
        }
        if is_typed(request.uri().path()) && !request.headers().contains_key(TIMEOUT) {
            request.headers_mut().insert(TIMEOUT, left(Instant::now() + CALL_TIMEOUT));
        }
        Box::pin(async move { shared.send(request, None).await })
    }
}

impl Connection {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    pub(crate) fn close(&self) {
        self.0.closed.send_replace(true);
        self.0.endpoints.close();
    }
}

impl Shared {
    /// Makes a call, unless the client is closed, until its deadline. A stream goes to the sink, and the answer is empty.
    async fn send(&self, request: Request<Body>, sink: Option<Sink>) -> Result<Response<Body>, Status> {
        let history = History::default();
        let mut closed = self.closed.subscribe();
        if *closed.borrow_and_update() {
            return Err(history.end(Status::cancelled("The client is closed").into()));
        }
        let deadline = deadline(request.headers());
        let passed = async {
            match deadline {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = self.repeat(request, sink, deadline, &history) => outcome,
            () = passed => Err(too_late().into()),
            _ = closed.changed() => Err(Status::cancelled("The client was closed").into()),
        };
        outcome.map_err(|failure| history.end(failure))
    }

    async fn repeat(
        &self,
        request: Request<Body>,
        sink: Option<Sink>,
        deadline: Option<Instant>,
        history: &History,
    ) -> Result<Response<Body>, Failure> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let (body, request_id) = named(head.uri.path(), body);
        history.named(request_id);
        let mut request = Request::from_parts(head, body);
        check_size(request.body())?;
        self.credentials.sign(request.headers_mut()).await?;
        let mut streams = sink.is_some();
        let mut attempts = 0;
        let mut total: u64 = 0;
        loop {
            attempts += 1;
            total += 1;
            let failure = match (self.attempt(&request, deadline, history).await, &sink) {
                (Ok(response), Some(sink)) if streams => match sink.follow(response).await {
                    Ok(()) => return Ok(Response::default()),
                    Err(failure) => failure,
                },
                (Ok(response), Some(sink)) => return sink.convert(answer(response).await?).await,
                (Ok(response), None) => return answer(response).await,
                (Err(failure), _) => failure,
            };
            if streams && failure.status.code() == Code::Unimplemented {
                // The server is older than the method.
                *request.uri_mut() = sibling(request.uri(), CALL_TOOL);
                streams = false;
                attempts = 0;
                history.failed(&failure.status);
                continue;
            }
            let path = request.uri().path();
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return Err(too_late().into());
            }
            let Some(pause) = self.pause(path, &failure.status, &mut attempts, deadline) else {
                if is_refusal(&failure.status) {
                    history.failed(&failure.status);
                }
                return Err(failure);
            };
            history.failed(&failure.status);
            sleep(pause).await;
            request.headers_mut().insert(PREVIOUS_ATTEMPTS, total.into());
        }
    }

    /// Sends a call on a connection that is there. One that turns out to be lost before anything is sent is replaced.
    async fn attempt(
        &self,
        request: &Request<Bytes>,
        deadline: Option<Instant>,
        history: &History,
    ) -> Result<Response<Body>, Failure> {
        let mut gone = 0;
        loop {
            let channel = self.endpoints.next().await?;
            let mut request =
                request.clone().map(|bytes| Body::new(Watched { bytes: Some(bytes), history: history.clone() }));
            if let Some(at) = deadline {
                request.headers_mut().insert(TIMEOUT, left(at));
            }
            let failure = match Channel::clone(&channel).oneshot(request).await {
                Ok(response) => return begun(response).map_err(Failure::from),
                Err(error) => lost(error.into(), history.is_sent()),
            };
            gone += 1;
            if history.is_sent() || gone > self.endpoints.lost(&channel) {
                return Err(failure);
            }
        }
    }

    /// How long to wait before a call is sent again. None: it isn't. A rate limit makes the attempts begin anew.
    fn pause(&self, path: &str, failure: &Status, attempts: &mut u64, deadline: Option<Instant>) -> Option<Duration> {
        if is_limited(failure) {
            *attempts = 0;
            return self.wait(path, failure, deadline);
        }
        let policy = RetryPolicy::of(path).filter(|_| self.retries)?;
        if *attempts >= policy.max_attempts || !policy.repeats(failure.code()) {
            return None;
        }
        match failure.metadata().get(PUSHBACK) {
            // One that is negative or can't be read means that there is to be no other attempt.
            Some(pushback) => Some(Duration::from_millis(pushback.to_str().ok()?.parse().ok()?)),
            None => Some(policy.backoff(*attempts)),
        }
    }

    /// How long to wait for a rate limit. None: the call doesn't, or would have to wait for longer than it has time. As long as
    /// the server says and up to as much again, so that calls that were refused together come back one by one.
    fn wait(&self, path: &str, refusal: &Status, deadline: Option<Instant>) -> Option<Duration> {
        let forbidden = refusal.metadata().get(PUSHBACK).is_some_and(|pushback| pushback.as_bytes().starts_with(b"-"));
        if !self.wait_for_limit || !(matches!(path, CALL_TOOL | CALL_TOOL_STREAM) || is_typed(path)) || forbidden {
            return None;
        }
        let told = refusal.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or_default();
        let told = told.max(SHORTEST_WAIT);
        let spare = match deadline {
            Some(at) => (at - Instant::now()).checked_sub(told).filter(|spare| !spare.is_zero())?,
            None => told * 2,
        };
        Some(told + told.min(spare / 2).mul_f64(fastrand::f64()))
    }
}

/// The bytes of a request. That they are taken means that its headers are on their way, on a connection that is there.
struct Watched {
    bytes: Option<Bytes>,
    history: History,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        self.history.sent();
        Poll::Ready(self.bytes.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// Begins to be an answer with the first headers. A status that comes instead of one is an error.
fn begun(response: Response<Body>) -> Result<Response<Body>, Status> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => Err(status),
        None if !is_grpc(&response) => Err(foreign(&response)),
        _ => Ok(response),
    }
}

fn is_grpc(response: &Response<Body>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    response.status() == StatusCode::OK && kind.starts_with(b"application/grpc")
}

/// What a proxy or another server says that doesn't know gRPC, with the codes of gRPC's http-grpc-status-mapping.md.
fn foreign(response: &Response<Body>) -> Status {
    let code = match response.status().as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    let said = match code {
        Code::Unavailable => format!("HTTP {}", response.status()),
        _ => format!("the server answered with HTTP {} instead of gRPC: check the target", response.status()),
    };
    Status::new(code, said)
}

/// Reads an answer to its end, so that the time-out of the request holds for all of it.
async fn answer(response: Response<Body>) -> Result<Response<Body>, Failure> {
    let (head, body) = response.into_parts();
    let body =
        Limited::new(body, PREFIX_BYTES + MAX_ANSWER_BYTES).collect().await.map_err(|error| lost(error, true))?;
    Ok(Response::from_parts(head, Body::new(body)))
}

/// Another method of the same service.
fn sibling(uri: &Uri, path: &'static str) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static(path));
    Uri::from_parts(parts).expect("only the path has changed")
}

fn check_size(framed: &Bytes) -> Result<(), Status> {
    let bytes = framed.len().saturating_sub(PREFIX_BYTES);
    if bytes <= MAX_REQUEST_BYTES {
        return Ok(());
    }
    let reason = ErrorReason::RequestTooLarge.as_str_name();
    let message = format!("The request has {bytes} bytes, and {MAX_REQUEST_BYTES} are allowed: shorten its arguments");
    Err(Status::with_error_details(Code::InvalidArgument, message, ErrorDetails::with_error_info(reason, DOMAIN, [])))
}

fn is_limited(status: &Status) -> bool {
    status
        .get_details_error_info()
        .is_some_and(|info| info.domain == DOMAIN && info.reason == ErrorReason::RateLimited.as_str_name())
}

fn too_late() -> Status {
    Status::deadline_exceeded("no answer within the time-out")
}

/// What is left of a connection that broke, if the request was sent, or never came about.
pub(crate) fn lost(error: BoxError, sent: bool) -> Failure {
    if error.is::<LengthLimitError>() {
        return Status::resource_exhausted(format!("the answer has more than {MAX_ANSWER_BYTES} bytes")).into();
    }
    let said = if sent { format!("the connection broke: {}", causes(&*error)) } else { unconnected(&*error) };
    unavailable(error, said)
}

/// A proxy that leads nowhere.
pub(crate) fn unreachable(error: BoxError, proxy: &str) -> Failure {
    let said = format!("no connection through the proxy {proxy} of HTTPS_PROXY or ALL_PROXY: {}", causes(&*error));
    unavailable(error, said)
}

fn unavailable(error: BoxError, said: String) -> Failure {
    let status = Status::from_error(error);
    let code = match status.code() {
        // tonic's for most of what is wrong with a connection.
        Code::Unknown | Code::Internal => Code::Unavailable,
        code => code,
    };
    Failure { status: Status::new(code, said), source: Some(status.into()) }
}

fn unconnected(error: &(dyn StdError + 'static)) -> String {
    let kind = chain(error).find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    match (causes(error), kind) {
        (causes, Some(ErrorKind::ConnectionRefused)) => {
            format!("no connection: {causes}. Is agenta-ai-server running?")
        }
        // rustls's.
        (causes, Some(ErrorKind::InvalidData)) => {
            format!("TLS failed: {causes}. Does the server speak TLS, with a certificate that this client trusts?")
        }
        (causes, _) => format!("no connection: {causes}"),
    }
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The causes of an error of tonic, which says nothing itself.
fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in chain(error).map(ToString::to_string).filter(|cause| cause != "transport error") {
        // Some errors have the text of their cause.
        if said.last().is_none_or(|last| !last.ends_with(&cause)) {
            said.push(cause);
        }
    }
    said.join(": ")
}

/// When a request ends, by its time-out.
fn deadline(headers: &HeaderMap) -> Option<Instant> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = number.parse::<u32>().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(3600) * number,
        "M" => Duration::from_secs(60) * number,
        "S" => Duration::from_secs(1) * number,
        "m" => Duration::from_millis(1) * number,
        "u" => Duration::from_micros(1) * number,
        "n" => Duration::from_nanos(1) * number,
        _ => return None,
    };
    Some(Instant::now() + timeout)
}

/// The time-out of one attempt. Never less than there is, because tonic ends an attempt by it as CANCELLED.
fn left(deadline: Instant) -> HeaderValue {
    let left = deadline.saturating_duration_since(Instant::now());
    // The number has eight digits at most: three years.
    let text = match left.as_nanos().div_ceil(1_000_000) {
        millis if millis < 100_000_000 => format!("{millis}m"),
        _ => format!("{}S", (left.as_secs() + 1).min(99_999_999)),
    };
    HeaderValue::try_from(text).expect("digits and a letter can be sent")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::left;

    #[tokio::test(start_paused = true)]
    async fn time_outs_have_eight_digits() {
        for (seconds, text) in [(1, "1000m"), (99_999, "99999000m"), (100_000, "100001S"), (1 << 40, "99999999S")] {
            assert_eq!(left(Instant::now() + Duration::from_secs(seconds)), text);
        }
    }
}
