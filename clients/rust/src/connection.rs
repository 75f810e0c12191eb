//! tonic has no service config, so what other languages' gRPC makes of one is here.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

use crate::credentials::Credentials;

/// The largest answer.
pub(crate) const MAX_ANSWER_BYTES: usize = 16 << 20;

const CALL_TOOL: &str = "/agenta.ai.v1.ToolService/CallTool";
const TIMEOUT: &str = "grpc-timeout";
const PUSHBACK: &str = "grpc-retry-pushback-ms";
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";

/// A channel for the methods of the service, none of which streams. It says who calls, keeps to the time-out of a request over
/// all its attempts, and sends again what came to nothing: if the server is unavailable, or the connection breaks, or the
/// server stops before it has begun, which comes as CANCELLED.
#[derive(Clone)]
pub struct Connection {
    channel: Channel,
    credentials: Credentials,
    wait_for_limit: bool,
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let connection = self.clone();
        Box::pin(async move { Ok(connection.send(request).await.unwrap_or_else(Status::into_http)) })
    }
}

impl Connection {
    pub(crate) fn new(channel: Channel, credentials: Credentials, wait_for_limit: bool) -> Self {
        Self { channel, credentials, wait_for_limit }
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let deadline = deadline(request.headers());
        let repeated = self.repeat(request, deadline);
        match deadline {
            Some(at) => timeout_at(at, repeated).await.unwrap_or_else(|_| Err(too_late())),
            None => repeated.await,
        }
    }

    async fn repeat(&self, request: Request<Body>, deadline: Option<Instant>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        let mut request = Request::from_parts(head, body.collect().await?.to_bytes());
        self.credentials.sign(request.headers_mut())?;
        for attempt in 1.. {
            let failure = match self.attempt(&request, deadline).await {
                Ok(response) => return answer(response).await,
                Err(failure) => failure,
            };
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return Err(too_late());
            }
            let Some(pause) = self.pause(request.uri().path(), &failure, attempt) else {
                return Err(failure);
            };
            sleep(pause).await;
            request.headers_mut().insert(PREVIOUS_ATTEMPTS, attempt.into());
        }
        unreachable!("an attempt is the last")
    }

    /// Begins to be an answer with the first headers. A status that comes instead of one is an error.
    async fn attempt(&self, request: &Request<Bytes>, deadline: Option<Instant>) -> Result<Response<Body>, Status> {
        let mut request = request.clone().map(|bytes| Body::new(Full::new(bytes)));
        if let Some(at) = deadline {
            request.headers_mut().insert(TIMEOUT, left(at));
        }
        let response = self.channel.clone().oneshot(request).await.map_err(|error| lost(error.into()))?;
        match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != Code::Ok => Err(status),
            // A proxy that doesn't know gRPC.
            None if matches!(response.status().as_u16(), 429 | 502..=504) => {
                Err(Status::unavailable(format!("HTTP {}", response.status())))
            }
            _ => Ok(response),
        }
    }

    /// How long to wait before the next attempt. None: there is to be none.
    fn pause(&self, method: &str, failure: &Status, attempt: u32) -> Option<Duration> {
        // Each call of a tool has a request_id, so that the server knows the repeat of one that it is running or has run.
        let attempts = if method == CALL_TOOL { 5 } else { 4 };
        let again = match failure.code() {
            Code::Unavailable | Code::Cancelled => true,
            Code::ResourceExhausted => self.wait_for_limit && method == CALL_TOOL,
            _ => false,
        };
        if attempt >= attempts || !again {
            return None;
        }
        match failure.metadata().get(PUSHBACK) {
            // One that is negative or can't be read means that there is to be no other attempt.
            Some(pushback) => Some(Duration::from_millis(pushback.to_str().ok()?.parse().ok()?)),
            None => Some(backoff(attempt)),
        }
    }
}

/// 0.1 s, then twice as long each time up to 2 s, all of it give or take a fifth.
fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(100 << (attempt - 1)).min(Duration::from_secs(2)).mul_f64(0.8 + 0.4 * fastrand::f64())
}

/// Reads an answer to its end, so that the time-out of the request holds for all of it.
async fn answer(response: Response<Body>) -> Result<Response<Body>, Status> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(lost)?;
    Ok(Response::from_parts(head, Body::new(body)))
}

fn too_late() -> Status {
    Status::deadline_exceeded("no answer within the time-out")
}

/// The status of a connection that broke or never came about.
fn lost(error: Box<dyn StdError + Send + Sync>) -> Status {
    if error.is::<LengthLimitError>() {
        return Status::resource_exhausted(format!("the answer has more than {MAX_ANSWER_BYTES} bytes"));
    }
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Some errors have the text of their cause.
        if !said.ends_with(&cause.to_string()) {
            said = format!("{said}: {cause}");
        }
        if cause.downcast_ref().is_some_and(|cause: &io::Error| cause.kind() == ErrorKind::ConnectionRefused) {
            said = format!("no connection, is agenta-ai-server running? {cause}");
        }
        source = cause.source();
    }
    let status = Status::from_error(error);
    match status.code() {
        // tonic's for most of what is wrong with a connection.
        Code::Unknown | Code::Internal => Status::unavailable(said),
        code => Status::new(code, said),
    }
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
    // The number has eight digits at most.
    let text = match left.as_nanos().div_ceil(1_000_000) {
        millis if millis < 100_000_000 => format!("{millis}m"),
        _ => format!("{}S", left.as_secs() + 1),
    };
    HeaderValue::try_from(text).expect("digits and a letter can be sent")
}
