//! Calls Agenta AI services: the connection that they want, calls of tools with arguments and results in native types, and
//! errors that say whether a tool was run.
//!
//! All of it is built of what tonic has, and goes with the generated client of [`v1`]: see [`Client::stub`], and with clients
//! that were generated for the methods that tools have of their own: see [`Client::connection`].

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
// Their types are in the interface of this crate.
pub use {prost, prost_types, tonic, tonic_types};

/// The methods of our own tools: messages and stubs as they are generated from `protos/agenta/ai/tools`.
pub mod tools {
    /// Of `tools.agenta.api`: [`ApiToolsServiceClient`](api_v1::api_tools_service_client::ApiToolsServiceClient).
    #[allow(missing_docs, clippy::pedantic, rustdoc::invalid_html_tags)]
    pub mod api_v1 {
        include!("generated/agenta.ai.tools.agenta.api.v1.rs");
    }
}

/// The contract: messages and stubs as they are generated from `protos/agenta/ai/v1`.
#[allow(missing_docs, clippy::pedantic, rustdoc::invalid_html_tags)]
pub mod v1 {
    include!("generated/agenta.ai.v1.rs");
}
