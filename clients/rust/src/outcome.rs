use std::error::Error;
use std::fmt::{Display, Formatter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::credentials::BoxError;

pub(crate) const DOMAIN: &str = "agenta.ai";

/// What this client knows of a call that failed. It is the source of its status, and holds what was that before.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) fate: Fate,
    /// Empty if the call runs no tool.
    pub(crate) request_id: String,
    source: Option<BoxError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing was sent.
    Unsent,
    /// All that was sent was refused.
    Refused,
    /// An attempt may have run the tool.
    Open,
}

impl Display for Outcome {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self.fate {
            Fate::Unsent => "nothing was sent",
            Fate::Refused => "all that was sent was refused",
            Fate::Open => "the outcome is open",
        })
    }
}

impl Error for Outcome {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

impl Outcome {
    /// That of a failed call, if this client made it.
    pub(crate) fn of(status: &Status) -> Option<&Self> {
        status.source()?.downcast_ref()
    }
}

/// Whether the service itself refused a call, so that it ran nothing, or a server doesn't have the method.
pub(crate) fn is_refusal(status: &Status) -> bool {
    status.code() == Code::Unimplemented || status.get_details_error_info().is_some_and(|info| info.domain == DOMAIN)
}

/// What became of the attempts of one call so far.
#[derive(Clone, Default)]
pub(crate) struct History(Arc<Noted>);

#[derive(Default)]
struct Noted {
    request_id: OnceLock<String>,
    sent: AtomicBool,
    lost: AtomicBool,
    refused: AtomicBool,
}

impl History {
    /// Notes the `request_id` of the call, once it is known. It is empty if the call runs no tool.
    pub(crate) fn named(&self, request_id: String) {
        self.0.request_id.set(request_id).ok();
    }

    /// Notes that the attempt is on its way.
    pub(crate) fn sent(&self) {
        self.0.sent.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.0.sent.load(Ordering::SeqCst)
    }

    /// Notes how an attempt failed, and that the next one begins.
    pub(crate) fn failed(&self, status: &Status) {
        let sent = self.0.sent.swap(false, Ordering::SeqCst);
        if is_refusal(status) {
            self.0.refused.store(true, Ordering::SeqCst);
        } else if sent {
            self.0.lost.store(true, Ordering::SeqCst);
        }
    }

    /// The status that ends the call, with what is known of it as its source.
    pub(crate) fn end(&self, failure: Failure) -> Status {
        let Failure { mut status, source } = failure;
        let fate = if self.0.lost.load(Ordering::SeqCst) || self.is_sent() {
            Fate::Open
        } else if self.0.refused.load(Ordering::SeqCst) {
            Fate::Refused
        } else {
            Fate::Unsent
        };
        let request_id = self.0.request_id.get().cloned().unwrap_or_default();
        let outcome = Outcome { fate, request_id, source };
        status.set_source(Arc::new(outcome));
        status
    }
}

/// A status, and the error behind it.
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) source: Option<BoxError>,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self { status, source: None }
    }
}
