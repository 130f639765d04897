//! One client's stream: requests come in, answers go out in an order that keeps etcd's promises.
//!
//! - `created` comes before the first event of a watch, and nothing after `canceled`;
//! - the revisions of a watch come in order, each once and whole; its parts are not mixed with others;
//! - a mark of progress is made when nothing else is to be sent, so that it overtakes no event.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use revfs_api::keyspace::{self, Error};
use revfs_api::status;
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::watch_request::RequestUnion;
use revfs_store::ReadError;
use revfs_store::types::Revision;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tonic::{Status, Streaming};

use super::super::connection::{Phase, reached};
use super::super::credentials::Credentials;
use super::super::member::{Member, fail, signed};
use super::message::{self, DUPLICATE_ID, NO_WATCH, RANGE_EMPTY};
use super::watches::{Manner, Taken, Watches};
use crate::convert;
use crate::local::Local;

/// Watches of one stream.
const WATCHES_MAX: usize = 100_000;

/// The first pause before it is looked again whether all watches have come to the present.
const PROGRESS_PAUSE: Duration = Duration::from_millis(1);

/// A question for progress that all of them cannot answer for so long is dropped, as etcd drops it at
/// once: who asks asks again.
const PROGRESS_WAIT_MAX: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Stream {
    member: Arc<Member>,
    /// The node on its own behalf.
    node: Arc<Local>,
    credentials: Credentials,
    /// Users or roles changed.
    auth_turns: watch::Receiver<u64>,
    requests: Streaming<pb::WatchRequest>,
    /// The client may still send requests.
    is_asking: bool,
    watches: Watches,
    outgoing: VecDeque<pb::WatchResponse>,
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    marks: Interval,
    question: Option<Question>,
    /// A watch that takes its revisions in parts gets parts of this size.
    part_bytes_max: usize,
    /// Of all streams of the node.
    watches_max: usize,
    has_ended: bool,
}

/// How far have all watches come? To be answered once they have come to `present`.
struct Question {
    present: Revision,
    since: Instant,
    pause: Duration,
}

enum Next {
    Request(Result<Option<pb::WatchRequest>, Status>),
    Rung(i64),
    Marks,
    Question,
    /// Users or roles changed.
    Turn,
    Draining,
}

