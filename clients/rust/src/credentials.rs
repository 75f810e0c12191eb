use std::error::Error;
use std::fmt::{Debug, Formatter};
use std::pin::Pin;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use tonic::Status;

use crate::outcome::Failure;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;
type Token = Pin<Box<dyn Future<Output = Result<String, BoxError>> + Send>>;

/// Says who calls.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// Nobody in particular.
    None,
    /// A key or a token that stays, after the name of its scheme.
    Fixed(&'static str, String),
    /// A bearer token that is asked for with each call.
    Source(Arc<dyn Fn() -> Token + Send + Sync>),
}

// Shows no secret.
impl Debug for Credentials {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::None => "None",
            Self::Fixed(scheme, _) => scheme,
            Self::Source(_) => "Source",
        })
    }
}

impl Credentials {
    pub(crate) fn source<F, T, E>(source: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::Source(Arc::new(move || {
            let token = source();
            Box::pin(async move { token.await.map_err(Into::into) })
        }))
    }

    /// Adds the secret to the headers of a call; an empty one is not sent.
    pub(crate) async fn sign(&self, headers: &mut HeaderMap) -> Result<(), Failure> {
        let (scheme, secret) = match self {
            Self::None => return Ok(()),
            Self::Fixed(scheme, secret) => (*scheme, secret.clone()),
            Self::Source(source) => ("Bearer", source().await.map_err(failed)?),
        };
        if secret.is_empty() {
            return Ok(());
        }
        if headers.contains_key(AUTHORIZATION) {
            let said = "metadata: the client has credentials of its own, so authorization can't be given";
            return Err(Status::invalid_argument(said).into());
        }
        let visible = secret.chars().all(|character| character.is_ascii_graphic());
        let mut value = HeaderValue::try_from(format!("{scheme} {secret}")).ok().filter(|_| visible).ok_or_else(|| {
            Status::unauthenticated(
                "The key or token has blanks, a newline or other characters that can't be sent: pass it without them",
            )
        })?;
        // Keeps it out of logs.
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(())
    }
}

/// The text of the failure is left to the source of the status: it may hold a secret.
fn failed(failure: BoxError) -> Failure {
    Failure { status: Status::unauthenticated("The token source failed"), source: Some(failure) }
}
