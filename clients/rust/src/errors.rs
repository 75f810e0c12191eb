use std::error::Error as StdError;
use std::fmt::{Display, Formatter};
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{QuotaViolation, StatusExt};

use crate::outcome::{DOMAIN, Fate, Outcome, is_refusal};
use crate::sentence::sentence;
use crate::v1;
use crate::v1::content_block::Kind;

const CALL_ID: &str = "x-request-id";
const REASON_PREFIX: &str = "ERROR_REASON_";

/// Errors of a client and of its calls. [`request`](crate::request), [`pack`](crate::pack) and [`unpack`](crate::unpack) return
/// [`serde_json::Error`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// The configuration of the client is invalid.
    Config(ConfigError),
    /// The call was refused, or got no answer.
    Call(Box<CallError>),
    /// The tool ran and failed.
    Tool(Box<ToolError>),
}

/// An invalid configuration of a client.
#[derive(Debug, Clone)]
pub struct ConfigError {
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// A call that ended with a status other than OK.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CallError {
    /// Why the service refused the call. `Unspecified` if it gave no reason, or one that this version doesn't know.
    pub reason: v1::ErrorReason,
    /// Whether it is certain that the tool was not run: the service said so, or nothing was sent. If false, the call may have
    /// run and may have been billed: send it again with `request_id` to get its result.
    pub not_run: bool,
    /// The time after which a new attempt makes sense.
    pub retry_delay: Option<Duration>,
    /// The invalid fields of the request.
    pub field_violations: Vec<FieldViolation>,
    /// The limits that were exceeded.
    pub quota_violations: Vec<QuotaViolation>,
    /// The `request_id` of the call (the idempotency key, AIP-155), also if the connection made it. Empty if the call runs no tool,
    /// and in an error from the status of another connection.
    pub request_id: String,
    /// The server's id of the call, as in its logs. Empty if it sent none.
    pub call_id: String,
    /// The gRPC status, with its code, message, details and metadata.
    pub status: Status,
}

/// A tool that ran and failed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ToolError {
    /// The class of the failure: a reason whose number is 100 or more.
    pub reason: v1::ErrorReason,
    /// What the tool said.
    pub message: String,
    /// Whether the same request may succeed later. If so, this call was not billed.
    pub retryable: bool,
    /// The time to wait before trying again.
    pub retry_delay: Option<Duration>,
    /// The rules that the tool's result violates.
    pub field_violations: Vec<FieldViolation>,
    /// The `request_id` of the call. Empty if this error was made from the response of a generated client.
    pub request_id: String,
    /// How the result was made: the model, the trace and the like.
    pub meta: Option<v1::CallMeta>,
}

/// A field that violates a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldViolation {
    /// The path of the field, such as `arguments.guidelines`.
    pub field: String,
    /// The rule that it violates, as a sentence.
    pub description: String,
}

impl From<Status> for CallError {
    /// Reads the status that a generated client returned.
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let outcome = Outcome::of(&status);
        let violations = details.bad_request().map_or(&[][..], |bad| &bad.field_violations);
        Self {
            reason: info.and_then(|info| v1::ErrorReason::from_str_name(&info.reason)).unwrap_or_default(),
            not_run: outcome.map_or_else(|| is_refusal(&status), |outcome| outcome.fate != Fate::Open),
            retry_delay: details.retry_info().and_then(|info| info.retry_delay),
            field_violations: violations
                .iter()
                .map(|each| FieldViolation { field: each.field.clone(), description: each.description.clone() })
                .collect(),
            quota_violations: details.quota_failure().map_or_else(Vec::new, |quota| quota.violations.clone()),
            request_id: outcome.map_or_else(String::new, |outcome| outcome.request_id.clone()),
            call_id: call_id(details.request_info().map_or("", |info| &info.request_id), &status),
            status,
        }
    }
}

impl From<v1::CallToolResponse> for ToolError {
    fn from(response: v1::CallToolResponse) -> Self {
        Self::new(response.error.unwrap_or_default(), response.content, response.meta)
    }
}

