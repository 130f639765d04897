//! The locks of a file in the store: read as one table, changed by a transaction that holds only while
//! nobody else has put any.

use std::sync::Arc;

use bytes::Bytes;
use fuser::Errno;
use nix::unistd::gethostname;
use revfs_api::client::LeaseKeeper;
use revfs_api::keyspace::{
    Answer as KeyAnswer, Compare, CompareResult, CompareTarget, Error, KeyRange, Op, OpAnswer,
    RangeRead, Read, Revision, Txn,
};
use serde::{Deserialize, Serialize};

use super::Scope;
use super::session::Session;
use super::table::{ENTRIES_MAX, Entry, Of, Table};
use crate::commit::key_value;
use crate::errno::errno;
use crate::filesystem::{Answer, Filesystem};
use crate::path::{lock_key, locks_of, parse_lock_key, session_key};

/// The value of a key of locks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The machine.
    pub host: String,
    /// The mount, as `@status` calls it.
    pub mount: String,
    pub entries: Vec<Entry>,
}

/// A table and the state it was read from.
pub(crate) struct Loaded {
    pub table: Table,
    pub revision: Revision,
    own_revision: Revision,
}

/// What became of a changed table.
enum Saved {
    At(Revision),
    /// Somebody else has changed it, or nobody knows.
    Again,
}

/// The locks of one file, by mount.
pub(crate) fn records<'a>(
    answer: &'a KeyAnswer,
    file: &'a Bytes,
) -> impl Iterator<Item = (u64, Record, Revision)> + use<'a> {
    let kvs = match answer {
        KeyAnswer::Range(range) => &range.kvs[..],
        KeyAnswer::List(_) | KeyAnswer::Directory(_) => &[],
    };
    kvs.iter().filter_map(move |kv| {
        let (key, session) = parse_lock_key(&kv.key)?;
        // A name with a NUL in it may begin with this one.
        if key != *file {
            return None;
        }
        match serde_json::from_slice(&kv.value) {
            Ok(record) => Some((session, record, kv.mod_revision)),
            Err(error) => {
                tracing::error!(key = %kv.key.escape_ascii(), %error, "a record of locks is unreadable");
                None
            }
        }
    })
}

