//! Makes the calls that come as lines of JSON, and prints what came of each: see tests/conformance.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use agenta_ai::tools::api_v1;
use agenta_ai::v1::call_tool_stream_response::Event;
use agenta_ai::{CallError, Client, unpack, v1};
use base64::prelude::{BASE64_STANDARD, Engine};
use prost::Message;
use prost::bytes::{Buf, BufMut, Bytes};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Map, Value, json};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{KeyAndValueRef, MetadataKey, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::pb;

type Failure = Box<dyn Error>;

const STREAM: &str = "CallToolStream";
const TYPED: &str = "RefinePrompt";

/// The contract, and the details of errors.
const DESCRIPTORS: &[u8] = include_bytes!("../../../../client/agenta_ai/v1/descriptor_set.binpb");

/// The methods of our own tools.
const TOOLS: &[u8] = include_bytes!("tools.binpb");

/// Those that are open, by all that makes them differ.
#[derive(Default)]
struct Program {
    open: HashMap<String, Kind>,
    pool: DescriptorPool,
}

#[derive(Clone)]
enum Kind {
    Bare(Channel),
    Shipped(Client),
}

#[tokio::main(worker_threads = 1)]
async fn main() -> Result<(), Failure> {
    let mut pool = DescriptorPool::decode(DESCRIPTORS)?;
    pool.decode_file_descriptor_set(TOOLS)?;
    let mut program = Program { pool, ..Program::default() };
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let call: Value = serde_json::from_str(&line?)?;
        let mut result = match program.make(&call).await {
            Ok(result) => result,
            Err(failure) => json!({"error": failure.to_string()}),
        };
        result["id"] = call["id"].clone();
        writeln!(output, "{result}")?;
        output.flush()?;
    }
    Ok(())
}

