//! The client against a real server on loopback.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agenta_ai::tools::api_v1::RefinePromptRequest;
use agenta_ai::tools::api_v1::api_tools_service_client::ApiToolsServiceClient;
use agenta_ai::v1::call_tool_stream_response::Event;
use agenta_ai::v1::{
    self, CallToolRequest, CallToolResponse, CallToolStreamRequest, CallToolStreamResponse, ErrorReason,
    ListToolsRequest, ListToolsResponse, StatusRequest, StatusResponse,
};
use agenta_ai::{Builder, CALL_TIMEOUT, CallError, Client, Error, ToolEvent, ToolStream, pack, request, unpack};
use prost_types::value::Kind;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnixListenerStream};
use tonic::body::Body;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::layer::layer_fn;
use tower::service_fn;

use server::tool_service_server::{ToolService, ToolServiceServer};

/// The server of the contract, which the crate leaves out.
#[allow(clippy::pedantic)]
mod server {
    include!("generated/agenta.ai.v1.rs");
}

type Answer = Result<CallToolResponse, Status>;
type Events = ReceiverStream<Result<CallToolStreamResponse, Status>>;

/// One attempt as the server saw it.
#[derive(Clone)]
struct Arrival {
    request: CallToolRequest,
    at: Instant,
    timeout: Option<String>,
    authorization: Option<String>,
}

/// Answers each attempt with the next of its answers, and stays with the last. Ends with its test.
#[derive(Clone)]
struct Service {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    arrived: Arc<Notify>,
    /// The caller of what isn't answered has gone away.
    left: Arc<Notify>,
    bucket: Arc<Mutex<Option<Bucket>>>,
}

/// Notifies when a call that isn't answered is cancelled.
struct Gone<'a>(&'a Notify);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Lets ten calls in at once, and then two hundred a second.
struct Bucket {
    began: Instant,
    taken: u32,
}

impl Bucket {
    fn take(&mut self) -> Answer {
        let due = Duration::from_millis(5) * (self.taken + 1).saturating_sub(10);
        match due.checked_sub(self.began.elapsed()) {
            Some(wait) if !wait.is_zero() => limited(wait.as_millis().try_into().unwrap()),
            _ => {
                self.taken += 1;
                done()
            }
        }
    }
}

struct Served {
    target: String,
    service: Service,
    task: AbortHandle,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        Self {
            answers,
            arrivals: Arc::default(),
            arrived: Arc::default(),
            left: Arc::default(),
            bucket: Arc::default(),
        }
    }

    /// Without an answer, none comes.
    async fn next<T>(&self, request: &Request<T>, message: CallToolRequest) -> Answer {
        let answer = self.choose(request, message);
        self.arrived.notify_one();
        if let Some(answer) = answer {
            return answer;
        }
        let _gone = Gone(&self.left);
        std::future::pending().await
    }

    fn choose<T>(&self, request: &Request<T>, message: CallToolRequest) -> Option<Answer> {
        let text = |name| request.metadata().get(name).map(|value| value.to_str().unwrap().to_owned());
        self.arrivals.lock().unwrap().push(Arrival {
            request: message,
            at: Instant::now(),
            timeout: text("grpc-timeout"),
            authorization: text("authorization"),
        });
        if let Some(bucket) = &mut *self.bucket.lock().unwrap() {
            return Some(bucket.take());
        }
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
    }
}

#[tonic::async_trait]
impl ToolService for Service {
    async fn call_tool(&self, request: Request<CallToolRequest>) -> Result<Response<CallToolResponse>, Status> {
        self.next(&request, request.get_ref().clone()).await.map(Response::new)
    }

    type CallToolStreamStream = Events;

    /// Reports `x`, but for what is refused, and then answers as a call without progress is answered. What is answered with OK
    /// and no content ends without a result.
    async fn call_tool_stream(&self, request: Request<CallToolStreamRequest>) -> Result<Response<Events>, Status> {
        let CallToolStreamRequest { name, arguments, request_id, rerun_if_outcome_unknown } = request.get_ref().clone();
        let message = CallToolRequest { name, arguments, request_id, rerun_if_outcome_unknown };
        let answer = self.choose(&request, message);
        self.arrived.notify_one();
        if let Some(Err(refused)) = &answer
            && refused.code() == Code::Unimplemented
        {
            return Err(refused.clone());
        }
        let (sender, events) = mpsc::channel(1);
        let left = self.left.clone();
        tokio::spawn(async move {
            let progress = v1::Progress { text: "x".to_owned(), ..Default::default() };
            sender.send(Ok(event(Event::Progress(progress)))).await.ok();
            match answer {
                Some(Ok(response)) if response == CallToolResponse::default() => {}
                Some(answer) => {
                    sender.send(answer.map(|response| event(Event::Result(response)))).await.ok();
                }
                None => {
                    sender.closed().await;
                    left.notify_one();
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(events)))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.next(&request, CallToolRequest::default()).await?;
        Ok(Response::new(StatusResponse { enabled: true, ..Default::default() }))
    }

    async fn list_tools(&self, _: Request<ListToolsRequest>) -> Result<Response<ListToolsResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

fn event(event: Event) -> CallToolStreamResponse {
    CallToolStreamResponse { event: Some(event) }
}

impl Served {
    async fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::with(Server::builder(), answers).await
    }

    async fn with(server: Server, answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), server, answers)
    }

