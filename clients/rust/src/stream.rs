use std::fmt::{Debug, Formatter};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tonic::Streaming;
use tonic::codegen::tokio_stream::Stream;

use crate::client::{failed, succeeded};
use crate::errors::Error;
use crate::v1::call_tool_stream_response::Event;
use crate::v1::{CallToolResponse, CallToolStreamResponse, Progress};

/// An event of a call of a tool: progress, or the result.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ToolEvent {
    /// What the call is doing.
    Progress(Progress),
    /// The result, as [`Client::call_tool`](crate::Client::call_tool) returns it. It is the last event.
    Result(Box<CallToolResponse>),
}

/// The events of one call: any number of [`ToolEvent::Progress`], and then a [`ToolEvent::Result`] or an error. Dropping it
/// cancels the call.
#[must_use = "the call is made while its events are read"]
pub struct ToolStream {
    /// None: it has ended.
    responses: Option<Streaming<CallToolStreamResponse>>,
    request_id: String,
}

impl Debug for ToolStream {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ToolStream").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

impl ToolStream {
    pub(crate) fn new(responses: Streaming<CallToolStreamResponse>, request_id: String) -> Self {
        Self { responses: Some(responses), request_id }
    }

    /// Waits for the next event; returns `None` after the last. It is cancel safe.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call_tool`](crate::Client::call_tool). An error ends the stream.
    pub async fn message(&mut self) -> Result<Option<ToolEvent>, Error> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await.transpose()
    }
}

impl Stream for ToolStream {
    type Item = Result<ToolEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Some(responses) = &mut self.responses {
            let event = match ready!(Pin::new(responses).poll_next(context)) {
                Some(Ok(CallToolStreamResponse { event: None })) => continue, // of a later version
                Some(Ok(CallToolStreamResponse { event: Some(Event::Progress(progress)) })) => {
                    return Poll::Ready(Some(Ok(ToolEvent::Progress(progress))));
                }
                Some(Ok(CallToolStreamResponse { event: Some(Event::Result(result)) })) => {
                    let request_id = std::mem::take(&mut self.request_id);
                    Some(succeeded(result, request_id).map(|result| ToolEvent::Result(Box::new(result))))
                }
                Some(Err(status)) => Some(Err(failed(status, std::mem::take(&mut self.request_id)))),
                None => None,
            };
            self.responses = None;
            return Poll::Ready(event);
        }
        Poll::Ready(None)
    }
}
