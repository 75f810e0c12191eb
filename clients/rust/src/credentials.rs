use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use tonic::Status;

/// Says who calls.
#[derive(Clone)]
pub(crate) struct Credentials {
    scheme: &'static str,
    secret: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Credentials {
    /// The secret is asked for with each call; an empty one is not sent.
    pub(crate) fn new(scheme: &'static str, secret: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { scheme, secret: Arc::new(secret) }
    }

    pub(crate) fn sign(&self, headers: &mut HeaderMap) -> Result<(), Status> {
        let secret = (self.secret)();
        if secret.is_empty() {
            return Ok(());
        }
        let visible = secret.chars().all(|character| character.is_ascii_graphic());
        let mut value =
            HeaderValue::try_from(format!("{} {secret}", self.scheme)).ok().filter(|_| visible).ok_or_else(|| {
                Status::unauthenticated("the secret holds blanks, a newline or other characters that can't be sent")
            })?;
        // Keeps it out of logs.
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(())
    }
}
