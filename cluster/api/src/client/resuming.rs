//! A watch that outlives its connection, whatever service it comes from.
//!
//! `next` is the revision that the caller has not seen yet; it moves only when a whole revision was
//! received, or when the server says that nothing happened up to it. After a lost connection the watch
//! is opened again from there, so that nothing is skipped and nothing comes twice.
//!
//! All state is in the value, an attempt to open the watch again included: whoever drops the future of
//! `next()` and asks again goes on with the same attempt, however short it waits each time.

use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use tokio::time::Instant;

use super::Settings;
use crate::keyspace::{Error, Result, Revision, RevisionEvents, Watch};

/// What an open stream says next.
pub(super) enum Step {
    Revision(RevisionEvents),
    /// Everything up to here was handed out.
    Progress(Revision),
}

/// An open stream of changes.
#[async_trait]
pub(super) trait Stream: Send {
    /// Dropping the future loses nothing.
    async fn receive(&mut self) -> Result<Step>;
}

/// Where a watch comes from, again and again.
#[async_trait]
pub(super) trait Source: Clone + Send + Sync + 'static {
    type Stream: Stream;

    /// Opens the watch at `next` ([`Revision::NONE`] = after the present); the stream, and the first
    /// revision that it will show.
    async fn open(&self, next: Revision) -> Result<(Self::Stream, Revision)>;
}

type Attempt<T> = Pin<Box<dyn Future<Output = Result<(T, Revision)>> + Send>>;

/// See the module.
pub(super) struct ResumingWatch<S: Source> {
    source: S,
    settings: Settings,
    next: Revision,
    state: State<S::Stream>,
}

enum State<T> {
    Open(T),
    /// Since when, how often it was tried to open it again, and the attempt that is under way: its
    /// pause and the opening.
    Lost {
        since: Instant,
        tries: u32,
        attempt: Attempt<T>,
    },
    Ended,
}

impl<S: Source> ResumingWatch<S> {
    pub(super) async fn open(source: S, settings: Settings, from: Revision) -> Result<Self> {
        let (stream, next) = source.open(from).await?;
        Ok(Self { source, settings, next, state: State::Open(stream) })
    }

    fn lose(&mut self, since: Instant, tries: u32) {
        let (source, next) = (self.source.clone(), self.next);
        let pause = self.settings.pause_before(tries);
        let attempt = Box::pin(async move {
            tokio::time::sleep(pause).await;
            source.open(next).await
        });
        self.state = State::Lost { since, tries, attempt };
    }

    fn end(&mut self, error: Error) -> Error {
        self.state = State::Ended;
        error
    }

    /// Moves on by one step of the stream; a revision if it was one.
    fn step(&mut self, step: Step) -> Result<Option<RevisionEvents>> {
        match step {
            Step::Progress(progress) => {
                self.next = self.next.max(progress.next());
                Ok(None)
            }
            Step::Revision(events) if events.stamp.revision < self.next => {
                let (came, next) = (events.stamp.revision, self.next);
                let reason = format!("the watch went back in time, to {came} from {next}");
                Err(Error::Unavailable { reason })
            }
            Step::Revision(mut events) => {
                self.next = events.stamp.revision.next();
                events.events.shrink_to_fit();
                Ok(Some(events))
            }
        }
    }
}

/// Whether another connection may bring the watch back.
fn is_transient(error: &Error) -> bool {
    matches!(error, Error::Unavailable { .. } | Error::Timeout(_) | Error::NoQuorum { .. })
}

#[async_trait]
impl<S: Source> Watch for ResumingWatch<S> {
    async fn next(&mut self) -> Result<RevisionEvents> {
        loop {
            match &mut self.state {
                State::Open(stream) => {
                    let step = stream.receive().await;
                    match step.and_then(|step| self.step(step)) {
                        Ok(Some(events)) => return Ok(events),
                        Ok(None) => {}
                        Err(error) if is_transient(&error) => self.lose(Instant::now(), 0),
                        Err(error) => return Err(self.end(error)),
                    }
                }
                State::Lost { since, tries, attempt } => {
                    let opened = attempt.await;
                    let (since, tries) = (*since, *tries);
                    match opened {
                        Ok((stream, next)) => {
                            self.next = next;
                            self.state = State::Open(stream);
                        }
                        Err(error)
                            if is_transient(&error)
                                && since.elapsed() < self.settings.watch_patience =>
                        {
                            self.lose(since, tries.saturating_add(1));
                        }
                        Err(error) => return Err(self.end(error)),
                    }
                }
                State::Ended => {
                    return Err(Error::Unavailable { reason: "the watch has ended".into() });
                }
            }
        }
    }

    fn progress(&self) -> Revision {
        Revision(self.next.0.saturating_sub(1))
    }
}
