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

/// The time-out of [`Client::call_tool`] and [`Client::stream_tool`] for a request that sets none.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(90);

const TIMEOUT: &str = "grpc-timeout";

/// A client of an Agenta AI service.
///
/// The first call connects. One client serves a whole program: it makes many calls at once over the same connections, and
/// clones share them. Calls need a [Tokio](https://docs.rs/tokio) runtime with I/O and time enabled; making a client needs none.
/// Dropping the future of a call cancels the call.
#[derive(Clone, Debug)]
pub struct Client {
    connection: Connection,
}

/// Options of a [`Client`], from [`Client::to`].
#[must_use = "a builder does nothing until `build` is called"]
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
            // One that can't be read may hold a password.
            .field("target", &Target::parse(&self.target).ok())
            .field("credentials", &self.credentials)
            .field("wait_for_limit", &self.wait_for_limit)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

/// Makes a request with a new `request_id`, a UUID of version 4. To repeat a call, send the same request, or one with the same
/// arguments and `request_id`. The errors of a call have its `request_id`.
///
/// If an earlier call with this `request_id` may have been billed but has no result, `rerun_if_outcome_unknown` runs the tool
/// again. It may then be billed twice:
///
/// ```
/// # use agenta_ai::{request, v1::CallToolRequest};
/// # let (request_id, arguments) = (String::new(), serde_json::json!({}));
/// let again = CallToolRequest { request_id, rerun_if_outcome_unknown: true, ..request("tools.x.y.z", &arguments)? };
/// # Ok::<_, serde_json::Error>(())
/// ```
///
/// # Errors
///
/// The arguments are not a JSON object, or [`pack`] refuses them.
pub fn request(tool: &str, arguments: &impl Serialize) -> Result<CallToolRequest, serde_json::Error> {
    Ok(CallToolRequest {
        name: tool.to_owned(),
        arguments: Some(pack(arguments)?),
        request_id: Uuid::new_v4().to_string(),
        ..CallToolRequest::default()
    })
}

impl Client {
    /// Sets the target: `host:port`, `unix:/run/agenta.sock` or `unix-abstract:name`.
    ///
    /// Connections to localhost, a loopback address or a Unix socket are in plaintext. Any other target gets TLS with the
    /// certificate authorities of the enabled features. Nothing is sent to another machine in plaintext, whatever a name
    /// resolves to. Connections to another machine use the HTTP proxy that `HTTPS_PROXY` or `ALL_PROXY` names, unless
    /// `NO_PROXY` excludes the target.
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

    /// Runs a tool. The time-out is that of the request, or [`CALL_TIMEOUT`], and covers all attempts.
    /// [`unpack`](crate::unpack) converts the structured content of the response into a native type.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] if the call was refused or got no answer, or has no `request_id`. [`Error::Tool`] if the tool ran and
    /// failed.
    pub async fn call_tool(&self, request: impl IntoRequest<CallToolRequest>) -> Result<CallToolResponse, Error> {
        let (request, request_id) = checked(request)?;
        match self.stub().call_tool(request).await {
            Ok(response) => succeeded(response.into_inner(), request_id),
            Err(status) => Err(failed(status, request_id)),
        }
    }

    /// Runs a tool and reports its progress; the last event is the result. Errors, time-out and retries are those of
    /// [`call_tool`](Self::call_tool). Dropping the stream cancels the call.
    ///
    /// Progress is for display: stages may be skipped, or repeated when the call is sent again. Progress that isn't read in time
    /// is dropped. A server that is older than this method reports none.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] if the request has no `request_id`. All other errors come from the stream.
    pub async fn stream_tool(&self, request: impl IntoRequest<CallToolRequest>) -> Result<ToolStream, Error> {
        let (request, request_id) = checked(request)?;
        match self.stub().call_tool_stream(request.map(streamed)).await {
            Ok(response) => Ok(ToolStream::new(response.into_inner(), request_id)),
            Err(status) => Err(failed(status, request_id)),
        }
    }

