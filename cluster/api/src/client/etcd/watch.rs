//! etcd's Watch, a revision at a time.
//!
//! A watch of several ranges is one of the least range that holds them all, filtered here: etcd sends
//! the events of one revision to two watches in two messages, and nothing says when both have come.
//! Parts of a response that was too large for one message are put together first; what is complete holds
//! whole revisions.

use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::plain::{event, interval, number, revision, time_of};
use crate::client::resuming::{Source, Step, Stream};
use crate::client::watch::REVISION_EVENTS_MAX;
use crate::client::{Client, Endpoint};
use crate::keyspace::{Error, Event, KeyRange, Result, Revision, RevisionEvents, Stamp};
use crate::status::LOGIN_WANTED;
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::watch_request::RequestUnion;

/// What is watched, and where.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) client: Client,
    pub(super) ranges: Vec<KeyRange>,
}

/// The least range that holds all of `ranges`, as etcd writes it.
fn hull(ranges: &[KeyRange]) -> (Bytes, Bytes) {
    if let [range] = ranges {
        return interval(range);
    }
    let start = ranges.iter().map(|range| interval(range).0).min().unwrap_or_default();
    let end = |range: &KeyRange| match range {
        KeyRange::Key(key) => Some(Bytes::from([key.as_ref(), b"\0"].concat())),
        KeyRange::Span { end, .. } => Some(end.clone()),
        KeyRange::From(_) => None,
    };
    // None, the end of what has no end, is above all.
    let ends: Option<Vec<Bytes>> = ranges.iter().map(end).collect();
    let end = ends.and_then(|ends| ends.into_iter().max());
    (start, end.unwrap_or(Bytes::from_static(b"\0")))
}

#[async_trait]
impl Source for Watched {
    type Stream = OpenWatch;

    async fn open(&self, next: Revision) -> Result<(OpenWatch, Revision)> {
        let (key, range_end) = hull(&self.ranges);
        let create = pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: number(next),
            progress_notify: true,
            fragment: true,
            ..pb::WatchCreateRequest::default()
        };
        let (requests, stream, endpoint, created) = begin(&self.client, create).await?;
        let mut watch = OpenWatch {
            client: self.client.clone(),
            endpoint,
            requests,
            stream,
            ranges: self.ranges.clone(),
            next,
            gathered: Vec::new(),
            ready: VecDeque::new(),
        };
        watch.check(&created)?;
        if next == Revision::NONE {
            watch.next = super::plain::current(created.header.as_ref()).next();
        }
        let first = watch.next;
        Ok((watch, first))
    }
}

type Begun =
    (mpsc::Sender<pb::WatchRequest>, Streaming<pb::WatchResponse>, Endpoint, pb::WatchResponse);

/// Opens a stream with one watch and waits for the word that it is there.
async fn begin(client: &Client, create: pb::WatchCreateRequest) -> Result<Begun> {
    let opening = client.repeat_at(|at, _| {
        let create =
            pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create.clone())) };
        async move {
            let (requests, sent) = mpsc::channel(4);
            requests.try_send(create).expect("the channel is new and has room");
            let mut watching = at.watch();
            let mut stream = watching.watch(ReceiverStream::new(sent)).await?.into_inner();
            let created = stream.message().await?;
            let none = || Status::unavailable("the node ended the watch at once");
            let created = created.ok_or_else(none)?;
            // A stream is refused by a message: what another token may mend must look like a refusal.
            let wants_login = LOGIN_WANTED
                .into_iter()
                .find(|words| created.canceled && created.cancel_reason.ends_with(words));
            match wants_login {
                Some(words) => Err(Status::unauthenticated(words)),
                None => Ok(Response::new((requests, stream, created))),
            }
        }
    });
    let (endpoint, opened) = opening.await?;
    let (requests, stream, created) = opened.into_inner();
    Ok((requests, stream, endpoint, created))
}

/// The revision up to which history is compacted: a watch from the beginning is told.
///
/// # Errors
/// What failed; [`Error::Unavailable`] if it is not told.
pub(super) async fn compacted(client: &Client) -> Result<Revision> {
    let key = Bytes::from_static(b"\0");
    let create = pb::WatchCreateRequest { key, start_revision: 1, ..Default::default() };
    let timeout = client.settings().call_timeout;
    let (requests, mut stream, endpoint, first) = begin(client, create).await?;
    let told = async {
        let mut message = first;
        while message.compact_revision == 0 {
            let next = stream.message().await;
            let next = next.map_err(|status| client.read_error(&endpoint, &status))?;
            let gone = || Error::Unavailable { reason: format!("{endpoint}: the watch ended") };
            message = next.ok_or_else(gone)?;
        }
        Ok(revision(message.compact_revision))
    };
    let told = tokio::time::timeout(timeout, told).await;
    drop(requests);
    told.unwrap_or(Err(Error::Timeout(timeout)))
}

