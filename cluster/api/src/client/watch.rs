//! A watch over the network that outlives its connection.
//!
//! `next` is the revision that the caller has not seen yet; it moves only when a whole revision was
//! received, or when the server says that nothing happened up to it. After a lost connection the watch is opened again from there, so that nothing is skipped
//! and nothing comes twice. All state is in the value: dropping the future of `next()` loses nothing.

use async_trait::async_trait;
use tokio::time::Instant;
use tonic::Streaming;

use super::Caller;
use crate::convert;
use crate::keyspace::{Error, KeyRange, Result, Revision, RevisionEvents, Watch};
use crate::wire::revfs::WatchResponse;
use crate::wire::revfs::watch_response::Response;

/// Events that one revision may hold: far above what a transaction may change. A server that sends
/// more without end must not fill the memory.
const REVISION_EVENTS_MAX: usize = 1_000_000;

pub(super) struct RemoteWatch {
    caller: Caller,
    ranges: Vec<KeyRange>,
    next: Revision,
    state: State,
}

enum State {
    /// `begun` is a revision of which more parts will come.
    Open {
        stream: Box<Streaming<WatchResponse>>,
        begun: Option<RevisionEvents>,
    },
    /// Since when, and how often it was tried to open it again.
    Lost {
        since: Instant,
        tries: u32,
        error: Error,
    },
    Ended,
}

impl RemoteWatch {
    pub(super) async fn open(
        caller: Caller,
        ranges: Vec<KeyRange>,
        from: Revision,
    ) -> Result<Self> {
        let mut watch = Self { caller, ranges, next: from, state: State::Ended };
        watch.connect().await?;
        Ok(watch)
    }

    /// Opens the stream at `next` and waits for the server's word that it watches.
    async fn connect(&mut self) -> Result<()> {
        let timeout = self.caller.settings.call_timeout;
        let request = convert::watch_request(self.ranges.clone(), self.next);
        let mut client = self.caller.client.clone();
        let opening = async {
            // The stream itself has no deadline: only its opening does.
            let mut stream = client.watch(request).await?.into_inner();
            let first = stream.message().await?;
            Ok::<_, tonic::Status>((stream, first))
        };
        let (stream, first) = tokio::time::timeout(timeout, opening)
            .await
            .map_err(|_| Error::Timeout(timeout))?
            .map_err(|status| self.caller.read_error(&status))?;
        let Some(Response::WatchingFrom(from)) = first.and_then(|first| first.response) else {
            return Err(self.lost("the watch did not begin with its revision"));
        };
        let is_resumed = self.next != Revision::NONE;
        if is_resumed && from != self.next.0 {
            return Err(self.lost("the watch began at another revision than it was asked for"));
        }
        self.next = Revision(from);
        self.state = State::Open { stream: Box::new(stream), begun: None };
        Ok(())
    }

    fn lost(&self, reason: &str) -> Error {
        Error::Unavailable { reason: format!("{}: {reason}", self.caller.endpoint) }
    }

    /// Waits for the rest of a revision on the open stream.
    async fn receive(&mut self) -> Result<RevisionEvents> {
        loop {
            let State::Open { stream, begun } = &mut self.state else {
                return Err(self.lost("the watch has ended"));
            };
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(self.lost("the watch was ended by the node")),
                Err(status) => return Err(self.caller.read_error(&status)),
            };
            let part = match message.response {
                Some(Response::Revision(part)) => part,
                Some(Response::Progress(progress)) if begun.is_none() => {
                    self.next = self.next.max(Revision(progress).next());
                    continue;
                }
                _ => return Err(self.lost("the watch sent something else than a revision")),
            };
            let part = self.caller.understood(RevisionEvents::try_from(part))?;
            let mut whole = match begun.take() {
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
            if message.continued {
                *begun = Some(whole);
                continue;
            }
            if whole.stamp.revision < self.next {
                return Err(self.lost("the watch went back in time"));
            }
            self.next = whole.stamp.revision.next();
            whole.events.shrink_to_fit();
            return Ok(whole);
        }
    }

    /// Opens the watch again after a pause, or gives up when it was lost for too long.
    async fn reopen(&mut self) -> Result<()> {
        let State::Lost { since, tries, error } = &mut self.state else { return Ok(()) };
        let settings = &self.caller.settings;
        if since.elapsed() >= settings.watch_patience {
            return Err(error.clone());
        }
        let pause = settings.pause_before(*tries);
        *tries += 1;
        tokio::time::sleep(pause).await;
        match self.connect().await {
            Err(again) if is_transient(&again) => {
                if let State::Lost { error, .. } = &mut self.state {
                    *error = again;
                }
                Ok(())
            }
            other => other,
        }
    }
}

/// Whether another connection may bring the watch back.
fn is_transient(error: &Error) -> bool {
    matches!(error, Error::Unavailable { .. } | Error::Timeout(_) | Error::NoQuorum { .. })
}

#[async_trait]
impl Watch for RemoteWatch {
    async fn next(&mut self) -> Result<RevisionEvents> {
        loop {
            let outcome = match self.state {
                State::Open { .. } => self.receive().await.map(Some),
                State::Lost { .. } => self.reopen().await.map(|()| None),
                State::Ended => Err(self.lost("the watch has ended")),
            };
            match outcome {
                Ok(Some(revision)) => return Ok(revision),
                Ok(None) => {}
                Err(error) if matches!(self.state, State::Open { .. }) && is_transient(&error) => {
                    self.state = State::Lost { since: Instant::now(), tries: 0, error };
                }
                Err(error) => {
                    self.state = State::Ended;
                    return Err(error);
                }
            }
        }
    }

    fn progress(&self) -> Revision {
        Revision(self.next.0.saturating_sub(1))
    }
}
