use std::fmt::{Debug, Formatter};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
use tonic::transport::ClientTlsConfig;
use tonic::transport::{Endpoint, Error as TransportError};
use tonic::{Code, IntoRequest, Request, Status};
use uuid::Uuid;

use crate::connection::{Connection, MAX_ANSWER_BYTES, Shared};
use crate::credentials::{BoxError, Credentials};
use crate::endpoints::Endpoints;
use crate::errors::{CallError, ConfigError, Error, ToolError};
use crate::outcome::History;
use crate::stream::ToolStream;
use crate::target::Target;
use crate::v1::tool_service_client::ToolServiceClient;
use crate::v1::{CallToolRequest, CallToolResponse, CallToolStreamRequest};
use crate::values::pack;

/// The time that [`Client::call_tool`] gives to a tool if its request says nothing else.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(90);

const TIMEOUT: &str = "grpc-timeout";

/// A connection to Agenta AI services. It is opened by its first call, and serves many at once; a clone is the same one.
#[derive(Clone, Debug)]
pub struct Client {
    connection: Connection,
}

/// How a connection is to be.
#[must_use]
pub struct Builder {
    target: String,
    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
    tls: Option<ClientTlsConfig>,
    credentials: Credentials,
    wait_for_limit: bool,
    retries: bool,
}

impl Debug for Builder {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Builder")
            .field("target", &self.target)
            .field("credentials", &self.credentials)
            .field("wait_for_limit", &self.wait_for_limit)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

/// Makes a request with a new `request_id`, a UUID of version 4. To repeat a call, send its request again, or a request with
/// the same arguments and its `request_id`, which an error has, too.
///
/// With `rerun_if_outcome_unknown` the tool is run again if an earlier call with this `request_id` may have been billed and has
/// no result. It may then be billed twice:
///
/// ```
/// CallToolRequest { request_id, rerun_if_outcome_unknown: true, ..request("tools.x.y.z", &arguments)? }
/// ```
///
/// # Errors
///
/// The arguments are no object of JSON: see [`pack`].
pub fn request(tool: &str, arguments: &impl Serialize) -> Result<CallToolRequest, serde_json::Error> {
    Ok(CallToolRequest {
        name: tool.to_owned(),
        arguments: Some(pack(arguments)?),
        request_id: Uuid::new_v4().to_string(),
        ..CallToolRequest::default()
    })
}

impl Client {
    /// Begins a connection to a target, `host:port`, `unix:/run/agenta.sock` or `unix-abstract:name`.
    ///
    /// It is in plaintext to localhost, a loopback address or a Unix socket, and has TLS with the system's certificate
    /// authorities to any other. Nothing goes to another machine in plaintext, whatever a name may resolve to. To another
    /// machine it goes through the HTTP proxy that `HTTPS_PROXY` or `ALL_PROXY` names, unless `NO_PROXY` names the target.
    pub fn to(target: &str) -> Builder {
        Builder {
            target: target.to_owned(),
            #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
            tls: None,
            credentials: Credentials::None,
            wait_for_limit: false,
            retries: true,
        }
    }

    /// Runs a tool, in [`CALL_TIMEOUT`] at most if the request has no time-out. [`unpack`](crate::unpack) puts the structured
    /// content of its answer into a native type.
    ///
    /// # Errors
    ///
    /// The call was refused or had no answer, or has no `request_id`, or the tool ran and failed.
    pub async fn call_tool(&self, request: impl IntoRequest<CallToolRequest>) -> Result<CallToolResponse, Error> {
        let (request, request_id) = checked(request)?;
        match self.stub().call_tool(request).await {
            Ok(response) => succeeded(response.into_inner(), request_id),
            Err(status) => Err(failed(status, request_id)),
        }
    }

    /// Runs a tool, and tells what is happening to it while it runs; the last event is its result. The call is that of
    /// [`call_tool`](Self::call_tool), with the same errors, time-out and retries, and dropping the stream cancels it.
    ///
    /// Progress is for display: stages may be skipped, and repeated when the call is sent again. What isn't read in time is left
    /// out. A server that is older than this method reports nothing.
    ///
    /// # Errors
    ///
    /// The call has no `request_id`. All else is an error of the stream.
    pub async fn stream_tool(&self, request: impl IntoRequest<CallToolRequest>) -> Result<ToolStream, Error> {
        let (request, request_id) = checked(request)?;
        match self.stub().call_tool_stream(request.map(streamed)).await {
            Ok(response) => Ok(ToolStream::new(response.into_inner(), request_id)),
            Err(status) => Err(failed(status, request_id)),
        }
    }