    fn on(listener: TcpListener, mut server: Server, answers: impl IntoIterator<Item = Answer>) -> Self {
        let target = listener.local_addr().unwrap().to_string();
        let service = Service::new(answers);
        let serving = server
            .add_service(ToolServiceServer::new(service.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        Self { target, service, task: tokio::spawn(serving).abort_handle() }
    }

    /// Waits until a call has arrived.
    async fn arrival(&self) {
        self.service.arrived.notified().await;
    }

    fn arrivals(&self) -> Vec<Arrival> {
        self.service.arrivals.lock().unwrap().clone()
    }

    async fn call(&self, options: impl FnOnce(Builder) -> Builder) -> Result<CallToolResponse, Error> {
        options(Client::to(&self.target)).build().unwrap().call_tool(simple()).await
    }
}

const NOTHING_SENT: &str = "Nothing was sent, so the tool was not run.";

fn may_have_run(error: &CallError) -> String {
    let id = &error.request_id;
    format!("The call may have run and may have been billed. To get its result, send it again with request_id {id}.")
}

/// A call whose server doesn't answer.
async fn running() -> (Served, Client, tokio::task::JoinHandle<Result<CallToolResponse, Error>>, CallToolRequest) {
    let served = Served::new([]).await;
    let client = Client::to(&served.target).build().unwrap();
    let request = simple();
    let call = tokio::spawn({
        let (client, request) = (client.clone(), request.clone());
        async move { client.call_tool(request).await }
    });
    served.arrival().await;
    (served, client, call, request)
}

/// A rate limit that asks to come back after some milliseconds.
fn limited(millis: u64) -> Answer {
    let mut details = ErrorDetails::with_error_info("ERROR_REASON_RATE_LIMITED", "agenta.ai", []);
    details.set_retry_info(Some(Duration::from_millis(millis)));
    Err(Status::with_error_details(Code::ResourceExhausted, "No.", details))
}

fn simple() -> CallToolRequest {
    request("tools.x.y.z", &json!({"a": 1})).unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "it is one of several answers")]
fn done() -> Answer {
    Ok(CallToolResponse { structured_content: Some(value(&json!("done"))), ..Default::default() })
}

fn value(json: &Value) -> prost_types::Value {
    pack(&json!({"value": json})).unwrap().fields.remove("value").unwrap()
}

fn refused(code: Code, pushback: &str) -> Answer {
    let mut status = Status::new(code, "No.");
    status.metadata_mut().insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    Err(status)
}

fn call_error(outcome: Result<CallToolResponse, Error>) -> CallError {
    match outcome {
        Err(Error::Call(error)) => *error,
        other => panic!("got {other:?}"),
    }
}

#[tokio::test]
async fn result_is_put_into_native_type() {
    #[derive(Deserialize, PartialEq, Debug)]
    struct Counted {
        count: u32,
        ratio: f64,
        names: Vec<String>,
    }
    let content = json!({"count": 3, "ratio": 0.5, "names": ["a", "b"], "none": null, "yes": true});
    let answer = CallToolResponse { structured_content: Some(value(&content)), ..Default::default() };
    let served = Served::new([Ok(answer)]).await;
    let structured = served.call(|client| client).await.unwrap().structured_content;
    let expected = Counted { count: 3, ratio: 0.5, names: vec!["a".into(), "b".into()] };
    assert_eq!(unpack::<Counted>(structured.clone()).unwrap(), expected);
    assert_eq!(unpack::<Value>(structured.clone()).unwrap(), content);
    assert!(unpack::<u32>(structured).is_err());
    assert_eq!(unpack::<Value>(None).unwrap(), Value::Null);

    let arrival = &served.arrivals()[0];
    let arguments = arrival.request.arguments.as_ref().unwrap();
    assert_eq!(arguments.fields["a"].kind, Some(Kind::NumberValue(1.0)));
    let millis: u128 = arrival.timeout.as_ref().unwrap().trim_end_matches('m').parse().unwrap();
    assert!((CALL_TIMEOUT.as_millis() - 10_000..=CALL_TIMEOUT.as_millis()).contains(&millis), "{millis}");
}

#[test]
fn every_request_has_an_id_of_its_own() {
    let (first, second) = (simple().request_id, simple().request_id);
    assert_ne!(first, second);
    assert_eq!(uuid::Uuid::parse_str(&first).unwrap().get_version_num(), 4);
    assert_eq!(first.len(), 36);
}

#[test]
fn arguments_are_an_object() {
    assert!(request("tools.x.y.z", &[1]).is_err());
    assert!(request("tools.x.y.z", &BTreeMap::from([((1, 2), 3)])).is_err());
}

#[test]
fn arguments_arrive_as_they_are_or_not_at_all() {
    let error = pack(&json!({"a": [1, {"id": 9_007_199_254_740_993_u64}]})).unwrap_err().to_string();
    assert_eq!(error, "arguments.a[1].id: the integer 9007199254740993 doesn't fit a double: send it as a string");
    assert!(pack(&json!({"id": u64::MAX})).is_err());
    for fits in [i64::MIN, -9_007_199_254_740_992, 9_007_199_254_740_994] {
        assert!(pack(&json!({"id": fits})).is_ok(), "{fits}");
    }
    let mut deep = json!([]);
    for _ in 0..31 {
        deep = json!([deep]);
    }
    let error = pack(&json!({"a": deep})).unwrap_err().to_string();
    assert!(error.ends_with("nested too deep to be sent: send it as a string of JSON"), "{error}");
    assert!(pack(&json!({"a": deep[0]})).is_ok());
}

#[tokio::test]
async fn calls_by_the_stub_are_named_because_they_are_sent_again() {
    let served = Served::new([refused(Code::Unavailable, "0"), done()]).await;
    let client = Client::to(&served.target).build().unwrap();
    client.stub().call_tool(CallToolRequest { name: "t".into(), ..Default::default() }).await.unwrap();
    let ids: Vec<_> = served.arrivals().into_iter().map(|arrival| arrival.request.request_id).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!((ids[0].len(), &ids[0]), (36, &ids[1]));
}

#[tokio::test]
async fn errors_of_the_stub_have_the_id_to_ask_again_with() {
    let served = Served::new([refused(Code::Unavailable, "-1")]).await;
    let client = Client::to(&served.target).build().unwrap();
    let status = client.stub().call_tool(CallToolRequest { name: "t".into(), ..Default::default() }).await.unwrap_err();
    let error = CallError::from(status);
    assert_eq!((&error.request_id, error.not_run), (&served.arrivals()[0].request.request_id, false));
    assert!(error.to_string().ends_with(&may_have_run(&error)), "{error}");

    let client = Client::to("127.0.0.1:1").disable_retries().build().unwrap();
    let mut tools = ApiToolsServiceClient::new(client.connection());
    let error = CallError::from(tools.refine_prompt(RefinePromptRequest::default()).await.unwrap_err());
    assert_eq!(error.request_id.len(), 36);
    assert!(error.to_string().ends_with(NOTHING_SENT), "{error}");
}

#[tokio::test]
async fn refusal_is_decoded() {
    let mut details = ErrorDetails::new();
    details
        .set_error_info("ERROR_REASON_RATE_LIMITED", "agenta.ai", [])
        .set_retry_info(Some(Duration::from_millis(1500)))
        .add_bad_request_violation("arguments.a", "Too long.")
        .add_quota_failure_violation("default", "10 a minute")
        .set_request_info("r", "");
    let served = Served::new([Err(Status::with_error_details(Code::ResourceExhausted, "No.", details))]).await;
    let error = call_error(served.call(|client| client).await);
    assert_eq!((error.code(), error.status.message()), (Code::ResourceExhausted, "No."));
    assert_eq!((error.reason, error.not_run), (ErrorReason::RateLimited, true));
    assert_eq!(error.retry_delay, Some(Duration::from_millis(1500)));
    let [violation] = &error.field_violations[..] else { panic!("not one violation") };
    assert_eq!((violation.field.as_str(), violation.description.as_str()), ("arguments.a", "Too long."));
    assert_eq!(error.quota_violations[0].subject, "default");
    assert_eq!((error.call_id.as_str(), error.request_id.len()), ("r", 36));
    assert_eq!(error.to_string(), "RATE_LIMITED: No; arguments.a: Too long; try again in 2 s");
    assert_eq!(served.arrivals().len(), 1);
}

#[tokio::test]
async fn only_the_service_says_that_a_tool_was_not_run() {
    for (reason, domain, not_run) in [
        ("ERROR_REASON_RATE_LIMITED", "proxy", false),
        ("ERROR_REASON_OF_2030", "agenta.ai", true),
        ("ERROR_REASON_OF_2030", "", false),
    ] {
        let details = ErrorDetails::with_error_info(reason, domain, []);
        let served = Served::new([Err(Status::with_error_details(Code::Internal, "No.", details))]).await;
        let error = call_error(served.call(|client| client).await);
        assert_eq!((error.not_run, error.reason), (not_run, ErrorReason::Unspecified), "{reason} {domain}");
        let said = if not_run { "Internal: No.".to_owned() } else { format!("Internal: No. {}", may_have_run(&error)) };
        assert_eq!(error.to_string(), said);
    }
}

#[tokio::test]
async fn details_that_cannot_be_read_are_as_good_as_none() {
    let served = Served::new([Err(Status::with_details(Code::Internal, "No.", b"\xff".as_slice().into()))]).await;
    let error = call_error(served.call(|client| client).await);
    assert_eq!((error.not_run, error.code()), (false, Code::Internal));
}

#[tokio::test]
async fn tool_that_failed() {
    let error = v1::ToolError {
        reason: ErrorReason::UpstreamUnavailable.into(),
        retryable: true,
        retry_delay: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        field_violations: vec![v1::FieldViolation { field: "f".into(), description: "d".into() }],
    };
    let text = v1::ContentBlock { kind: Some(v1::content_block::Kind::Text("Down.".into())) };
    let served = Served::new([Ok(CallToolResponse {
        is_error: true,
        content: vec![v1::ContentBlock::default(), text],
        error: Some(error),
        meta: Some(v1::CallMeta { trace_id: "t".into(), ..Default::default() }),
        ..Default::default()
    })])
    .await;
    let Err(Error::Tool(failed)) = served.call(|client| client).await else { panic!("no failure of a tool") };
    assert_eq!((failed.reason, failed.retryable), (ErrorReason::UpstreamUnavailable, true));
    assert_eq!(failed.retry_delay, Some(Duration::from_secs(2)));
    assert_eq!(failed.meta.as_ref().unwrap().trace_id, "t");
    assert_eq!(failed.to_string(), "UPSTREAM_UNAVAILABLE: Down; f: d; try again in 2 s");
}

#[tokio::test]
async fn waits_as_long_as_the_server_says() {
    let served = Served::new([limited(2000), limited(1), done()]).await;
    served.call(Builder::wait_for_limit).await.unwrap();
    let seen = served.arrivals();
    assert_eq!(seen.len(), 3);
    // The backoff alone would be at most 0.12 s, and then 0.24 s.
    let (first, second) = (seen[1].at - seen[0].at, seen[2].at - seen[1].at);
    assert!(first >= Duration::from_secs(2), "{first:?}");
    assert!(second < first, "{second:?}");
    assert!(seen.iter().all(|each| each.request.request_id == seen[0].request.request_id));
}

#[tokio::test]
async fn waits_as_often_as_it_has_time() {
    let served = Served::new((0..20).map(|_| limited(1)).chain([done()])).await;
    served.call(Builder::wait_for_limit).await.unwrap();
    assert_eq!(served.arrivals().len(), 21);
}

#[tokio::test]
async fn does_not_wait_in_vain() {
    let mut forbidden = limited(1).unwrap_err();
    forbidden.metadata_mut().insert("grpc-retry-pushback-ms", "-1".parse().unwrap());
    for answer in [limited(100_000), Err(forbidden)] {
        let served = Served::new([answer]).await;
        let error = call_error(served.call(Builder::wait_for_limit).await);
        assert_eq!((error.reason, error.not_run), (ErrorReason::RateLimited, true));
        assert_eq!(served.arrivals().len(), 1);
    }
}

/// Forty calls at once, where ten may start at once and then two hundred a second.
#[tokio::test]
async fn many_calls_wait_for_a_limit() {
    let served = Served::new([]).await;
    *served.service.bucket.lock().unwrap() = Some(Bucket { began: Instant::now(), taken: 0 });
    let client = Client::to(&served.target).wait_for_limit().build().unwrap();
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call_tool(simple()).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn closing_ends_calls_at_once() {
    let (served, client, call, request) = running().await;
    client.close();
    let error = call_error(call.await.unwrap());
    assert_eq!((error.code(), error.not_run), (Code::Cancelled, false));
    assert_eq!(error.request_id, request.request_id);
    assert_eq!(error.to_string(), format!("Cancelled: The client was closed. {}", may_have_run(&error)));
    assert_eq!(served.arrivals().len(), 1);
}

#[tokio::test]
async fn closing_ends_calls_that_wait_for_a_limit() {
    let served = Served::new([limited(50_000)]).await;
    let client = Client::to(&served.target).wait_for_limit().build().unwrap();
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call_tool(simple()).await }
    });
    served.arrival().await;
    // Whether it waits already doesn't matter.
    client.close();
    assert_eq!(call_error(call.await.unwrap()).code(), Code::Cancelled);
}

