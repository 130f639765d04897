//! Applies a command: deterministic, without clock, random numbers or local limits.
//!
//! [`Application::run`] reads the state before the command and returns what is to become of it: the
//! answer, the rows to add to the overlay, the new compacted revision. It changes nothing itself, so
//! that a failure leaves no trace.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::alarm;
use crate::auth::{self, Auth, AuthRefusal};
use crate::command::{Body, Command, Done, Outcome, Refusal};
use crate::error::StoreError;
use crate::lease;
use crate::member;
use crate::moved::Moved;
use crate::names::{NewRow, name_rows};
use crate::schema::{
    Tree, attachment_row, encode_attachment, encode_change, encode_key_row, encode_stamp, key_row,
    revision_row,
};
use crate::store::Shared;
use crate::txn::{Change, Changes, Stop};
use crate::types::{LeaseId, Revision, Stamp, Time};
use crate::upload;
use crate::view::ReadView;
use crate::watch::Published;

/// What a command does.
pub(crate) struct Application {
    pub(crate) outcome: Outcome,
    pub(crate) rows: Vec<NewRow>,
    /// Time of the new revision, if there is one.
    pub(crate) time: Time,
    /// The new compacted revision, if the command compacts.
    pub(crate) compacted: Option<Revision>,
    /// Users and roles from now on, if the command changes them.
    pub(crate) auth: Option<Auth>,
    /// The new revision for those who watch, if somebody does.
    pub(crate) published: Option<Published>,
}

impl Application {
    /// `previous` is the time of the current revision: time never runs back along revisions.
    /// `term` is the log entry's.
    pub(crate) fn run(
        view: &ReadView,
        previous: Time,
        term: u64,
        command: &Command,
        is_watched: bool,
    ) -> Result<Self, StoreError> {
        let time = command.time.max(previous);
        let mut rows = Vec::new();
        let (mut compacted, mut changed_auth) = (None, None);
        let body = command.body.inner();
        let result = admit(view, &command.body).and_then(|()| match body {
            Body::Txn(txn) => {
                let mut changes = Changes::new(view, time);
                changes.run(txn).map(|answer| (Done::Txn(answer), changes))
            }
            Body::Compact { revision } => check_compact(view, *revision).map(|revision| {
                compacted = Some(revision);
                (Done::Compacted, Changes::new(view, time))
            }),
            Body::Auth(change) => {
                changed_auth = view.auth().changed(change, &mut rows)?;
                let auth_revision = changed_auth.as_ref().unwrap_or(view.auth()).revision();
                Ok((Done::AuthSet { auth_revision }, Changes::new(view, time)))
            }
            Body::Member(change) => {
                let done = member::run(view, change, &mut rows);
                done.map(|done| (done, Changes::new(view, time)))
            }
            Body::Check => Ok((Done::Checked, Changes::new(view, time))),
            Body::Request { .. } => unreachable!("a request holds no request"),
            Body::Alarm { alarm, is_raised } => {
                let done = alarm::set(view, *alarm, *is_raised, &mut rows);
                done.map(|done| (done, Changes::new(view, time)))
            }
            Body::LeaseGrant { .. }
            | Body::LeaseRevoke { .. }
            | Body::LeaseExpire { .. }
            | Body::LeaseCheckpoint { .. } => {
                let mut changes = Changes::new(view, time);
                let ran = lease::run(view, &mut changes, term, body, &mut rows);
                ran.map(|done| (done, changes))
            }
            Body::UploadPart { .. } | Body::UploadCommit(_) => {
                let mut changes = Changes::new(view, time);
                let ran = upload::run(view, &mut changes, body, &mut rows);
                ran.map(|done| (done, changes))
            }
        });
        let (done, changes) = match result {
            Ok(complete) => complete,
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Refused(refusal)) => {
                let outcome = Outcome { revision: view.current(), result: Err(refusal) };
                return Ok(Self {
                    outcome,
                    rows: Vec::new(),
                    time,
                    compacted: None,
                    auth: None,
                    published: None,
                });
            }
        };
        let (changes, moved) = changes.into_parts();
        let mut revision = view.current();
        let mut published = None;
        if !changes.is_empty() {
            revision = revision.next();
            published =
                is_watched.then(|| Published::new(revision, time, command, changes.values()));
            change_rows(view, revision, time, command, (changes, &moved), &mut rows)?;
        }
        let outcome = Outcome { revision, result: Ok(done) };
        Ok(Self { outcome, rows, time, compacted, auth: changed_auth, published })
    }
}