    /// The generated client on this connection. Its requests need time-outs of their own. A call of a tool gets a `request_id` if
    /// its request has none, so that it is run once when it is sent again.
    #[must_use]
    pub fn stub(&self) -> ToolServiceClient<Connection> {
        ToolServiceClient::new(self.connection()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// The connection, for tonic's own calls, such as those of a client that was generated from the files of
    /// `agenta-ai-server tools proto`. A call of a tool by its own method gets a `request_id` if its request has none, and
    /// [`CALL_TIMEOUT`] if it has no time-out; it is sent again as [`Client::call_tool`] is. [`CallError`] reads the status that
    /// it returns, and [`ToolError::new`] what a tool that failed has answered.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// Ends the connection, that of all clones, too. Calls that run end at once with CANCELLED, "The client was closed": their
    /// errors carry the `request_id` to get their results with. Calls after this fail, and send nothing.
    pub fn close(&self) {
        self.connection.close();
    }
}

/// The request with a time-out, and its `request_id`.
fn checked(request: impl IntoRequest<CallToolRequest>) -> Result<(Request<CallToolRequest>, String), Error> {
    let mut request = request.into_request();
    let request_id = request.get_ref().request_id.clone();
    if request_id.is_empty() {
        let said = "request_id: must not be empty, or a repeat would run the tool again";
        let status = History::default().end(Status::new(Code::InvalidArgument, said).into());
        return Err(failed(status, request_id));
    }
    if !request.metadata().contains_key(TIMEOUT) {
        request.set_timeout(CALL_TIMEOUT);
    }
    Ok((request, request_id))
}

fn streamed(request: CallToolRequest) -> CallToolStreamRequest {
    let CallToolRequest { name, arguments, request_id, rerun_if_outcome_unknown } = request;
    CallToolStreamRequest { name, arguments, request_id, rerun_if_outcome_unknown }
}

pub(crate) fn succeeded(response: CallToolResponse, request_id: String) -> Result<CallToolResponse, Error> {
    if response.is_error {
        return Err(Error::Tool(Box::new(ToolError { request_id, ..response.into() })));
    }
    Ok(response)
}

pub(crate) fn failed(status: Status, request_id: String) -> Error {
    Error::Call(Box::new(CallError::of(status, request_id)))
}

impl Builder {
    /// Sends a key with every call, one of the server's, `aai_…`, or of Agenta. An empty one is not sent.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.credentials = Credentials::Fixed("ApiKey", key.into());
        self
    }

    /// Sends a bearer token with every call. An empty one is not sent.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.credentials = Credentials::Fixed("Bearer", token.into());
        self
    }

    /// Sends a bearer token with every call, and asks for it each time, within the time-out of the call: keep it until it is
    /// about to expire. An error fails the call with UNAUTHENTICATED, and nothing is sent.
    pub fn token_source<F, T, E>(mut self, source: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.credentials = Credentials::source(source);
        self
    }

    /// Makes a call of a tool that a rate limit refuses wait as long as the server says, and a random time on top, and then
    /// sends it again with the same `request_id`, until its time-out. Where the wait would outlast that, it fails at once. A
    /// refused call runs no tool, so none is billed twice.
    pub fn wait_for_limit(mut self) -> Self {
        self.wait_for_limit = true;
        self
    }

    /// Sends no call again by itself when the connection breaks or the server is unavailable.
    pub fn disable_retries(mut self) -> Self {
        self.retries = false;
        self
    }

    /// Has TLS with other authorities or a certificate of your own.
    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
    pub fn tls(mut self, config: ClientTlsConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// Makes the connection, without opening it.
    ///
    /// # Errors
    ///
    /// The target can't be read, a proxy is not possible, or there are no certificate authorities.
    pub fn build(self) -> Result<Client, Error> {
        let target = Target::parse(&self.target)?;
        let (endpoint, plaintext) = self.endpoint(&target)?;
        let (closed, _) = watch::channel(false);
        Ok(Client {
            connection: Connection::new(Shared {
                endpoints: Arc::new(Endpoints::new(target, endpoint, plaintext)?),
                target: self.target,
                credentials: self.credentials,
                wait_for_limit: self.wait_for_limit,
                retries: self.retries,
                closed,
            }),
        })
    }

    /// How to connect, and whether in plaintext.
    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
    fn endpoint(&self, target: &Target) -> Result<(Endpoint, bool), ConfigError> {
        let tls = match &self.tls {
            Some(tls) => Some(tls.clone()),
            None => (!target.is_local()).then(|| ClientTlsConfig::new().with_enabled_roots()),
        };
        Ok(match tls {
            Some(tls) => (endpoint("https", target)?.tls_config(tls)?, false),
            None => (endpoint("http", target)?, true),
        })
    }

    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc")))]
    fn endpoint(&self, target: &Target) -> Result<(Endpoint, bool), ConfigError> {
        if target.is_local() {
            return Ok((endpoint("http", target)?, true));
        }
        Err(ConfigError::new(format!("target {:?} needs TLS: turn the feature tls-ring or tls-aws-lc on", self.target)))
    }
}

fn endpoint(scheme: &str, target: &Target) -> Result<Endpoint, TransportError> {
    Ok(Endpoint::from_shared(format!("{scheme}://{}", target.authority()))?
        .user_agent(concat!("agenta-ai-rust/", env!("CARGO_PKG_VERSION")))?
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .connect_timeout(Duration::from_secs(20)))
}