#[tokio::test]
async fn calls_after_closing() {
    let served = Served::new([done()]).await;
    let client = Client::to(&served.target).build().unwrap();
    client.call_tool(simple()).await.unwrap();
    client.clone().close();
    client.close();
    let error = call_error(client.call_tool(simple()).await);
    assert_eq!(error.to_string(), format!("Cancelled: The client is closed. {NOTHING_SENT}"));
    assert!(error.not_run);
    let status = client.stub().status(StatusRequest {}).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Cancelled, "The client is closed"));
    assert_eq!(served.arrivals().len(), 1);
}

#[tokio::test]
async fn request_that_is_too_large() {
    let served = Served::new([done()]).await;
    let client = Client::to(&served.target).build().unwrap();
    let large = request("tools.x.y.z", &json!({"a": "x".repeat(1 << 20)})).unwrap();
    let error = call_error(client.call_tool(large).await);
    assert_eq!((error.code(), error.reason), (Code::InvalidArgument, ErrorReason::RequestTooLarge));
    assert!(error.not_run);
    let said = error.to_string();
    assert!(said.starts_with("REQUEST_TOO_LARGE: The request has 1048"), "{said}");
    assert!(said.ends_with(&format!("and 1048576 are allowed: shorten its arguments. {NOTHING_SENT}")), "{said}");
    assert!(served.arrivals().is_empty());
}

