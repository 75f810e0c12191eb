//! Calls the tools of Agenta AI services over gRPC, with arguments and results as native types, and errors that say whether a
//! tool may have run.
//!
//! ```no_run
//! use agenta_ai::{Client, Error, request, unpack};
//! use serde_json::{Value, json};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::to("agenta.example.com:443").api_key("aai_…").wait_for_limit().build()?;
//! let request = request("tools.acme.support.classify_ticket", &json!({"ticket": "My invoice is wrong."}))?;
//! match client.call_tool(request).await {
//!     Ok(response) => println!("{}", unpack::<Value>(response.structured_content)?),
//!     Err(Error::Call(error)) if error.not_run => eprintln!("refused: {error}"),
//!     Err(error) => eprintln!("{error}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Client::stream_tool`] reports progress. [`Client::stub`] is the generated client of [`v1`], for all other methods, and
//! [`Client::connection`] is for clients that you generate for the methods of your own tools.
//!
//! # Features
//!
//! `tls-ring` (default) or `tls-aws-lc` is the TLS provider, which servers on other machines need. If both are on and the program
//! has installed none for rustls, it is ring. `tls-native-roots` (default) trusts the system's certificate authorities, and
//! `tls-webpki-roots` those of Mozilla.
//!
//! # Versions
//!
//! Types of tonic, prost and tonic-types are in the interface of this crate, which re-exports the versions it uses: use these
//! re-exports. A minor version of the contract adds fields to messages and values to enums. So end literals of messages with
//! `..Default::default()`, and have a default arm when you match on an enum.

mod client;
mod connection;
mod credentials;
mod endpoints;
mod errors;
mod events;
mod outcome;
mod sentence;
mod service_config;
mod stream;
mod target;
mod typed;
mod values;

pub use client::{Builder, CALL_TIMEOUT, Client, request};
pub use connection::Connection;
pub use errors::{CallError, ConfigError, Error, FieldViolation, ToolError};
pub use stream::{ToolEvent, ToolStream};
pub use values::{pack, unpack};
pub use {prost, prost_types, tonic, tonic_types};

/// The methods of Agenta's own tools: messages and clients generated from `protos/agenta/ai/tools`.
pub mod tools {
    /// The tools of `tools.agenta.api`: [`ApiToolsServiceClient`](api_v1::api_tools_service_client::ApiToolsServiceClient).
    #[allow(missing_docs, clippy::pedantic, rustdoc::invalid_html_tags)]
    pub mod api_v1 {
        include!("generated/agenta.ai.tools.agenta.api.v1.rs");
    }
}

/// The contract: messages and the client generated from `protos/agenta/ai/v1`.
#[allow(missing_docs, clippy::pedantic, rustdoc::invalid_html_tags)]
pub mod v1 {
    include!("generated/agenta.ai.v1.rs");
}