impl Program {
    async fn make(&mut self, call: &Value) -> Result<Value, Failure> {
        let method = text(call, "method")?;
        let streams = method == STREAM;
        let mut request = Request::new(self.request(call, method)?);
        *request.metadata_mut() = metadata(call)?;
        if let Some(timeout) = seconds(call, "timeout") {
            request.set_timeout(timeout);
        }
        let kind = self.connection(call)?;
        let path = match method {
            TYPED => "/agenta.ai.tools.agenta.api.v1.ApiToolsService/RefinePrompt".to_owned(),
            _ => format!("/agenta.ai.v1.ToolService/{method}"),
        };
        if let (Kind::Shipped(client), Some(after)) = (&kind, seconds(call, "close_after")) {
            self.open.clear();
            let client = client.clone();
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                client.close();
            });
        }
        let began = Instant::now();
        let mut progress = Vec::new();
        let sent = async {
            match (&kind, streams) {
                (Kind::Bare(channel), false) => send(Grpc::new(channel.clone()), request, path).await.map_err(named),
                (Kind::Bare(channel), true) => {
                    let after = seconds(call, "read_after").unwrap_or_default();
                    let sent = stream(Grpc::new(channel.clone()), request, path, after, &mut progress);
                    // tonic's own time-out ends with the first message.
                    let limit = seconds(call, "timeout").unwrap_or(Duration::MAX);
                    let ended = tokio::time::timeout(limit, sent).await;
                    ended.unwrap_or_else(|_| Err(Status::deadline_exceeded(""))).map_err(named)
                }
                (Kind::Shipped(client), false) => send(Grpc::new(client.connection()), request, path).await,
                (Kind::Shipped(client), true) => {
                    stream(Grpc::new(client.connection()), request, path, Duration::ZERO, &mut progress).await
                }
            }
        };
        let outcome = match seconds(call, "cancel_after") {
            // What is dropped is cancelled.
            Some(limit) => tokio::time::timeout(limit, sent).await.unwrap_or_else(|_| Err(Status::cancelled(""))),
            None => sent.await,
        };
        let taken = began.elapsed().as_secs_f64();
        let mut result = match outcome {
            Ok(response) => self.answered(method, &response)?,
            Err(status) => {
                let mut result = self.failed(&status)?;
                if let Kind::Shipped(_) = kind {
                    result["outcome"] = outcome_of(status);
                }
                result
            }
        };
        result["seconds"] = taken.into();
        if streams {
            let shown = progress.iter().map(|each| self.shown("Progress", &each.encode_to_vec()));
            result["progress"] = shown.collect::<Result<_, _>>()?;
        }
        Ok(result)
    }

    fn answered(&self, method: &str, response: &Response<Bytes>) -> Result<Value, Failure> {
        let bytes = response.get_ref().clone();
        let mut result = json!({"code": "OK", "message": "", "details": [], "metadata": texts(response.metadata())});
        let message = match method {
            "Status" => v1::StatusResponse::decode(bytes)?.encode_to_vec(),
            "ListTools" => v1::ListToolsResponse::decode(bytes)?.encode_to_vec(),
            TYPED => api_v1::RefinePromptResponse::decode(bytes)?.encode_to_vec(),
            _ => {
                let answer = v1::CallToolResponse::decode(bytes)?;
                if let Some(content) = answer.structured_content.clone() {
                    result["native"] = unpack(Some(content))?;
                }
                answer.encode_to_vec()
            }
        };
        // The result of a stream is a CallToolResponse.
        result["response"] = self.shown(&format!("{}Response", method.trim_end_matches("Stream")), &message)?;
        Ok(result)
    }

    fn shown(&self, name: &str, message: &[u8]) -> Result<Value, Failure> {
        Ok(serde_json::to_value(DynamicMessage::decode(self.message(name)?, message)?)?)
    }

    fn failed(&self, status: &Status) -> Result<Value, Failure> {
        let details = pb::Status::decode(status.details())?.details;
        Ok(json!({
            "code": code_of(status),
            "message": status.message(),
            "details": details.iter().map(|each| self.detail(each)).collect::<Vec<_>>(),
            "metadata": texts(status.metadata()),
        }))
    }

    fn detail(&self, packed: &prost_types::Any) -> Value {
        let any = self.pool.get_message_by_name("google.protobuf.Any").and_then(|descriptor| {
            let mut any = DynamicMessage::new(descriptor);
            any.transcode_from(packed).ok()?;
            serde_json::to_value(any).ok()
        });
        // One of a type that isn't known here has no JSON.
        any.unwrap_or_else(|| json!({"@type": packed.type_url, "value": BASE64_STANDARD.encode(&packed.value)}))
    }

    fn request(&self, call: &Value, method: &str) -> Result<Bytes, Failure> {
        if let Some(bytes) = call.get("request_base64") {
            return Ok(BASE64_STANDARD.decode(bytes.as_str().ok_or("request_base64 is no text")?)?.into());
        }
        let descriptor = self.message(&format!("{method}Request"))?;
        let bytes = DynamicMessage::deserialize(descriptor, &call["request"])?.encode_to_vec();
        Ok(match method {
            "Status" => v1::StatusRequest::decode(&*bytes)?.encode_to_vec(),
            "ListTools" => v1::ListToolsRequest::decode(&*bytes)?.encode_to_vec(),
            STREAM => v1::CallToolStreamRequest::decode(&*bytes)?.encode_to_vec(),
            TYPED => api_v1::RefinePromptRequest::decode(&*bytes)?.encode_to_vec(),
            _ => v1::CallToolRequest::decode(&*bytes)?.encode_to_vec(),
        }
        .into())
    }

    fn message(&self, name: &str) -> Result<prost_reflect::MessageDescriptor, Failure> {
        let found = ["agenta.ai.v1", "agenta.ai.tools.agenta.api.v1"]
            .iter()
            .find_map(|package| self.pool.get_message_by_name(&format!("{package}.{name}")));
        Ok(found.ok_or_else(|| format!("no message is called {name}"))?)
    }

    fn connection(&mut self, call: &Value) -> Result<Kind, Failure> {
        let (target, client) = (text(call, "target")?, text(call, "client")?);
        let waits = call.get("wait_for_limit").is_some_and(|wait| *wait == true);
        let retries = call.get("retries").is_none_or(|retries| *retries == true);
        let key = format!("{client} {waits} {retries} {target}");
        if let Some(found) = self.open.get(&key) {
            return Ok(found.clone());
        }
        let made = if client == "bare" {
            Kind::Bare(Endpoint::from_shared(format!("http://{target}"))?.connect_lazy())
        } else {
            let builder = Client::to(target);
            let builder = if waits { builder.wait_for_limit() } else { builder };
            let builder = if retries { builder } else { builder.disable_retries() };
            Kind::Shipped(builder.build()?)
        };
        self.open.insert(key, made.clone());
        Ok(made)
    }
}