#[tokio::test]
async fn request_id_that_is_empty() {
    let served = Served::new([done()]).await;
    let client = Client::to(&served.target).build().unwrap();
    let error = call_error(client.call_tool(CallToolRequest { request_id: String::new(), ..simple() }).await);
    assert_eq!((error.code(), error.not_run), (Code::InvalidArgument, true));
    assert!(served.arrivals().is_empty());
}

#[tokio::test]
async fn tool_that_is_to_be_run_again() {
    let served = Served::new([done()]).await;
    let client = Client::to(&served.target).build().unwrap();
    client.call_tool(CallToolRequest { rerun_if_outcome_unknown: true, ..simple() }).await.unwrap();
    assert!(served.arrivals()[0].request.rerun_if_outcome_unknown);
}

#[tokio::test]
async fn nothing_is_sent_again_without_retries() {
    let served = Served::new([refused(Code::Unavailable, "1"), done()]).await;
    let error = call_error(served.call(Builder::disable_retries).await);
    assert_eq!((error.code(), error.not_run), (Code::Unavailable, false));
    assert_eq!(served.arrivals().len(), 1);
}

/// The service may not know what the server before it has run.
#[tokio::test]
async fn refusal_after_a_lost_attempt_leaves_the_outcome_open() {
    let details = ErrorDetails::with_error_info("ERROR_REASON_OVERLOADED", "agenta.ai", []);
    let refusal = Status::with_error_details(Code::Aborted, "No.", details);
    let served = Served::new([refused(Code::Unavailable, "1"), Err(refusal)]).await;
    let error = call_error(served.call(|client| client).await);
    assert_eq!((error.reason, error.not_run), (ErrorReason::Overloaded, false));
    assert_eq!(error.to_string(), format!("OVERLOADED: No. {}", may_have_run(&error)));
}

