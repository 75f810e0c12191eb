//! The messages of a call that reports progress, over all its attempts.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use prost::Message;
use prost::bytes::{Buf, BufMut, BytesMut};
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Bytes};
use tonic::{Code, Status};

use crate::connection::{MAX_ANSWER_BYTES, PREFIX_BYTES, lost};
use crate::outcome::Failure;
use crate::v1::call_tool_stream_response::Event;
use crate::v1::{CallToolResponse, CallToolStreamResponse};

type Attempts = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// The answer as its caller reads it. Its attempts are made while it is read, and end when it is dropped.
pub(crate) struct Events {
    /// None: they have ended.
    attempts: Option<Attempts>,
    failure: Option<Status>,
    frames: mpsc::Receiver<Frame<Bytes>>,
}

impl Events {
    /// Takes what makes the attempts, and gives their messages to a sink.
    pub(crate) fn new<F, T>(attempts: F) -> Self
    where
        F: FnOnce(Sink) -> T,
        T: Future<Output = Result<(), Status>> + Send + 'static,
    {
        // Nothing is read ahead: what a slow reader leaves, the server leaves out.
        let (sender, frames) = mpsc::channel(1);
        Self { attempts: Some(Box::pin(attempts(Sink(sender)))), failure: None, frames }
    }
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(attempts) = &mut self.attempts
            && let Poll::Ready(end) = attempts.as_mut().poll(context)
        {
            self.attempts = None;
            self.failure = end.err();
        }
        match self.frames.poll_recv(context) {
            Poll::Ready(Some(frame)) => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(None) if self.attempts.is_none() => Poll::Ready(self.failure.take().map(Err)),
            _ => Poll::Pending,
        }
    }
}

/// Takes the messages of each attempt.
pub(crate) struct Sink(mpsc::Sender<Frame<Bytes>>);

impl Sink {
    /// Passes the messages of an attempt on until it ends. Its result counts when the status OK has come.
    pub(crate) async fn follow(&self, response: Response<Body>) -> Result<(), Failure> {
        let mut body = response.into_body();
        let mut pending = BytesMut::new();
        let mut result = None;
        while let Some(frame) = body.frame().await {
            let frame = match frame.map_err(|error| lost(error.into(), true))?.into_data() {
                Ok(data) => {
                    pending.extend_from_slice(&data);
                    while let Some(message) = next_message(&mut pending)? {
                        if is_result(&message) {
                            result = Some(message);
                        } else {
                            self.send(Frame::data(message)).await;
                        }
                    }
                    continue;
                }
                Err(frame) => frame,
            };
            if let Ok(trailers) = frame.into_trailers() {
                return self.end(trailers, result).await;
            }
        }
        Err(Status::unknown("the stream ended without a status").into())
    }

    /// Passes an answer to `CallTool` on, as the result of a stream without progress.
    pub(crate) async fn convert(&self, response: Response<Body>) -> Result<Response<Body>, Failure> {
        let answer = response.into_body().collect().await?;
        let trailers = answer.trailers().cloned().unwrap_or_default();
        let mut framed = answer.to_bytes();
        let result = if framed.is_empty() {
            None
        } else {
            framed.advance(PREFIX_BYTES.min(framed.len()));
            let result = CallToolResponse::decode(framed).map_err(|error| Status::internal(error.to_string()))?;
            Some(frame(&CallToolStreamResponse { event: Some(Event::Result(result)) }))
        };
        self.end(trailers, result).await?;
        Ok(Response::default())
    }

    async fn end(&self, trailers: HeaderMap, result: Option<Bytes>) -> Result<(), Failure> {
        match (Status::from_header_map(&trailers), result) {
            (Some(status), _) if status.code() != Code::Ok => Err(status.into()),
            (_, None) => Err(Status::internal("the stream ended without a result").into()),
            (_, Some(result)) => {
                self.send(Frame::data(result)).await;
                self.send(Frame::trailers(trailers)).await;
                Ok(())
            }
        }
    }

    async fn send(&self, frame: Frame<Bytes>) {
        // The reader has what sends, so one goes with the other.
        self.0.send(frame).await.ok();
    }
}

/// Takes the first whole message, with its prefix.
fn next_message(pending: &mut BytesMut) -> Result<Option<Bytes>, Status> {
    let Some(size) = pending.get(1..PREFIX_BYTES) else { return Ok(None) };
    let size = size.iter().fold(0, |size, byte| size << 8 | usize::from(*byte));
    if size > MAX_ANSWER_BYTES {
        return Err(Status::resource_exhausted(format!("the answer has more than {MAX_ANSWER_BYTES} bytes")));
    }
    let whole = PREFIX_BYTES + size;
    Ok((pending.len() >= whole).then(|| pending.split_to(whole).freeze()))
}

fn is_result(framed: &Bytes) -> bool {
    CallToolStreamResponse::decode(framed.slice(PREFIX_BYTES..))
        .is_ok_and(|message| matches!(message.event, Some(Event::Result(_))))
}

fn frame(message: &CallToolStreamResponse) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0); // not compressed
    framed.put_u32(message.encoded_len().try_into().expect("it is smaller than the answer that it was read from"));
    framed.put(&*message.encode_to_vec());
    framed.freeze()
}

#[cfg(test)]
mod tests {
    use prost::bytes::BytesMut;

    use super::{MAX_ANSWER_BYTES, next_message};

    #[test]
    fn messages_are_passed_on_as_a_whole() {
        let mut pending = BytesMut::new();
        let mut found = Vec::new();
        for byte in [0, 0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0] {
            pending.extend_from_slice(&[byte]);
            found.extend(next_message(&mut pending).unwrap());
        }
        assert_eq!(found, [&[0, 0, 0, 0, 2, 7, 8][..], &[0, 0, 0, 0, 0]]);
        assert_eq!(pending, [0, 0][..]);
    }

    #[test]
    fn messages_that_are_too_large_are_not_waited_for() {
        let mut pending = BytesMut::from(&[0][..]);
        pending.extend_from_slice(&u32::try_from(MAX_ANSWER_BYTES + 1).unwrap().to_be_bytes());
        assert!(next_message(&mut pending).is_err());
    }
}