async fn send<T>(mut grpc: Grpc<T>, request: Request<Bytes>, path: String) -> Result<Response<Bytes>, Status>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::ResponseBody: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = path.parse().map_err(|_| Status::internal("no path"))?;
    grpc.max_decoding_message_size(16 << 20).unary(request, path, Raw).await
}

/// Makes a call with progress, and returns its result like the response of one without.
async fn stream<T>(
    mut grpc: Grpc<T>,
    request: Request<Bytes>,
    path: String,
    read_after: Duration,
    progress: &mut Vec<v1::Progress>,
) -> Result<Response<Bytes>, Status>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::ResponseBody: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = path.parse().map_err(|_| Status::internal("no path"))?;
    let sent = grpc.max_decoding_message_size(16 << 20).server_streaming(request, path, Raw).await?;
    let (mut metadata, mut messages, _) = sent.into_parts();
    tokio::time::sleep(read_after).await;
    let mut result = Bytes::new();
    while let Some(message) = messages.message().await? {
        let event = v1::CallToolStreamResponse::decode(message).map_err(|error| Status::internal(error.to_string()))?;
        match event.event {
            Some(Event::Progress(each)) => progress.push(each),
            Some(Event::Result(answer)) => result = answer.encode_to_vec().into(),
            _ => {} // of a later version
        }
    }
    if let Some(trailers) = messages.trailers().await? {
        metadata.as_mut().extend(trailers.into_headers());
    }
    Ok(Response::from_parts(metadata, result, tonic::Extensions::default()))
}

/// What tonic itself calls otherwise: a time-out that has passed is a call that was cancelled to it, and a stream whose
/// connection broke is unknown.
fn named(status: Status) -> Status {
    match (status.code(), status.source()) {
        _ if status.message() == "Timeout expired" => Status::deadline_exceeded(""),
        (Code::Unknown, Some(_)) => Status::unavailable(status.message()),
        _ => status,
    }
}

/// What the error of the shipped client says.
fn outcome_of(status: Status) -> Value {
    let error = CallError::from(status);
    json!({"not_run": error.not_run, "request_id": error.request_id, "sentence": error.to_string()})
}

fn code_of(status: &Status) -> String {
    // "DeadlineExceeded" is DEADLINE_EXCEEDED.
    let mut name = String::new();
    for character in format!("{:?}", status.code()).chars() {
        if character.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

fn text<'a>(call: &'a Value, name: &str) -> Result<&'a str, Failure> {
    Ok(call[name].as_str().ok_or_else(|| format!("{name} is no text"))?)
}

fn seconds(call: &Value, name: &str) -> Option<Duration> {
    call.get(name)?.as_f64().map(Duration::from_secs_f64)
}

fn metadata(call: &Value) -> Result<MetadataMap, Failure> {
    let mut metadata = MetadataMap::new();
    for (name, value) in call.get("metadata").and_then(Value::as_object).unwrap_or(&Map::new()) {
        let value = value.as_str().ok_or("metadata is no text")?;
        metadata.append(name.parse::<MetadataKey<_>>()?, value.parse()?);
    }
    Ok(metadata)
}

fn texts(metadata: &MetadataMap) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in metadata.iter() {
        if let KeyAndValueRef::Ascii(name, value) = pair {
            found.entry(name.to_string()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into());
        }
    }
    found
}

/// Sends and receives bytes as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}
