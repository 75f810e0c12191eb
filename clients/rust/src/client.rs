use std::io;
use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Error as TransportError};
use tonic::{IntoRequest, Status};
use uuid::Uuid;

use crate::connection::{Connection, MAX_ANSWER_BYTES};
use crate::credentials::Credentials;
use crate::errors::{CallError, Error};
use crate::v1::tool_service_client::ToolServiceClient;
use crate::v1::{CallToolRequest, CallToolResponse};
use crate::values::pack;

/// The time that [`Client::call_tool`] gives to a tool if its request says nothing else.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(90);

const TIMEOUT: &str = "grpc-timeout";

/// A connection to Agenta AI services. It is opened by its first call, and serves many at once; a clone is the same one.
#[derive(Clone)]
pub struct Client {
    connection: Connection,
}

/// How a connection is to be.
pub struct Builder {
    target: String,
    tls: Option<ClientTlsConfig>,
    credentials: Credentials,
    wait_for_limit: bool,
}

/// Makes a request with a `request_id` of its own: a UUID, version 4. To repeat a call, send its request again.
///
/// # Errors
///
/// The arguments are no object of JSON: see [`pack`].
pub fn request(tool: &str, arguments: &impl Serialize) -> Result<CallToolRequest, serde_json::Error> {
    Ok(CallToolRequest {
        name: tool.to_owned(),
        arguments: Some(pack(arguments)?),
        request_id: Uuid::new_v4().to_string(),
    })
}

impl Client {
    /// Begins a connection to a target, `host:port` or `unix:/run/agenta.sock`.
    ///
    /// It is in plaintext to a loopback address or a Unix socket, and has TLS with the system's certificate authorities to any
    /// other. Nothing goes to another machine in plaintext, whatever a name may resolve to.
    #[must_use]
    pub fn to(target: &str) -> Builder {
        Builder {
            target: target.to_owned(),
            tls: None,
            credentials: Credentials::new("", String::new),
            wait_for_limit: false,
        }
    }

    /// Runs a tool, in [`CALL_TIMEOUT`] at most if the request has no time-out. [`unpack`](crate::unpack) puts the structured
    /// content of its answer into a native type.
    ///
    /// # Errors
    ///
    /// The call was refused or had no answer, or the tool ran and failed.
    pub async fn call_tool(&self, request: impl IntoRequest<CallToolRequest>) -> Result<CallToolResponse, Error> {
        let mut request = request.into_request();
        if !request.metadata().contains_key(TIMEOUT) {
            request.set_timeout(CALL_TIMEOUT);
        }
        let failed = |status: Status| Error::Call(Box::new(CallError::from(status)));
        let response = self.stub().call_tool(request).await.map_err(failed)?.into_inner();
        if response.is_error {
            return Err(Error::Tool(Box::new(response.into())));
        }
        Ok(response)
    }

    /// The generated client on this connection. Its requests need time-outs of their own.
    #[must_use]
    pub fn stub(&self) -> ToolServiceClient<Connection> {
        ToolServiceClient::new(self.connection.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// The connection, for tonic's own calls.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.connection.clone()
    }
}

impl Builder {
    /// Sends a key with every call, one of the server's, "aai_…", or of Agenta. An empty one is not sent.
    #[must_use]
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        let key = key.into();
        self.credentials = Credentials::new("ApiKey", move || key.clone());
        self
    }

    /// Sends a bearer token with every call, and asks for it each time: keep it until it is about to expire.
    #[must_use]
    pub fn token(mut self, token: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.credentials = Credentials::new("Bearer", token);
        self
    }

    /// Makes a call of a tool that a rate limit refuses wait as long as the server says, and then sends it again: within its
    /// time-out, and four times at most. Where the wait would outlast the time-out, it fails at once. A refused call runs no
    /// tool, so none is paid for twice.
    #[must_use]
    pub fn wait_for_limit(mut self) -> Self {
        self.wait_for_limit = true;
        self
    }

    /// Has TLS with other authorities or a certificate of your own.
    #[must_use]
    pub fn tls(mut self, config: ClientTlsConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// Makes the connection.
    ///
    /// # Errors
    ///
    /// The target can't be read, or there are no certificate authorities.
    pub fn build(self) -> Result<Client, TransportError> {
        let channel = if self.target.starts_with("unix:") {
            endpoint(&self.target)?.connect_lazy()
        } else if self.tls.is_none() && is_local(&self.target) {
            plaintext(&endpoint(&format!("http://{}", self.target))?)
        } else {
            let tls = self.tls.unwrap_or_else(|| ClientTlsConfig::new().with_native_roots());
            endpoint(&format!("https://{}", self.target))?.tls_config(tls)?.connect_lazy()
        };
        Ok(Client { connection: Connection::new(channel, self.credentials, self.wait_for_limit) })
    }
}

fn endpoint(uri: &str) -> Result<Endpoint, TransportError> {
    Ok(Endpoint::from_shared(uri.to_owned())?
        .user_agent("agenta-ai-rust")?
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .connect_timeout(Duration::from_secs(20)))
}

/// A channel that refuses to talk to another machine, whatever the name may resolve to.
fn plaintext(endpoint: &Endpoint) -> Channel {
    endpoint.connect_with_connector_lazy(tower::service_fn(|uri: Uri| async move {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
        if !stream.peer_addr()?.ip().is_loopback() {
            return Err(io::Error::other("nothing is sent in plaintext to another machine: use TLS"));
        }
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(stream))
    }))
}

/// Whether a target is on this machine by its name alone.
fn is_local(target: &str) -> bool {
    target.parse::<Authority>().is_ok_and(|authority| {
        let host = authority.host().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn plaintext_stays_on_this_machine() {
        for target in ["127.0.0.1:50051", "127.8.8.8:1", "[::1]:50051", "localhost:50051", "localhost"] {
            assert!(is_local(target), "{target}");
        }
        for target in [
            "10.0.0.1:50051",
            "agenta.example:443",
            "localhost.example:443",
            "[::]:50051",
            "0.0.0.0:50051",
            "127.0.0.1.example:1",
            "user@10.0.0.1:1",
            "",
        ] {
            assert!(!is_local(target), "{target}");
        }
    }
}