impl ToolError {
    /// Reads the response of a tool that failed, from the fields that the responses of all methods have.
    #[must_use]
    pub fn new(error: v1::ToolError, content: Vec<v1::ContentBlock>, meta: Option<v1::CallMeta>) -> Self {
        let texts = content.into_iter().filter_map(|block| match block.kind {
            Some(Kind::Text(text)) => Some(text),
            _ => None,
        });
        Self {
            reason: error.reason(),
            message: texts.collect::<Vec<_>>().join("\n"),
            retryable: error.retryable,
            retry_delay: error.retry_delay.and_then(|delay| delay.try_into().ok()),
            field_violations: error
                .field_violations
                .into_iter()
                .map(|each| FieldViolation { field: each.field, description: each.description })
                .collect(),
            request_id: String::new(),
            meta,
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Config(error) => error.source(),
            Self::Call(error) => error.source(),
            Self::Tool(_) => None,
        }
    }
}

impl StdError for ConfigError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

impl StdError for CallError {
    /// Returns the cause of the status, such as an error of the connection or of the token source.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = match Outcome::of(&self.status) {
            Some(outcome) => outcome.source(),
            None => self.status.source(),
        };
        // tonic puts a status around an error, which shows it as a debugger does.
        source.and_then(|source| source.downcast_ref::<Status>().and_then(Status::source).or(Some(source)))
    }
}

impl StdError for ToolError {}

impl ConfigError {
    pub(crate) fn new(message: String) -> Self {
        Self { message, source: None }
    }
}

impl From<tonic::transport::Error> for ConfigError {
    fn from(error: tonic::transport::Error) -> Self {
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        Self { message: format!("no connection can be made: {cause}"), source: Some(Arc::new(error)) }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// Says what is wrong, and what to do.
impl Display for ConfigError {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.message)
    }
}

/// Says what happened, whether the tool may have run, and what to do.
impl Display for Error {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(error) => error.fmt(out),
            Self::Call(error) => error.fmt(out),
            Self::Tool(error) => error.fmt(out),
        }
    }
}

/// Says what happened, whether the tool may have run, and what to do.
impl Display for CallError {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        let code = format!("{:?}", self.status.code());
        let cause = cause(self.reason, &code);
        let said = sentence(self.status.message(), &self.field_violations, self.retry_delay);
        write!(out, "{cause}: {said}")?;
        let Some(outcome) = self.outcome() else { return Ok(()) };
        let end = if said.ends_with(['.', '?']) { "" } else { "." };
        write!(out, "{end} {outcome}")
    }
}

/// Says what happened, and when to try again.
impl Display for ToolError {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        let cause = cause(self.reason, "the tool failed");
        write!(out, "{cause}: {}", sentence(&self.message, &self.field_violations, self.retry_delay))
    }
}

impl CallError {
    /// Returns the code of the status.
    #[must_use]
    pub fn code(&self) -> Code {
        self.status.code()
    }

    pub(crate) fn of(status: Status, request_id: String) -> Self {
        Self { request_id, ..status.into() }
    }

    /// What became of the call, unless the service says so itself. Only tools cost anything.
    fn outcome(&self) -> Option<String> {
        let is_tool = !self.request_id.is_empty();
        if !self.not_run {
            let again = format!("To get its result, send it again with request_id {}.", self.request_id);
            return is_tool.then(|| format!("The call may have run and may have been billed. {again}"));
        }
        let said = match Outcome::of(&self.status)?.fate {
            Fate::Unsent if is_tool => "Nothing was sent, so the tool was not run.",
            Fate::Unsent => "Nothing was sent.",
            _ if is_tool && self.status.get_details_error_info().is_none() => "The tool was not run.",
            _ => return None,
        };
        Some(said.to_owned())
    }
}

fn call_id(detail: &str, status: &Status) -> String {
    let trailer = || status.metadata().get(CALL_ID)?.to_str().ok();
    (!detail.is_empty()).then_some(detail).or_else(trailer).unwrap_or_default().to_owned()
}

fn cause(reason: v1::ErrorReason, otherwise: &str) -> &str {
    match reason {
        v1::ErrorReason::Unspecified => otherwise,
        _ => reason.as_str_name().trim_start_matches(REASON_PREFIX),
    }
}
