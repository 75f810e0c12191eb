//! What programs are compiled against: a change that breaks one of them breaks this. cargo-semver-checks compares releases,
//! once there is one.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt::{Debug, Display};
use std::time::Duration;

use agenta_ai::tonic::transport::ClientTlsConfig;
use agenta_ai::tonic::{Code, Request, Status};
use agenta_ai::v1::call_tool_stream_response::Event;
use agenta_ai::v1::tool_service_client::ToolServiceClient;
use agenta_ai::v1::{CallMeta, CallToolRequest, CallToolResponse, ErrorReason, Progress};
use agenta_ai::{
    Builder, CALL_TIMEOUT, CallError, Client, ConfigError, Connection, Error, FieldViolation, ToolError, ToolEvent,
    ToolStream, pack, prost_types, request, tonic_types, unpack,
};
use serde_json::Value;
use tokio_stream::Stream;

const fn shared<T: Clone + Send + Sync + Debug + 'static>() {}
const fn error<T: StdError + Display + Clone + Send + Sync + 'static>() {}

#[test]
fn signatures() {
    let _: Duration = CALL_TIMEOUT;
    let _: fn(&str, &Value) -> Result<CallToolRequest, serde_json::Error> = request;
    let _: fn(&Value) -> Result<prost_types::Struct, serde_json::Error> = pack;
    let _: fn(Option<prost_types::Value>) -> Result<Value, serde_json::Error> = unpack;
    let _: fn(&str) -> Builder = Client::to;
    let _: fn(&Client) -> ToolServiceClient<Connection> = Client::stub;
    let _: fn(&Client) -> Connection = Client::connection;
    let _: fn(&Client) = Client::close;
    let _: fn(Builder, String) -> Builder = Builder::api_key;
    let _: fn(Builder, &'static str) -> Builder = Builder::token;
    let _: fn(Builder, ClientTlsConfig) -> Builder = Builder::tls;
    let _: fn(Builder) -> Builder = Builder::wait_for_limit;
    let _: fn(Builder) -> Builder = Builder::disable_retries;
    let _: fn(Builder) -> Result<Client, Error> = Builder::build;
    let _: fn(Status) -> CallError = CallError::from;
    let _: fn(CallToolResponse) -> ToolError = ToolError::from;
    let _: fn(&CallError) -> Code = CallError::code;
    let _ = |builder: Builder| builder.token_source(|| async { Ok::<_, Infallible>(String::new()) });
}

#[test]
fn traits() {
    shared::<Client>();
    shared::<Connection>();
    error::<Error>();
    error::<ConfigError>();
    error::<CallError>();
    error::<ToolError>();
    shared::<FieldViolation>();
}

/// The contract may add variants: without `#[non_exhaustive]` the last arm is unreachable.
#[test]
#[deny(unreachable_patterns)]
fn enums_of_the_contract_grow() {
    let known = match Event::Progress(Progress::default()) {
        Event::Progress(_) => 1,
        Event::Result(_) => 2,
        _ => 0,
    };
    assert_eq!(known, 1);
}

/// Compiled, but not run.
#[expect(dead_code, reason = "that it can be compiled is the test")]
fn fields(call: CallError, tool: ToolError, violation: FieldViolation) {
    let _: (ErrorReason, bool, Option<Duration>) = (call.reason, call.not_run, call.retry_delay);
    let _: (Vec<FieldViolation>, Vec<tonic_types::QuotaViolation>) = (call.field_violations, call.quota_violations);
    let _: (String, String, Status) = (call.request_id, call.call_id, call.status);
    let _: (ErrorReason, String, bool, Option<Duration>) =
        (tool.reason, tool.message, tool.retryable, tool.retry_delay);
    let _: (Vec<FieldViolation>, String, Option<CallMeta>) = (tool.field_violations, tool.request_id, tool.meta);
    let _: (String, String) = (violation.field, violation.description);
}

#[expect(dead_code, reason = "that it can be compiled is the test")]
async fn calls(client: Client, request: CallToolRequest) -> Result<CallToolResponse, Error> {
    fn sent<T: Send>(future: T) -> T {
        future
    }
    match sent(client.call_tool(request.clone())).await {
        Err(Error::Config(_) | Error::Call(_) | Error::Tool(_) | _) | Ok(_) => {}
    }
    client.call_tool(Request::new(request)).await
}

#[expect(dead_code, reason = "that it can be compiled is the test")]
async fn streams(client: Client, request: CallToolRequest) -> Result<(), Error> {
    fn sent<T: Send + Unpin + Debug + Stream<Item = Result<ToolEvent, Error>>>(stream: T) -> T {
        stream
    }
    let mut stream: ToolStream = sent(client.stream_tool(request).await?);
    match stream.message().await? {
        Some(ToolEvent::Progress(Progress { .. })) | None => {}
        Some(ToolEvent::Result(result)) => drop::<Box<CallToolResponse>>(result),
        Some(_) => unreachable!("of a later version"),
    }
    Ok(())
}