impl Filesystem {
    /// The session of this mount's locks, begun now if there is none.
    ///
    /// # Errors
    /// EIO while the mount is fenced; why there is no lease to be had.
    pub(crate) async fn lock_session(&self) -> Answer<Arc<Session>> {
        let _beginning = self.locks.beginning.lock().await;
        if self.locks.is_fenced() {
            return Err(Errno::EIO);
        }
        if let Some(session) = self.locks.current() {
            return Ok(session);
        }
        let seconds =
            i64::try_from(self.options.lock_lease.as_secs()).map_err(|_| Errno::EINVAL)?;
        let granted = LeaseKeeper::grant(Arc::clone(&self.keys), seconds);
        let keeper = self.within(granted).await?;
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|_| Errno::EIO)?;
        let id = u64::from_be_bytes(id);
        let key = session_key(&self.options.root, id);
        let value = serde_json::to_vec(&self.lock_record(Vec::new())).map_err(|_| Errno::EIO)?;
        let txn =
            Txn { success: vec![Op::put_on(keeper.id(), key.clone(), value)], ..Txn::default() };
        let begun = self.send(self.next_sequence(), 0, Vec::new(), txn).await;
        begun.map_err(|error| errno(&error))?;
        let session = Session::begin(id, key, keeper, Arc::downgrade(&self.locks));
        self.locks.begin(&session);
        Ok(session)
    }

    fn lock_record(&self, entries: Vec<Entry>) -> Record {
        let host = gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        Record { host, mount: format!("{:016x}", self.mount_id), entries }
    }

    /// The locks of a file as they are.
    pub(crate) async fn load_locks(&self, scope: &Scope) -> Answer<Loaded> {
        match scope {
            Scope::Cluster { key, session } => self.load_stored(key, Some(session)).await,
            Scope::Here { ino } => {
                let (number, entries) = self.locks.here(*ino);
                let entries = entries.into_iter().map(|entry| Of { session: 0, entry }).collect();
                let table = Table { own: 0, entries };
                let revision = Revision(number);
                Ok(Loaded { table, revision, own_revision: revision })
            }
        }
    }

    /// # Errors
    /// EIO if the session is lost: its locks went with it.
    pub(crate) async fn load_stored(
        &self,
        key: &Bytes,
        session: Option<&Arc<Session>>,
    ) -> Answer<Loaded> {
        let mut reads = vec![Read::Range(RangeRead::new(KeyRange::prefix(&locks_of(key))))];
        reads.extend(session.map(|session| Read::key(session.key.clone())));
        let answer = self.ask(Revision::NONE, reads).await?;
        let own = session.map_or(0, |session| session.id);
        if session.is_some() && key_value(&answer, 1).is_none() {
            self.locks.lose(own);
            return Err(Errno::EIO);
        }
        let mut loaded = Loaded {
            table: Table { own, entries: Vec::new() },
            revision: answer.revision,
            own_revision: Revision::NONE,
        };
        for (session, record, modified) in
            answer.answers.first().into_iter().flat_map(|answer| records(answer, key))
        {
            if session == own {
                loaded.own_revision = modified;
            }
            let entries = record.entries.into_iter().map(|entry| Of { session, entry });
            loaded.table.entries.extend(entries);
        }
        Ok(loaded)
    }

    /// Changes the locks of a file: `step` decides on them as they are, and may be called again.
    /// Returns what it decided, and the revision of the change if there was one.
    ///
    /// # Errors
    /// EIO if the session is lost or the outcome not known; ENOLCK over the bound of entries.
    pub(crate) async fn change_locks<T>(
        &self,
        scope: &Scope,
        mut step: impl FnMut(&mut Table, Revision) -> T,
    ) -> Answer<(T, Option<Revision>)> {
        let deadline = tokio::time::Instant::now() + self.options.timeout;
        loop {
            let mut loaded = self.load_locks(scope).await?;
            let before = loaded.table.own_entries();
            let decided = step(&mut loaded.table, loaded.revision);
            let after = loaded.table.own_entries();
            if before == after {
                return Ok((decided, None));
            }
            if after.len() > ENTRIES_MAX && after.len() > before.len() {
                return Err(Errno::ENOLCK);
            }
            match self.save_locks(scope, &loaded, after).await? {
                Saved::At(revision) => return Ok((decided, Some(revision))),
                Saved::Again if tokio::time::Instant::now() < deadline => {}
                Saved::Again => return Err(Errno::EIO),
            }
        }
    }

    async fn save_locks(
        &self,
        scope: &Scope,
        loaded: &Loaded,
        entries: Vec<Entry>,
    ) -> Answer<Saved> {
        let (key, session) = match scope {
            Scope::Cluster { key, session } => (key, session),
            Scope::Here { ino } => {
                let seen = loaded.revision;
                let is_set = self.locks.set_here(*ino, seen.0, entries);
                return Ok(if is_set { Saved::At(seen.next()) } else { Saved::Again });
            }
        };
        let own = lock_key(key, session.id);
        let change = if entries.is_empty() {
            Op::delete(own.clone())
        } else {
            let value = serde_json::to_vec(&self.lock_record(entries)).map_err(|_| Errno::EIO)?;
            Op::put_on(session.lease, own.clone(), value)
        };
        let txn = Txn {
            compares: vec![
                Compare::present(session.key.clone()),
                Compare::mod_revision(own, loaded.own_revision),
                // Whose lock was let go meanwhile is in nobody's way.
                Compare {
                    range: KeyRange::prefix(&locks_of(key)),
                    target: CompareTarget::ModRevision(loaded.revision.next()),
                    result: CompareResult::Less,
                },
            ],
            success: vec![change],
            failure: vec![Op::Range(RangeRead::new(KeyRange::Key(session.key.clone())))],
        };
        match self.send(self.next_sequence(), 0, Vec::new(), txn).await {
            Ok(answer) if answer.succeeded => Ok(Saved::At(answer.revision)),
            Ok(answer) => match answer.answers.first() {
                Some(OpAnswer::Range(range)) if range.kvs.is_empty() => {
                    self.locks.lose(session.id);
                    Err(Errno::EIO)
                }
                _ => Ok(Saved::Again),
            },
            // The next transaction compares the own key, so that this one can come no more.
            Err(Error::OutcomeUnknown { .. }) => Ok(Saved::Again),
            Err(Error::KeyTooLong { .. }) => Err(Errno::ENOLCK),
            Err(error) => Err(errno(&error)),
        }
    }
}
