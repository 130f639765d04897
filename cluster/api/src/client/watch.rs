//! The watch of revfs.v1: whole revisions, put together from their parts.

use async_trait::async_trait;
use tonic::{Response, Streaming};

use super::resuming::{Source, Step, Stream};
use super::{Client, Endpoint};
use crate::convert;
use crate::keyspace::{Error, KeyRange, Result, Revision, RevisionEvents};
use crate::wire::revfs::WatchResponse;
use crate::wire::revfs::watch_response::Response as Message;

/// Events that one revision may hold: far above what a transaction may change. A server that sends
/// more without end must not fill the memory.
pub(super) const REVISION_EVENTS_MAX: usize = 1_000_000;

/// What is watched, and where.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) client: Client,
    pub(super) ranges: Vec<KeyRange>,
}

#[async_trait]
impl Source for Watched {
    type Stream = OpenWatch;

    /// Waits for the server's word that it watches. The stream itself has no deadline: only its opening
    /// does.
    async fn open(&self, next: Revision) -> Result<(OpenWatch, Revision)> {
        let request = convert::watch_request(self.ranges.clone(), next);
        let opening = self.client.repeat_at(|at, _| {
            let request = request.clone();
            async move {
                let mut stream = at.revfs().watch(request).await?.into_inner();
                let first = stream.message().await?;
                Ok(Response::new((stream, first)))
            }
        });
        let (endpoint, opened) = opening.await?;
        let (stream, first) = opened.into_inner();
        let stream = OpenWatch { client: self.client.clone(), endpoint, stream, begun: None };
        let Some(Message::WatchingFrom(from)) = first.and_then(|first| first.response) else {
            return Err(stream.lost("the watch did not begin with its revision"));
        };
        if next != Revision::NONE && from != next.0 {
            return Err(stream.lost("the watch began at another revision than it was asked for"));
        }
        Ok((stream, Revision(from)))
    }
}

pub(super) struct OpenWatch {
    client: Client,
    endpoint: Endpoint,
    stream: Streaming<WatchResponse>,
    /// A revision of which more parts will come.
    begun: Option<RevisionEvents>,
}

impl OpenWatch {
    fn lost(&self, reason: &str) -> Error {
        Error::Unavailable { reason: format!("{}: {reason}", self.endpoint) }
    }
}

#[async_trait]
impl Stream for OpenWatch {
    async fn receive(&mut self) -> Result<Step> {
        loop {
            let message = match self.stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(self.lost("the watch was ended by the node")),
                Err(status) => return Err(self.client.read_error(&self.endpoint, &status)),
            };
            let part = match message.response {
                Some(Message::Revision(part)) => part,
                Some(Message::Progress(progress)) if self.begun.is_none() => {
                    return Ok(Step::Progress(Revision(progress)));
                }
                _ => return Err(self.lost("the watch sent something else than a revision")),
            };
            let part = self.client.understood(RevisionEvents::try_from(part))?;
            let whole = match self.begun.take() {
                None => part,
                Some(mut whole) if whole.stamp.revision == part.stamp.revision => {
                    whole.events.extend(part.events);
                    whole
                }
                Some(_) => return Err(self.lost("a revision was cut off by another one")),
            };
            if whole.events.len() > REVISION_EVENTS_MAX {
                return Err(self.lost("a revision has more than a million events"));
            }
            if !message.continued {
                return Ok(Step::Revision(whole));
            }
            self.begun = Some(whole);
        }
    }
}
