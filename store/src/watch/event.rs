//! One change on its way to its watchers: where its parts come from, and each form of it that a
//! watcher may have asked for, made once for all of them.

use std::sync::Arc;

use bytes::Bytes;

use super::{WatchRequest, WatchedEvent};
use crate::command::Command;
use crate::error::{ReadError, StoreError};
use crate::schema::Want;
use crate::txn::Change;
use crate::types::{ChangeKind, Event, KeyValue, Revision, Stamp, Time};
use crate::view::ReadView;

/// What a row of a buffer or queue costs in memory besides its bytes.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// A revision as apply hands it over.
pub(crate) struct Published {
    pub(super) stamp: Arc<Stamp>,
    /// In order.
    pub(super) events: Vec<Event>,
    pub(super) bytes: usize,
}

impl Published {
    pub(crate) fn new<'c>(
        revision: Revision,
        time: Time,
        command: &Command,
        changes: impl Iterator<Item = &'c Change>,
    ) -> Self {
        let stamp =
            Stamp { revision, time, author: command.author.clone(), note: command.note.clone() };
        let mut ordered: Vec<_> = changes.map(|change| &change.version).collect();
        ordered.sort_unstable_by_key(|version| version.sub);
        let event = |kind, kv: &KeyValue| Event { kind, kv: kv.clone() };
        let events: Vec<_> = (ordered.into_iter())
            .map(|version| match version.tombstone {
                true => event(ChangeKind::Delete, &version.kv),
                false => event(ChangeKind::Put, &version.kv),
            })
            .collect();
        let bytes = events.iter().map(event_bytes).sum::<usize>() + stamp.note.len();
        Self { stamp: Arc::new(stamp), events, bytes }
    }
}

fn event_bytes(event: &Event) -> usize {
    event.kv.key.len() + event.kv.value.len() + EVENT_OVERHEAD_BYTES
}

impl WatchedEvent {
    /// What it counts for in a buffer.
    pub(super) fn bytes(&self) -> usize {
        let prev = self.prev_kv.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len());
        event_bytes(&self.event) + prev
    }
}

/// Which parts of an event a watcher wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) prev_kv: bool,
    pub(super) keys_only: bool,
}

impl Form {
    pub(super) fn of(request: &WatchRequest) -> Self {
        Self { prev_kv: request.prev_kv, keys_only: request.keys_only }
    }

    fn index(self) -> usize {
        usize::from(self.prev_kv) * 2 + usize::from(self.keys_only)
    }

    fn want(self) -> Want {
        if self.keys_only { Want::Header } else { Want::Value }
    }
}

/// Where an event comes from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// From apply, complete.
    Applied(&'a Event),
    /// From the revisions tree: the version is to be looked up.
    Stored { revision: Revision, kind: ChangeKind, key: &'a [u8] },
}

impl Source<'_> {
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Applied(event) => &event.kv.key,
            Self::Stored { key, .. } => key,
        }
    }

    pub(super) fn kind(&self) -> ChangeKind {
        match self {
            Self::Applied(event) => event.kind,
            Self::Stored { kind, .. } => *kind,
        }
    }

    pub(super) fn revision(&self) -> Revision {
        match self {
            Self::Applied(event) => event.kv.mod_revision,
            Self::Stored { revision, .. } => *revision,
        }
    }
}

/// The forms of one event that were made so far.
pub(super) struct Forms<'a> {
    source: Source<'a>,
    made: [Option<Arc<WatchedEvent>>; 4],
    /// Versions that were looked up.
    pub(super) versions_read: u64,
    /// Bytes of the forms made.
    pub(super) bytes: usize,
}

impl<'a> Forms<'a> {
    pub(super) fn new(source: Source<'a>) -> Self {
        Self { source, made: [const { None }; 4], versions_read: 0, bytes: 0 }
    }

    /// The event in `form`. `view` is asked for only if something must be looked up.
    pub(super) fn get<'v>(
        &mut self,
        form: Form,
        view: &mut impl FnMut() -> Result<&'v ReadView, StoreError>,
    ) -> Result<Arc<WatchedEvent>, StoreError> {
        if let Some(made) = &self.made[form.index()] {
            return Ok(Arc::clone(made));
        }
        let event = self.event(form, view)?;
        let prev_kv = if form.prev_kv { self.previous(form, view()?)? } else { None };
        let made = Arc::new(WatchedEvent { event, prev_kv });
        self.bytes += made.bytes();
        self.made[form.index()] = Some(Arc::clone(&made));
        Ok(made)
    }

    fn event<'v>(
        &mut self,
        form: Form,
        view: &mut impl FnMut() -> Result<&'v ReadView, StoreError>,
    ) -> Result<Event, StoreError> {
        // The event of another form has the same parts, but for the previous version.
        let other = Form { prev_kv: !form.prev_kv, ..form };
        if let Some(made) = &self.made[other.index()] {
            return Ok(made.event.clone());
        }
        match self.source {
            Source::Applied(event) => Ok(detached(event, form)),
            Source::Stored { revision, kind, key } => {
                self.versions_read += 1;
                view()?.event_at(revision, kind, key, form.want())
            }
        }
    }

    fn previous(&mut self, form: Form, view: &ReadView) -> Result<Option<KeyValue>, StoreError> {
        // A revision has a change only above the first, so that the one before it exists.
        let before = Revision(self.source.revision().0 - 1);
        self.versions_read += 1;
        match view.get(before, self.source.key(), form.keys_only) {
            Ok(found) => Ok(found),
            Err(ReadError::Store(error)) => Err(error),
            Err(ReadError::Compacted { .. } | ReadError::Future { .. } | ReadError::Refused(_)) => {
                Ok(None)
            }
        }
    }
}

/// A copy that does not hold the command, of which the event's key and value are slices.
fn detached(event: &Event, form: Form) -> Event {
    let kv = &event.kv;
    let value = if form.keys_only { Bytes::new() } else { Bytes::copy_from_slice(&kv.value) };
    let key = Bytes::copy_from_slice(&kv.key);
    Event { kind: event.kind, kv: KeyValue { key, value, ..kv.clone() } }
}
