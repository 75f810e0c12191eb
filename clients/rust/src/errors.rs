use std::fmt::{Display, Formatter};
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{QuotaViolation, StatusExt};

use crate::v1;
use crate::v1::content_block::Kind;

const DOMAIN: &str = "agenta.ai";
const REASON_PREFIX: &str = "ERROR_REASON_";

/// Why there is no result.
#[derive(Debug, Clone)]
pub enum Error {
    /// The call was refused, or had no answer.
    Call(Box<CallError>),
    /// The tool ran and failed.
    Tool(Box<ToolError>),
}

/// A call that ended with a status other than OK.
#[derive(Debug, Clone)]
pub struct CallError {
    /// Why the service refused the call. Unspecified if that isn't known, or this version doesn't know it.
    pub reason: v1::ErrorReason,
    /// Whether the service says that the tool was not run. If false, it may have run, and been paid for.
    pub not_run: bool,
    /// The time after which a new attempt makes sense.
    pub retry_delay: Option<Duration>,
    /// The fields of the request that are at fault, if that is why.
    pub field_violations: Vec<FieldViolation>,
    /// The limits that were used up, if that is why.
    pub quota_violations: Vec<QuotaViolation>,
    /// What the server calls the call in its logs. Empty if it didn't say.
    pub request_id: String,
    /// The status as it came, with its code, its text, all its details and its metadata.
    pub status: Status,
}

/// A tool that ran and failed.
#[derive(Debug, Clone)]
pub struct ToolError {
    /// The class of failure, one of those numbered from 100.
    pub reason: v1::ErrorReason,
    /// What the tool said.
    pub message: String,
    /// Whether the same request may succeed later. Nothing was bought by this one then.
    pub retryable: bool,
    /// The time to wait before that.
    pub retry_delay: Option<Duration>,
    /// The rules that the tool's answer broke, if that is why.
    pub field_violations: Vec<FieldViolation>,
    /// How the answer came about.
    pub meta: Option<v1::CallMeta>,
}

/// One rule that one field broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Its path, such as "arguments.guidelines".
    pub field: String,
    /// A sentence.
    pub description: String,
}

impl From<Status> for CallError {
    /// Reads what a stub returned.
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let violations = details.bad_request().map_or(&[][..], |bad| &bad.field_violations);
        Self {
            reason: info.and_then(|info| v1::ErrorReason::from_str_name(&info.reason)).unwrap_or_default(),
            not_run: info.is_some(),
            retry_delay: details.retry_info().and_then(|info| info.retry_delay),
            field_violations: violations
                .iter()
                .map(|each| FieldViolation { field: each.field.clone(), description: each.description.clone() })
                .collect(),
            quota_violations: details.quota_failure().map_or_else(Vec::new, |quota| quota.violations.clone()),
            request_id: details.request_info().map_or_else(String::new, |info| info.request_id.clone()),
            status,
        }
    }
}

impl From<v1::CallToolResponse> for ToolError {
    fn from(response: v1::CallToolResponse) -> Self {
        let error = response.error.unwrap_or_default();
        let texts = response.content.into_iter().filter_map(|block| match block.kind {
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
            meta: response.meta,
        }
    }
}

impl std::error::Error for Error {}
impl std::error::Error for CallError {}
impl std::error::Error for ToolError {}

/// One sentence for people.
impl Display for Error {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Call(error) => error.fmt(out),
            Self::Tool(error) => error.fmt(out),
        }
    }
}

/// One sentence for people.
impl Display for CallError {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        let code = format!("{:?}", self.status.code());
        sentence(out, cause(self.reason, &code), self.status.message(), &self.field_violations, self.retry_delay)
    }
}

/// One sentence for people.
impl Display for ToolError {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        let cause = cause(self.reason, "the tool failed");
        sentence(out, cause, &self.message, &self.field_violations, self.retry_delay)
    }
}

impl CallError {
    /// The status.
    #[must_use]
    pub fn code(&self) -> Code {
        self.status.code()
    }
}

fn cause(reason: v1::ErrorReason, otherwise: &str) -> &str {
    match reason {
        v1::ErrorReason::Unspecified => otherwise,
        _ => reason.as_str_name().trim_start_matches(REASON_PREFIX),
    }
}

/// The message, and what it leaves out of the details.
fn sentence(
    out: &mut Formatter<'_>,
    cause: &str,
    message: &str,
    violations: &[FieldViolation],
    retry_delay: Option<Duration>,
) -> std::fmt::Result {
    write!(out, "{cause}: {message}")?;
    for each in violations.iter().filter(|each| !message.contains(&each.field)) {
        write!(out, "; {}: {}", each.field, each.description)?;
    }
    match retry_delay {
        Some(delay) if !delay.is_zero() => write!(out, "; try again in {delay:?}"),
        _ => Ok(()),
    }
}