impl Stream {
    pub(super) fn new(
        member: Arc<Member>,
        (requests, credentials): (Streaming<pb::WatchRequest>, Credentials),
        phases: watch::Receiver<Phase>,
        progress_interval: Duration,
        (part_bytes_max, watches_max): (usize, usize),
    ) -> Result<Self, Status> {
        let node = Arc::clone(member.own_node()?);
        // Clients that came together are not to be told together.
        let jitter = progress_interval.mul_f64(f64::from(jitter()) / f64::from(u16::MAX) / 10.0);
        let period = progress_interval + jitter;
        let mut marks = tokio::time::interval_at(Instant::now() + period, period);
        marks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            member,
            auth_turns: node.auth_turns(),
            node,
            credentials,
            requests,
            is_asking: true,
            watches: Watches::default(),
            outgoing: VecDeque::new(),
            draining: Box::pin(reached(phases, Phase::Draining)),
            marks,
            question: None,
            part_bytes_max,
            watches_max,
            has_ended: false,
        })
    }

    pub(super) async fn next(&mut self) -> Option<Result<pb::WatchResponse, Status>> {
        loop {
            if let Some(message) = self.outgoing.pop_front() {
                return Some(Ok(message));
            }
            if self.has_ended {
                return None;
            }
            if let Err(status) = self.advance().await {
                self.has_ended = true;
                return Some(Err(status));
            }
        }
    }

    /// Waits for the next thing that concerns this stream.
    async fn wait(&mut self) -> Next {
        let Self { requests, is_asking, watches, draining, marks, question, auth_turns, .. } = self;
        let pause = question.as_ref().map_or(Duration::MAX, |question| question.pause);
        tokio::select! {
            () = draining => Next::Draining,
            Ok(()) = auth_turns.changed() => Next::Turn,
            request = requests.message(), if *is_asking => Next::Request(request),
            id = poll_fn(|context| watches.poll_rung(context)) => Next::Rung(id),
            _ = marks.tick() => Next::Marks,
            () = tokio::time::sleep(pause), if question.is_some() => Next::Question,
        }
    }

    async fn advance(&mut self) -> Result<(), Status> {
        match self.wait().await {
            Next::Draining => Err(fail(Error::shutting_down())),
            Next::Request(Ok(Some(request))) => self.receive(request).await,
            // What is watched goes on.
            Next::Request(Ok(None)) => {
                self.is_asking = false;
                Ok(())
            }
            Next::Request(Err(status)) => Err(status),
            Next::Rung(id) => self.take(id).await,
            Next::Turn => {
                self.watches.ring_all();
                Ok(())
            }
            Next::Marks => self.mark().await,
            Next::Question => {
                self.answer_question().await;
                Ok(())
            }
        }
    }

    /// The present revision.
    fn current(&self) -> Result<Revision, Status> {
        self.node.current_revision().map_err(fail)
    }

    async fn say(&mut self, revision: Revision, message: pb::WatchResponse) {
        let header = self.member.header(keyspace::Revision(revision.0)).await;
        self.outgoing.push_back(pb::WatchResponse { header: Some(header), ..message });
    }

    async fn receive(&mut self, request: pb::WatchRequest) -> Result<(), Status> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })) => {
                if self.watches.remove(watch_id) {
                    let message =
                        pb::WatchResponse { watch_id, canceled: true, ..Default::default() };
                    self.say(self.current()?, message).await;
                }
                Ok(())
            }
            Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})) => {
                let present = self.current()?;
                let since = self.question.as_ref().map_or_else(Instant::now, |asked| asked.since);
                self.question = Some(Question { present, since, pause: PROGRESS_PAUSE });
                self.answer_question().await;
                Ok(())
            }
            // What a later release may ask for.
            None => Ok(()),
        }
    }

    async fn create(&mut self, create: pb::WatchCreateRequest) -> Result<(), Status> {
        let current = self.current()?;
        let Ok(start) = u64::try_from(create.start_revision).map(Revision) else {
            return self.refuse(current, status::COMPACTED).await;
        };
        let Some(request) = message::watch_request(&create, start) else {
            return self.refuse(current, RANGE_EMPTY).await;
        };
        if create.watch_id != 0 && self.watches.contains(create.watch_id) {
            return self.refuse(current, DUPLICATE_ID).await;
        }
        if self.watches.len() >= WATCHES_MAX {
            let reason = format!("a stream carries {WATCHES_MAX} watches: open another one");
            return self.refuse(current, &reason).await;
        }
        let meters = &self.node.node.proposer.meters;
        let open = meters.watch();
        if usize::try_from(meters.watches.get()).unwrap_or(0) > self.watches_max {
            let reason = format!("{} watches are open on this node", self.watches_max);
            let status = fail(Error::Busy { reason });
            return self.refuse(current, &message::reason(&status)).await;
        }
        // The token may mean somebody else by now, or nobody.
        let caller = match self.member.node_for(&self.credentials) {
            Ok(caller) => caller,
            Err(status) => return self.refuse(current, &message::reason(&status)).await,
        };
        let watched = caller.watch_events(request);
        let lost = match &watched {
            Ok(_) => None,
            Err(Error::Compacted { compacted, .. }) => Some(*compacted),
            Err(error @ (Error::Closed { .. } | Error::Unavailable { .. })) => {
                return Err(status::to_status(error));
            }
            Err(error) => {
                let status = status::to_status(error);
                return self.refuse(current, &message::reason(&status)).await;
            }
        };
        let id = match create.watch_id {
            0 => self.watches.free_id(),
            id => id,
        };
        let created = pb::WatchResponse { watch_id: id, created: true, ..Default::default() };
        match watched {
            Ok(watcher) => {
                // From now on = from behind the revision that the answer names.
                let now = Revision(watcher.from().0.saturating_sub(1));
                let told = if start.is_none() { now } else { current };
                let (fragment, progress) = (create.fragment, create.progress_notify);
                self.watches.add(id, (watcher, open), told, Manner { start, fragment, progress });
                self.say(told, created).await;
            }
            Err(_) => self.say(current, created).await,
        }
        if let Some(compacted) = lost {
            self.lose(id, Revision(compacted.0)).await;
        }
        Ok(())
    }

    async fn refuse(&mut self, current: Revision, reason: &str) -> Result<(), Status> {
        let message = pb::WatchResponse {
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..Default::default()
        };
        self.say(current, message).await;
        Ok(())
    }

    /// Says that a watch has ended because what it had to see is compacted; etcd's header names no
    /// revision then.
    async fn lose(&mut self, watch_id: i64, compacted: Revision) {
        let compact_revision = signed(compacted.0);
        let message =
            pb::WatchResponse { watch_id, canceled: true, compact_revision, ..Default::default() };
        self.say(Revision::NONE, message).await;
    }

    /// Takes what a watch has to say.
    async fn take(&mut self, id: i64) -> Result<(), Status> {
        let Some(watching) = self.watches.get(id) else { return Ok(()) };
        let (taken, fragment) = (watching.take(), watching.fragment);
        let Taken { revisions, is_past } = match taken {
            Ok(taken) => taken,
            Err(ReadError::Compacted { compacted, .. }) => {
                self.watches.remove(id);
                self.lose(id, compacted).await;
                return Ok(());
            }
            Err(error @ ReadError::Refused(_)) => {
                self.watches.remove(id);
                let cancel_reason = message::reason(&fail(convert::read_error(error)));
                let message = pb::WatchResponse {
                    watch_id: id,
                    canceled: true,
                    cancel_reason,
                    ..Default::default()
                };
                self.say(self.current()?, message).await;
                return Ok(());
            }
            Err(error) => return Err(fail(convert::read_error(error))),
        };
        let Some(last) = revisions.last().map(|revision| revision.stamp.revision) else {
            return Ok(());
        };
        if let Some(is_due) = &mut watching.progress {
            *is_due = false;
        }
        let events: Vec<_> = revisions.iter().flat_map(message::events).collect();
        self.node
            .node
            .proposer
            .meters
            .watch_events
            .inc_by(u64::try_from(events.len()).unwrap_or(0));
        let revision = if is_past { self.current()?.max(last) } else { last };
        let header = self.member.header(keyspace::Revision(revision.0)).await;
        let header = Some(header);
        let whole = pb::WatchResponse { header, watch_id: id, events, ..Default::default() };
        if fragment {
            self.outgoing.extend(message::fragments(whole, self.part_bytes_max));
        } else {
            self.outgoing.push_back(whole);
        }
        Ok(())
    }

    /// Tells those who asked for it how far they have come, unless events told them.
    async fn mark(&mut self) -> Result<(), Status> {
        let current = self.current()?;
        let mut told = Vec::new();
        for (id, watching) in self.watches.iter_mut() {
            let progress = watching.progress(current);
            if let Some(is_due) = &mut watching.progress
                && std::mem::replace(is_due, true)
                && let Some(progress) = progress
            {
                told.push((id, progress));
            }
        }
        for (watch_id, progress) in told {
            self.say(progress, pb::WatchResponse { watch_id, ..Default::default() }).await;
        }
        Ok(())
    }

    async fn answer_question(&mut self) {
        let Some(question) = &mut self.question else { return };
        if let Some(progress) = self.watches.progress(question.present) {
            self.question = None;
            let message = pb::WatchResponse { watch_id: NO_WATCH, ..Default::default() };
            self.say(progress, message).await;
        } else if self.watches.len() == 0 || question.since.elapsed() > PROGRESS_WAIT_MAX {
            self.question = None;
        } else {
            question.pause *= 2;
        }
    }
}

/// If there is no randomness, none is needed.
fn jitter() -> u16 {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).map_or(0, |()| u16::from_be_bytes(bytes))
}