#[test]
fn client_is_made_outside_a_runtime() {
    let client = Client::to("127.0.0.1:1").api_key("secret").build().unwrap();
    assert_eq!(format!("{client:?}"), r#"Client { connection: Connection { target: "127.0.0.1:1", .. } }"#);
    let builder = format!("{:?}", Client::to("127.0.0.1:1").api_key("secret"));
    assert!(!builder.contains("secret"), "{builder}");
    for (target, said) in [("http://127.0.0.1:1", "is a web address"), ("127.0.0.1", "\"127.0.0.1\"")] {
        let Err(Error::Config(error)) = Client::to(target).build() else { panic!("{target} is no target") };
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn dead_addresses_of_a_name_are_left_out() {
    // localhost is 127.0.0.1 and, on most machines, ::1, where nobody listens on this port.
    let served = Served::new([done()]).await;
    let port = served.target.rsplit_once(':').unwrap().1.to_owned();
    let client = Client::to(&format!("localhost:{port}")).disable_retries().build().unwrap();
    for _ in 0..4 {
        client.call_tool(simple()).await.unwrap();
    }
    assert_eq!(served.arrivals().len(), 4);
}

#[tokio::test]
async fn name_that_is_unknown() {
    let name = "agenta.invalid:443";
    let client = Client::to(name).tls(ClientTlsConfig::new()).disable_retries().build().unwrap();
    let error = call_error(client.call_tool(simple()).await);
    assert_eq!((error.code(), error.not_run), (Code::Unavailable, true));
    assert!(error.to_string().contains(name), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn token_source_that_fails() {
    let served = Served::new([done()]).await;
    let source = || async { Err::<String, _>("secret") };
    let error = call_error(served.call(|client| client.token_source(source)).await);
    assert_eq!((error.code(), error.not_run), (Code::Unauthenticated, true));
    assert_eq!(error.to_string(), format!("Unauthenticated: The token source failed. {NOTHING_SENT}"));
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "secret");
    assert!(served.arrivals().is_empty());
}

#[tokio::test]
async fn token_source_has_no_more_time_than_its_call() {
    let served = Served::new([done()]).await;
    let client =
        Client::to(&served.target).token_source(std::future::pending::<Result<String, Infallible>>).build().unwrap();
    let mut request = Request::new(simple());
    request.set_timeout(Duration::from_millis(100));
    let error = call_error(client.call_tool(request).await);
    assert_eq!((error.code(), error.not_run), (Code::DeadlineExceeded, true));
}

#[tokio::test]
async fn what_is_sent_again() {
    for (code, pushback, waiting, attempts) in [
        (Code::ResourceExhausted, "1", false, 1),
        (Code::ResourceExhausted, "1", true, 1),
        (Code::Unavailable, "1", false, 5),
        (Code::Unavailable, "-1", false, 1),
        (Code::Unavailable, "soon", false, 1),
        (Code::Unavailable, "1", true, 5),
        (Code::Cancelled, "1", false, 5),
        (Code::Internal, "1", true, 1),
        (Code::DeadlineExceeded, "1", true, 1),
    ] {
        let served = Served::new([refused(code, pushback)]).await;
        let outcome = served.call(|client| if waiting { client.wait_for_limit() } else { client }).await;
        assert_eq!(call_error(outcome).code(), code);
        assert_eq!(served.arrivals().len(), attempts, "{code:?} {pushback} {waiting}");
    }
}

#[tokio::test]
async fn backs_off_without_a_word_of_the_server() {
    let down = || Err(Status::unavailable("No."));
    let served = Served::new([down(), down(), done()]).await;
    served.call(|client| client).await.unwrap();
    let seen = served.arrivals();
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(80));
    assert!(seen[2].at - seen[1].at >= Duration::from_millis(160));
}

#[tokio::test]
async fn reads_are_sent_again() {
    let down = || refused(Code::Unavailable, "1");
    let served = Served::new([down(), down(), done()]).await;
    let client = Client::to(&served.target).build().unwrap();
    assert!(client.stub().status(StatusRequest {}).await.unwrap().into_inner().enabled);
    assert_eq!(served.arrivals().len(), 3);
}

#[tokio::test]
async fn largest_request_is_sent_again() {
    let served = Served::new([refused(Code::Unavailable, "1"), done()]).await;
    let large = request("tools.x.y.z", &json!({"a": "x".repeat((1 << 20) - 200)})).unwrap();
    Client::to(&served.target).build().unwrap().call_tool(large).await.unwrap();
    assert_eq!(served.arrivals().len(), 2);
}

/// Answers all attempts with a page, and counts them.
async fn page(status: u16) -> (Served, Arc<AtomicUsize>) {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let answer = service_fn(move |_: http::Request<Body>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let page = http::Response::builder().status(status).header("content-type", "text/html");
        async { Ok::<_, Infallible>(page.body(Body::new("<html>".to_owned())).unwrap()) }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let service = Service::new([done()]);
    let serving = Server::builder()
        .layer(layer_fn(move |_| answer.clone()))
        .add_service(ToolServiceServer::new(service.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    (Served { target, service, task: tokio::spawn(serving).abort_handle() }, attempts)
}

#[tokio::test]
async fn what_a_proxy_says_is_sent_again() {
    let (proxy, attempts) = page(502).await;
    let error = call_error(proxy.call(|client| client).await);
    assert_eq!((error.code(), error.not_run), (Code::Unavailable, false));
    assert_eq!(attempts.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn answers_that_are_not_grpc() {
    for (status, code, attempts_of_streams) in [
        (200, Code::Unknown, 1),
        (400, Code::Internal, 1),
        (401, Code::Unauthenticated, 1),
        (403, Code::PermissionDenied, 1),
        (404, Code::Unimplemented, 2),
        (500, Code::Unknown, 1),
    ] {
        let (served, attempts) = page(status).await;
        let error = call_error(served.call(|client| client).await);
        assert_eq!((error.code(), error.not_run), (code, status == 404), "{error}");
        let said = format!("the server answered with HTTP {status} ");
        assert!(error.status.message().starts_with(&said), "{error}");
        assert_eq!(attempts.swap(0, Ordering::SeqCst), 1);
        let (_, end) = followed(&served, |client| client).await;
        let Err(Error::Call(error)) = end else { panic!("{end:?}") };
        assert!(error.code() == code && error.status.message().starts_with(&said), "{error}");
        assert_eq!(attempts.load(Ordering::SeqCst), attempts_of_streams);
    }
}

#[tokio::test]
async fn authorization_is_given_once() {
    let given = || {
        let mut request = Request::new(simple());
        request.metadata_mut().insert("authorization", "ApiKey other".parse().unwrap());
        request
    };
    let served = Served::new([done()]).await;
    let client = Client::to(&served.target).api_key("own").build().unwrap();
    let error = call_error(client.call_tool(given()).await);
    assert_eq!((error.code(), error.not_run), (Code::InvalidArgument, true));
    assert!(served.arrivals().is_empty());
    Client::to(&served.target).build().unwrap().call_tool(given()).await.unwrap();
    assert_eq!(served.arrivals()[0].authorization.as_deref(), Some("ApiKey other"));
}

#[tokio::test]
async fn call_that_is_dropped_is_cancelled() {
    let (served, _client, call, _) = running().await;
    call.abort();
    served.service.left.notified().await;
    assert_eq!(served.arrivals().len(), 1);
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Such as that of each test of a program whose tests share a client.
#[test]
fn client_outlives_the_runtime_of_its_first_call() {
    let serving = runtime();
    let served = serving.block_on(Served::new([done()]));
    let client = Client::to(&served.target).disable_retries().build().unwrap();
    for _ in 0..3 {
        runtime().block_on(client.call_tool(simple())).unwrap();
    }
    assert_eq!(served.arrivals().len(), 3);
}

/// A socket whose port is shared only with others that are made so.
fn shared(address: &str) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address.parse().unwrap()).unwrap();
    socket
}

#[test]
fn server_that_comes_back() {
    let calling = runtime();
    let serving = runtime();
    // Nobody else can take the port while no server is there.
    let kept = shared("127.0.0.1:0");
    let target = kept.local_addr().unwrap().to_string();
    let serve = async || Served::on(shared(&target).listen(16).unwrap(), Server::builder(), [done()]);
    let served = serving.block_on(serve());
    let client = Client::to(&target).build().unwrap();
    calling.block_on(client.call_tool(simple())).unwrap();
    drop(serving); // with its connections
    let serving = runtime();
    let again = serving.block_on(serve());
    calling.block_on(client.call_tool(simple())).unwrap();
    assert_eq!((served.arrivals().len(), again.arrivals().len()), (1, 1));
}

#[tokio::test]
async fn time_out_holds_over_all_attempts() {
    // Takes connections, and answers nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::to(&silent.local_addr().unwrap().to_string()).build().unwrap();
    let mut request = Request::new(simple());
    request.set_timeout(Duration::from_secs(2));
    let began = Instant::now();
    let error = call_error(client.call_tool(request).await);
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert!(!error.not_run);
}

#[tokio::test]
async fn time_out_ends_a_pause_too() {
    let served = Served::new([refused(Code::Unavailable, "100000")]).await;
    let mut request = Request::new(simple());
    request.set_timeout(Duration::from_secs(2));
    let error = call_error(Client::to(&served.target).build().unwrap().call_tool(request).await);
    assert_eq!((error.code(), served.arrivals().len()), (Code::DeadlineExceeded, 1));
}

#[tokio::test]
async fn reads_do_not_wait_for_limits() {
    let served = Served::new([refused(Code::ResourceExhausted, "1")]).await;
    let client = Client::to(&served.target).wait_for_limit().build().unwrap();
    assert_eq!(client.stub().status(StatusRequest {}).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(served.arrivals().len(), 1);
}

/// A socket that refuses connections until it listens, and its address, which nobody else can take.
fn refusing() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = socket.local_addr().unwrap().to_string();
    (socket, target)
}

#[tokio::test]
async fn nobody_is_there() {
    let (_nobody, target) = refusing();
    let error = call_error(Client::to(&target).build().unwrap().call_tool(simple()).await);
    assert_eq!((error.code(), error.not_run), (Code::Unavailable, true));
    let said = error.to_string();
    assert!(said.starts_with("Unavailable: no connection: Connection refused "), "{said}");
    assert!(said.ends_with(&format!("Is agenta-ai-server running? {NOTHING_SENT}")), "{said}");
    let chain: Vec<_> = std::iter::successors(std::error::Error::source(&error), |error| error.source())
        .map(ToString::to_string)
        .collect();
    assert!(chain.last().unwrap().starts_with("Connection refused "), "{chain:?}");
    assert!(chain.iter().all(|cause| !cause.contains("source:")), "{chain:?}");
}

#[tokio::test]
async fn server_that_was_away_is_found_at_once() {
    let (socket, target) = refusing();
    let client = Client::to(&target).disable_retries().build().unwrap();
    for _ in 0..10 {
        client.call_tool(simple()).await.unwrap_err();
    }
    let _served = Served::on(socket.listen(16).unwrap(), Server::builder(), [done()]);
    client.call_tool(simple()).await.unwrap();
}

#[tokio::test]
async fn keys_and_tokens() {
    for (builder, expected) in [
        (Client::to as fn(&str) -> Builder, None),
        (|target| Client::to(target).api_key(""), None),
        (|target| Client::to(target).api_key("aai_k"), Some("ApiKey aai_k")),
        (|target| Client::to(target).token("t"), Some("Bearer t")),
        (|target| Client::to(target).token_source(|| async { Ok::<_, Infallible>("t".into()) }), Some("Bearer t")),
    ] {
        let served = Served::new([done()]).await;
        builder(&served.target).build().unwrap().call_tool(simple()).await.unwrap();
        assert_eq!(served.arrivals()[0].authorization.as_deref(), expected);
    }
}

#[tokio::test]
async fn secret_that_cannot_be_sent() {
    for secret in ["aai_1\n", "aai_1 2", "aai_é"] {
        let served = Served::new([done()]).await;
        let error = call_error(served.call(|client| client.api_key(secret)).await);
        assert_eq!((error.code(), error.not_run), (Code::Unauthenticated, true));
        assert!(!error.to_string().contains("aai_"), "{error}");
        assert!(served.arrivals().is_empty());
    }
}

#[tokio::test]
async fn key_is_sent_over_tls() {
    // The server needs it with all features; the client would take ring itself.
    rustls::crypto::ring::default_provider().install_default().ok();
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let identity = Identity::from_pem(own.cert.pem(), own.signing_key.serialize_pem());
    let encrypted = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
    let served = Served::with(encrypted, [done()]).await;
    let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(own.cert.pem()));
    served.call(|client| client.tls(trusting).api_key("k")).await.unwrap();
    assert_eq!(served.arrivals()[0].authorization.as_deref(), Some("ApiKey k"));

    let error = call_error(served.call(|client| client.tls(ClientTlsConfig::new()).api_key("k")).await);
    assert_eq!((error.code(), error.not_run), (Code::Unavailable, true));
    let said = error.to_string();
    assert!(said.starts_with("Unavailable: TLS failed: invalid peer certificate: UnknownIssuer. Does "), "{said}");
    assert!(said.ends_with(NOTHING_SENT), "{said}");
    assert_eq!(served.arrivals().len(), 1);
}

#[tokio::test]
async fn key_is_sent_over_a_socket() {
    let path = std::env::temp_dir().join(format!("agenta-{}", uuid::Uuid::new_v4()));
    let listener = UnixListener::bind(&path).unwrap();
    let service = Service::new([done()]);
    let serving = Server::builder()
        .add_service(ToolServiceServer::new(service.clone()))
        .serve_with_incoming(UnixListenerStream::new(listener));
    let served =
        Served { target: format!("unix:{}", path.display()), service, task: tokio::spawn(serving).abort_handle() };
    let outcome = served.call(|client| client.api_key("k")).await;
    std::fs::remove_file(path).unwrap();
    outcome.unwrap();
    assert_eq!(served.arrivals()[0].authorization.as_deref(), Some("ApiKey k"));
}

/// The texts of the progress of a call, and how it ended.
async fn followed(served: &Served, options: impl FnOnce(Builder) -> Builder) -> (String, Result<Value, Error>) {
    let client = options(Client::to(&served.target)).build().unwrap();
    let mut stream = client.stream_tool(simple()).await.unwrap();
    let mut texts = String::new();
    loop {
        match stream.message().await {
            Ok(Some(ToolEvent::Progress(progress))) => texts.push_str(&progress.text),
            Ok(Some(ToolEvent::Result(result))) => {
                assert_eq!(stream.message().await.unwrap(), None);
                return (texts, Ok(unpack(result.structured_content).unwrap()));
            }
            Ok(_) => panic!("no result"),
            Err(error) => {
                assert_eq!(stream.message().await.unwrap(), None);
                return (texts, Err(error));
            }
        }
    }
}

/// What the server says of itself after progress.
fn broken(pushback: &str) -> Answer {
    let mut status = Status::unavailable("No.");
    status.metadata_mut().insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    Err(status)
}

#[tokio::test]
async fn progress_and_result() {
    let refused = || {
        let details = ErrorDetails::with_error_info("ERROR_REASON_TOOL_NOT_FOUND", "agenta.ai", []);
        Err(Status::with_error_details(Code::NotFound, "No.", details))
    };
    for (name, answers, texts, code, attempts) in [
        ("result", vec![done()], "x", Code::Ok, 1),
        ("broken", vec![broken("1"), broken("1"), done()], "xxx", Code::Ok, 3),
        ("broken for good", vec![broken("1")], "xxxxx", Code::Unavailable, 5),
        ("never again", vec![broken("-1")], "x", Code::Unavailable, 1),
        ("pushback that is no number", vec![broken("soon")], "x", Code::Unavailable, 1),
        ("refused", vec![refused()], "x", Code::NotFound, 1),
        ("limited", vec![limited(1), done()], "xx", Code::Ok, 2),
        ("older server", vec![Err(Status::unimplemented("No.")), done()], "", Code::Ok, 2),
        ("older server that fails", vec![Err(Status::unimplemented("No.")), refused()], "", Code::NotFound, 2),
        ("no result", vec![Ok(CallToolResponse::default())], "x", Code::Internal, 1),
    ] {
        let served = Served::new(answers).await;
        let (came, end) = followed(&served, Builder::wait_for_limit).await;
        assert_eq!(came, texts, "{name}");
        match end {
            Ok(result) => assert_eq!((result, code), (json!("done"), Code::Ok), "{name}"),
            Err(Error::Call(error)) => {
                assert_eq!(error.code(), code, "{name}: {error}");
                assert_eq!(error.not_run, code == Code::NotFound, "{name}: {error}");
            }
            Err(error) => panic!("{name}: {error}"),
        }
        let arrivals = served.arrivals();
        assert_eq!(arrivals.len(), attempts, "{name}");
        assert!(arrivals.iter().all(|each| each.request == arrivals[0].request), "{name}");
    }
}

#[tokio::test]
async fn stream_that_breaks_without_retries_is_in_doubt() {
    let served = Served::new([broken("1")]).await;
    let (texts, end) = followed(&served, Builder::disable_retries).await;
    let Err(Error::Call(error)) = end else { panic!("{end:?}") };
    assert_eq!((&*texts, error.code(), served.arrivals().len()), ("x", Code::Unavailable, 1));
    assert!(error.to_string().ends_with(&may_have_run(&error)), "{error}");
}

#[tokio::test]
async fn result_of_a_stream_that_failed() {
    let failed = CallToolResponse { is_error: true, ..Default::default() };
    let served = Served::new([Ok(failed)]).await;
    let (_, end) = followed(&served, |builder| builder).await;
    let Err(Error::Tool(error)) = end else { panic!("{end:?}") };
    assert_eq!(error.request_id, served.arrivals()[0].request.request_id);
}

/// A stream of which the first message has come, and no other comes.
async fn begun() -> (Served, Client, ToolStream) {
    let served = Served::new([]).await;
    let client = Client::to(&served.target).build().unwrap();
    let mut stream = client.stream_tool(simple()).await.unwrap();
    assert!(matches!(stream.message().await, Ok(Some(ToolEvent::Progress(_)))));
    (served, client, stream)
}

#[tokio::test]
async fn stream_that_is_dropped_is_cancelled() {
    let (served, _client, stream) = begun().await;
    drop(stream);
    served.service.left.notified().await;
}

#[tokio::test]
async fn closing_ends_a_stream() {
    let (served, client, mut stream) = begun().await;
    let id = served.arrivals()[0].request.request_id.clone();
    client.close();
    let Err(Error::Call(error)) = stream.message().await else { panic!("not closed") };
    assert_eq!((error.code(), error.status.message()), (Code::Cancelled, "The client was closed"));
    assert_eq!(error.request_id, id);
    assert!(error.to_string().ends_with(&may_have_run(&error)), "{error}");
    served.service.left.notified().await;
}

#[tokio::test]
async fn time_out_ends_a_stream() {
    let served = Served::new([]).await;
    let client = Client::to(&served.target).build().unwrap();
    let mut request = Request::new(simple());
    request.set_timeout(Duration::from_secs(2));
    let mut stream = client.stream_tool(request).await.unwrap();
    assert!(matches!(stream.message().await, Ok(Some(ToolEvent::Progress(_)))));
    let Err(Error::Call(error)) = stream.message().await else { panic!("not ended") };
    assert_eq!((error.code(), error.not_run), (Code::DeadlineExceeded, false));
}

#[tokio::test]
async fn events_are_a_stream() {
    let served = Served::new([done()]).await;
    let client = Client::to(&served.target).build().unwrap();
    let events: Vec<_> = client.stream_tool(simple()).await.unwrap().collect().await;
    assert!(matches!(&events[..], [Ok(ToolEvent::Progress(_)), Ok(ToolEvent::Result(_))]), "{events:?}");
    // The generated client has the same, and its retries.
    let served = Served::new([broken("1"), done()]).await;
    let client = Client::to(&served.target).build().unwrap();
    let CallToolRequest { name, arguments, request_id, .. } = simple();
    let request = CallToolStreamRequest { name, arguments, request_id, ..Default::default() };
    let events: Vec<_> = client.stub().call_tool_stream(request).await.unwrap().into_inner().collect().await;
    assert_eq!(events.len(), 3, "{events:?}");
}

#[tokio::test]
async fn stream_without_a_server() {
    let client = Client::to("127.0.0.1:1").disable_retries().build().unwrap();
    let mut stream = client.stream_tool(simple()).await.unwrap();
    let Err(Error::Call(error)) = stream.message().await else { panic!("connected") };
    assert!(error.not_run && error.to_string().ends_with(NOTHING_SENT), "{error}");
}

#[tokio::test]
async fn stream_without_an_id() {
    let client = Client::to("127.0.0.1:1").build().unwrap();
    let request = CallToolRequest { request_id: String::new(), ..simple() };
    let Err(Error::Call(error)) = client.stream_tool(request).await else { panic!("sent") };
    assert_eq!((error.code(), error.not_run), (Code::InvalidArgument, true));
}