pub(super) struct OpenWatch {
    client: Client,
    endpoint: Endpoint,
    /// The stream ends when this is dropped.
    requests: mpsc::Sender<pb::WatchRequest>,
    stream: Streaming<pb::WatchResponse>,
    ranges: Vec<KeyRange>,
    next: Revision,
    /// Events of a response that more parts of will come.
    gathered: Vec<Event>,
    ready: VecDeque<Step>,
}

impl OpenWatch {
    fn lost(&self, reason: &str) -> Error {
        Error::Unavailable { reason: format!("{}: {reason}", self.endpoint) }
    }

    /// Asks how far the watch has come; the answer is a [`Step::Progress`]. If the channel is full an
    /// answer is on its way.
    pub(super) fn ask_progress(&self) {
        let request = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
        self.requests.try_send(pb::WatchRequest { request_union: Some(request) }).ok();
    }

    /// Whether the server goes on with the watch.
    fn check(&self, response: &pb::WatchResponse) -> Result<()> {
        if response.compact_revision > 0 {
            let compacted = revision(response.compact_revision);
            return Err(Error::Compacted { requested: self.next, compacted });
        }
        if !response.canceled {
            return Ok(());
        }
        let reason = format!("{}: {}", self.endpoint, response.cancel_reason);
        let is_denied = ["PermissionDenied", "Unauthenticated", "user name is empty"];
        if is_denied.iter().any(|word| reason.contains(word)) {
            return Err(Error::Denied { reason });
        }
        Err(Error::Unavailable { reason })
    }

    /// Makes steps of a response; of one that is not complete, none yet.
    fn take(&mut self, response: pb::WatchResponse) -> Result<()> {
        self.check(&response)?;
        if response.created {
            return Ok(());
        }
        let told = super::plain::current(response.header.as_ref());
        let is_progress = response.events.is_empty() && self.gathered.is_empty();
        if is_progress && !response.fragment {
            self.ready.push_back(Step::Progress(told));
            return Ok(());
        }
        self.gathered.extend(response.events.into_iter().map(event));
        if self.gathered.len() > REVISION_EVENTS_MAX {
            return Err(self.lost("a response has more than a million events"));
        }
        if response.fragment {
            return Ok(());
        }
        let mut revisions: Vec<RevisionEvents> = Vec::new();
        for event in self.gathered.drain(..) {
            let own = event.kv.mod_revision;
            if own < self.next {
                // Old releases show more than they were asked for.
                continue;
            }
            if revisions.last().is_none_or(|last| last.stamp.revision != own) {
                let stamp = Stamp { revision: own, time: time_of(own), ..Stamp::default() };
                revisions.push(RevisionEvents { stamp, events: Vec::new() });
            }
            let is_seen = self.ranges.iter().any(|range| range.contains(&event.kv.key));
            if let Some(last) = revisions.last_mut().filter(|_| is_seen) {
                last.events.push(event);
            }
        }
        for whole in revisions {
            self.next = self.next.max(whole.stamp.revision.next());
            self.ready.push_back(match whole.events.is_empty() {
                true => Step::Progress(whole.stamp.revision),
                false => Step::Revision(whole),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl Stream for OpenWatch {
    async fn receive(&mut self) -> Result<Step> {
        loop {
            if let Some(step) = self.ready.pop_front() {
                return Ok(step);
            }
            match self.stream.message().await {
                Ok(Some(response)) => self.take(response)?,
                Ok(None) => return Err(self.lost("the watch was ended by the node")),
                Err(status) => return Err(self.client.read_error(&self.endpoint, &status)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_watched_as_it_is_and_several_by_what_holds_them() {
        let key = |text: &'static str| Bytes::from_static(text.as_bytes());
        let span = |start, end| KeyRange::Span { start: key(start), end: key(end) };
        assert_eq!(hull(&[span("/a", "/b")]), (key("/a"), key("/b")));
        assert_eq!(hull(&[KeyRange::Key(key("/a"))]), (key("/a"), key("")));
        assert_eq!(hull(&[span("/m", "/n"), span("/a", "/b")]), (key("/a"), key("/n")));
        assert_eq!(hull(&[span("/a", "/b"), KeyRange::Key(key("/x"))]), (key("/a"), key("/x\0")));
        assert_eq!(hull(&[KeyRange::From(key("/m")), span("", "/b")]), (key("\0"), key("\0")));
    }
}
