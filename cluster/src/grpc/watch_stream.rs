//! A watch of the key space as the messages of one stream. A revision goes out in parts of bounded
//! size, so that a bulk change does not need a message as large as itself. The stream is pulled: a slow
//! reader holds the watch back, not the memory. While nothing happens to the watched keys it says from
//! time to time how far the watch has come, so that a client that comes back is not told of a
//! compaction behind which it has missed nothing.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use futures_util::Stream;
use revfs_api::keyspace::{Error, Event, Revision, RevisionEvents, Watch};
use revfs_api::status::to_status;
use revfs_api::wire::revfs::WatchResponse;
use revfs_api::wire::revfs::watch_response::Response;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};
use tonic::Status;

use super::connection::{Phase, reached};

/// A part is closed by the event that takes it over this size; one event is at most a value.
const PART_BYTES: usize = 1024 * 1024;

/// Between two marks of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

struct Sending {
    watch: Box<dyn Watch>,
    parts: VecDeque<WatchResponse>,
    phases: watch::Receiver<Phase>,
    /// The client knows that it has everything up to here.
    told: Revision,
    marks: Interval,
    has_ended: bool,
}

/// The messages of a watch that sees everything from `from` on.
pub(super) fn watch_stream(
    watch: Box<dyn Watch>,
    from: Revision,
    phases: watch::Receiver<Phase>,
) -> impl Stream<Item = Result<WatchResponse, Status>> + Send {
    let first = WatchResponse { response: Some(Response::WatchingFrom(from.0)), continued: false };
    let mut marks = tokio::time::interval(PROGRESS_INTERVAL);
    marks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let told = Revision(from.0.saturating_sub(1));
    let parts = VecDeque::from([first]);
    let sending = Sending { watch, parts, phases, told, marks, has_ended: false };
    futures_util::stream::unfold(sending, |mut sending| async move {
        let message = sending.next().await?;
        Some((message, sending))
    })
}

impl Sending {
    async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        if self.has_ended {
            return None;
        }
        if let Some(part) = self.parts.pop_front() {
            return Some(Ok(part));
        }
        match self.wait().await {
            Ok(Waited::Revision(revision)) => {
                self.told = revision.stamp.revision;
                self.parts = parts(revision);
                self.parts.pop_front().map(Ok)
            }
            Ok(Waited::Progress(progress)) => {
                self.told = progress;
                let response = Some(Response::Progress(progress.0));
                Some(Ok(WatchResponse { response, continued: false }))
            }
            Err(error) => {
                self.has_ended = true;
                Some(Err(to_status(&error)))
            }
        }
    }

    async fn wait(&mut self) -> Result<Waited, Error> {
        let mut draining = pin!(reached(self.phases.clone(), Phase::Draining));
        loop {
            tokio::select! {
                revision = self.watch.next() => return revision.map(Waited::Revision),
                _ = self.marks.tick() => {
                    let progress = self.watch.progress();
                    if progress > self.told {
                        return Ok(Waited::Progress(progress));
                    }
                }
                () = &mut draining => {
                    return Err(Error::shutting_down());
                }
            }
        }
    }
}

enum Waited {
    Revision(RevisionEvents),
    Progress(Revision),
}

/// One part at least, also for a revision without events.
fn parts(revision: RevisionEvents) -> VecDeque<WatchResponse> {
    let RevisionEvents { stamp, events } = revision;
    let mut groups: Vec<Vec<Event>> = vec![Vec::new()];
    let mut bytes = 0;
    for event in events {
        if bytes >= PART_BYTES {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += event.kv.key.len() + event.kv.value.len() + 64;
        if let Some(group) = groups.last_mut() {
            group.push(event);
        }
    }
    let last = groups.len() - 1;
    let part = |(index, events): (usize, Vec<Event>)| {
        let part = RevisionEvents { stamp: stamp.clone(), events };
        WatchResponse { response: Some(Response::Revision(part.into())), continued: index < last }
    };
    groups.into_iter().enumerate().map(part).collect()
}