    /// Returns the generated client on this connection. It sets no time-out: use `tonic::Request::set_timeout`. A call of a tool
    /// without a `request_id` gets one, so that a retried call runs only once. The metadata of its responses has the trailers, such
    /// as `x-request-id`, the server's id of the call.
    #[must_use]
    pub fn stub(&self) -> ToolServiceClient<Connection> {
        ToolServiceClient::new(self.connection()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Returns the connection, for a client that you generate from the files of `agenta-ai-server tools proto`. A call of a
    /// tool's own method gets a `request_id` and [`CALL_TIMEOUT`] if it has none, and is retried as [`Client::call_tool`] is.
    /// [`CallError::from`] reads the status of a failed call, and [`ToolError::new`] the response of a tool that failed. Results
    /// may have up to 16 MiB: raise `max_decoding_message_size` of the generated client. The connection reads each answer to its
    /// end before it returns it: methods that stream, other than `CallToolStream`, need a channel of their own.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// Closes the connections of this client and of all its clones. Calls in flight end at once with CANCELLED, "The client was
    /// closed"; their errors have the `request_id` to get their results with. Later calls fail, and nothing is sent.
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
    /// Sends an API key with every call: one of the server's, `aai_…`, or one of Agenta's. An empty key is not sent. The last of
    /// `api_key`, `token` and `token_source` applies.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.credentials = Credentials::Fixed("ApiKey", key.into());
        self
    }

    /// Sends a bearer token with every call. An empty token is not sent.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.credentials = Credentials::Fixed("Bearer", token.into());
        self
    }

    /// Sends a bearer token that `source` returns. It is called before each call, and its time counts towards the time-out of
    /// the call: cache the token until it is about to expire. If it fails, the call fails with UNAUTHENTICATED and nothing is
    /// sent; the [`source`](std::error::Error::source) of the call's error is the error that it returned.
    pub fn token_source<F, T, E>(mut self, source: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.credentials = Credentials::source(source);
        self
    }

    /// Waits when a rate limit refuses a call of a tool: as long as the server says, plus a random time. The call is then sent
    /// again with the same `request_id`, until its time-out. It fails at once if the wait would outlast the time-out. A refused
    /// call runs no tool, so none is billed twice.
    pub fn wait_for_limit(mut self) -> Self {
        self.wait_for_limit = true;
        self
    }

    /// Turns off retries of calls whose connection breaks or whose server is unavailable.
    pub fn disable_retries(mut self) -> Self {
        self.retries = false;
        self
    }

    /// Uses TLS as `config` says: with your own certificate authorities, or with a client certificate. `ClientTlsConfig::new()`
    /// trusts no authority: add some with `ca_certificate`, or those of the enabled features with `with_enabled_roots`.
    ///
    /// ```
    /// # use agenta_ai::{Client, tonic::transport::{ClientTlsConfig, Identity}};
    /// # fn builder(certificate: &str, key: &str) -> agenta_ai::Builder {
    /// let mutual = ClientTlsConfig::new().with_enabled_roots().identity(Identity::from_pem(certificate, key));
    /// Client::to("agenta.example.com:443").tls(mutual)
    /// # }
    /// ```
    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
    pub fn tls(mut self, config: ClientTlsConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// Makes the client, without connecting.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the target or the TLS configuration is invalid, the proxy isn't an HTTP proxy, or there are no
    /// certificate authorities.
    pub fn build(self) -> Result<Client, Error> {
        let target = Target::parse(&self.target).map_err(ConfigError::new)?;
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
            None if target.is_local() => None,
            None if !cfg!(any(feature = "tls-native-roots", feature = "tls-webpki-roots")) => {
                let target = target.authority();
                return Err(ConfigError::new(format!(
                    "there are no certificate authorities for {target:?}: turn the feature tls-native-roots or \
                     tls-webpki-roots on, or pass them to tls"
                )));
            }
            None => Some(ClientTlsConfig::new().with_enabled_roots()),
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