/// Refuses what the user who asks may not have, and what the alarms forbid.
fn admit(view: &ReadView, body: &Body) -> Result<(), Stop> {
    if let Body::Request { user, auth_revision, body } = body {
        if matches!(**body, Body::Request { .. }) {
            // It cannot be encoded: no log holds it.
            return Err(AuthRefusal::PermissionDenied.into());
        }
        auth::admit(view, user, *auth_revision, body)?;
    }
    alarm::admit(view, body.inner())
}

/// An entry being applied. A panic in it closes the store without a last commit, because nobody knows
/// what of the entry is in the overlay; the committer would wait for its end for ever.
pub(crate) struct Entry<'s>(pub(crate) &'s Shared);

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.fault.close("applying an entry of the log panicked"));
            let mut state = self.0.state.lock();
            state.applying = false;
            state.abandon = true;
            state.closing = true;
            drop(state);
            self.0.work.notify_all();
            self.0.progress.notify_all();
        }
    }
}

/// The revision to compact at: one that a restore left out shows what is before it.
/// Before the first compaction even revision 0 may be compacted, once, as etcd does.
fn check_compact(view: &ReadView, requested: Revision) -> Result<Revision, Stop> {
    let revision = view.made_at_or_before(requested);
    if let Some(compacted) = view.compacted_or_none()
        && revision <= compacted
    {
        return Err(Refusal::Compacted { requested, compacted }.into());
    }
    if requested > view.current() {
        return Err(Refusal::Future { requested, current: view.current() }.into());
    }
    Ok(revision)
}

/// The keys that appear (true) or vanish.
fn appearing(changes: &BTreeMap<Bytes, Change>) -> impl Iterator<Item = (&[u8], bool)> {
    changes
        .iter()
        .filter(|(_, change)| change.was_alive == change.version.tombstone)
        .map(|(key, change)| (key.as_ref(), !change.version.tombstone))
}

/// The rows of a revision in every tree.
pub(crate) fn change_rows(
    view: &ReadView,
    main: Revision,
    time: Time,
    command: &Command,
    (changes, moved): (BTreeMap<Bytes, Change>, &Moved),
    rows: &mut Vec<NewRow>,
) -> Result<(), StoreError> {
    rows.reserve(changes.len() * 4 + 1);
    view.environment().counts().change(main, appearing(&changes).map(|(key, _)| key));
    name_rows(view, main, time, appearing(&changes), moved, rows)?;
    for (key, change) in changes {
        let version = change.version;
        let row = revision_row(main, version.sub);
        let value = encode_change(&row, version.tombstone, &key);
        rows.push((Tree::Revisions, Bytes::copy_from_slice(&row), Some(value.into())));
        if change.old_lease != version.kv.lease {
            if change.old_lease != LeaseId::NONE {
                let row = attachment_row(change.old_lease, &key);
                rows.push((Tree::Attachments, row.into(), None));
            }
            if version.kv.lease != LeaseId::NONE {
                let row = attachment_row(version.kv.lease, &key);
                let value = encode_attachment(&row);
                rows.push((Tree::Attachments, row.into(), Some(value.into())));
            }
        }
        let row = key_row(&key, main);
        let value = encode_key_row(&row, &version);
        rows.push((Tree::Keys, row.into(), Some(value.into())));
    }
    let row = main.0.to_be_bytes();
    let stamp =
        Stamp { revision: main, time, author: command.author.clone(), note: command.note.clone() };
    let value = encode_stamp(&row, &stamp);
    rows.push((Tree::Times, Bytes::copy_from_slice(&row), Some(value.into())));
    Ok(())
}
