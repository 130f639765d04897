//! Requests of a stream: JSON texts one after the other, cut out of a body as it comes.

use axum::body::{Body, BodyDataStream};
use bytes::{Buf, BytesMut};
use futures_util::{Stream, StreamExt};
use revfs_api::status::REQUEST_TOO_LARGE;
use tokio::sync::oneshot;
use tonic::Status;

use super::call::{Asks, Requests};

pub(super) struct Incoming<Q> {
    body: BodyDataStream,
    /// What has come and is no whole text yet.
    buffer: BytesMut,
    bytes_max: usize,
    at_end: Requests,
    first: Option<Q>,
    has_ended: bool,
}

impl<Q: Asks> Incoming<Q> {
    pub(super) fn new(body: Body, bytes_max: usize, at_end: Requests) -> Self {
        let (body, buffer) = (body.into_data_stream(), BytesMut::new());
        Self { body, buffer, bytes_max, at_end, first: None, has_ended: false }
    }

    /// Reads the first request, if there is one.
    pub(super) async fn first(&mut self) -> Result<(), Status> {
        self.first = self.read().await?;
        Ok(())
    }

    /// All requests, and what is wrong with the one after the last, if anything is.
    pub(super) fn messages(
        self,
    ) -> (impl Stream<Item = Q> + Send + 'static, oneshot::Receiver<Status>) {
        let (failed, failure) = oneshot::channel();
        let messages =
            futures_util::stream::unfold((self, Some(failed)), |(mut this, mut failed)| {
                async move {
                    let next = match this.first.take() {
                        Some(first) => Ok(Some(first)),
                        None => this.read().await,
                    };
                    match next {
                        Ok(Some(message)) => return Some((message, (this, failed))),
                        Ok(None) => {}
                        Err(status) => {
                            if let Some(failed) = failed.take() {
                                // Without a receiver the answer has ended, and nobody wants to know.
                                failed.send(status).ok();
                            }
                        }
                    }
                    match this.at_end {
                        Requests::EndWithTheBody => None,
                        Requests::StayOpen => std::future::pending().await,
                    }
                }
            });
        (messages, failure)
    }

    async fn read(&mut self) -> Result<Option<Q>, Status> {
        loop {
            if let Some(message) = self.cut()? {
                return Ok(Some(message));
            }
            if self.has_ended {
                let invalid = || Status::invalid_argument("the last JSON text is not complete");
                return if self.buffer.is_empty() { Ok(None) } else { Err(invalid()) };
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(error)) => return Err(Status::cancelled(error.to_string())),
                None => self.has_ended = true,
            }
            if self.buffer.len() > self.bytes_max {
                return Err(Status::invalid_argument(REQUEST_TOO_LARGE));
            }
        }
    }

    /// Takes a whole text from the front of the buffer.
    fn cut(&mut self) -> Result<Option<Q>, Status> {
        let white = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.buffer.advance(white);
        let mut texts = serde_json::Deserializer::from_slice(&self.buffer).into_iter();
        match texts.next() {
            None => Ok(None),
            Some(Ok(message)) => {
                let bytes = texts.byte_offset();
                self.buffer.advance(bytes);
                Ok(Some(message))
            }
            Some(Err(error)) if error.is_eof() => Ok(None),
            Some(Err(error)) => Err(Status::invalid_argument(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use revfs_api::wire::etcdserverpb::LeaseKeepAliveRequest;

    async fn read_all(parts: &'static [&'static str]) -> Result<Vec<i64>, String> {
        let parts = parts.iter().map(|part| Ok::<_, std::convert::Infallible>(*part));
        let body = Body::from_stream(futures_util::stream::iter(parts));
        let mut incoming =
            Incoming::<LeaseKeepAliveRequest>::new(body, 100, Requests::EndWithTheBody);
        let mut ids = Vec::new();
        loop {
            match incoming.read().await {
                Ok(Some(request)) => ids.push(request.id),
                Ok(None) => return Ok(ids),
                Err(status) => return Err(status.message().to_owned()),
            }
        }
    }

    #[tokio::test]
    async fn texts_are_found_however_the_body_is_cut() {
        assert_eq!(read_all(&[]).await, Ok(vec![]));
        assert_eq!(read_all(&["{\"ID\":1}{\"ID\":\"2\"}\n", " {} "]).await, Ok(vec![1, 2, 0]));
        assert_eq!(read_all(&["{\"I", "D\":", "7", "}", "\n"]).await, Ok(vec![7]));
    }

    #[tokio::test]
    async fn what_is_no_text_is_refused_and_so_is_one_without_an_end() {
        assert!(read_all(&["{\"ID\":1} no"]).await.is_err());
        assert!(read_all(&["{\"ID\":"]).await.unwrap_err().contains("not complete"));
        let long: &[&str] = &[
            "{\"ID\":\"",
            "0000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000000",
        ];
        assert_eq!(read_all(long).await.unwrap_err(), REQUEST_TOO_LARGE);
    }
}
