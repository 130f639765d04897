//! The data directory that is being filled.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use revfs_store::types::{Author, LeaseId, Revision, Time};
use revfs_store::{
    Body, Command, ImportedRevision, Outcome, Position, Refusal, Store, StoreOptions,
};

use super::{EtcdImportError, Imported, Survey};
use crate::config::StartError;
use crate::data_dir::Identity;
use crate::log::LogId;
use crate::new_directory::NewDirectory;
use crate::raft::position_behind;

/// The physical compaction is looked at so often.
const COMPACTION_STEP: Duration = Duration::from_secs(1);

/// See the module. Each step has a place of its own in a log that is never written.
pub(super) struct Target {
    pub(super) directory: NewDirectory,
    pub(super) store: Store,
    pub(super) time: Time,
    /// At which revision the key in place of what was left out was put first.
    pub(super) left_out_since: Revision,
    pub(super) notes: Vec<String>,
    /// Keys that a revision changes twice.
    pub(super) twice: BTreeSet<(Revision, Bytes)>,
    index: u64,
}

const TERM: u64 = 1;

impl Target {
    pub(super) fn begin(data_dir: &Path, time: Time) -> Result<Self, EtcdImportError> {
        let identity = Identity::random();
        let identity = identity.map_err(|error| StartError::io("identify", data_dir, error))?;
        let directory = NewDirectory::begin(data_dir, identity)?;
        let store = Store::create(&directory.layout.store, StoreOptions::default())?;
        let (left_out_since, notes) = (Revision::NONE, Vec::new());
        let twice = BTreeSet::new();
        Ok(Self { directory, store, time, left_out_since, notes, twice, index: 0 })
    }

    fn next(&mut self) -> Position {
        self.index += 1;
        Position { index: self.index, term: TERM, raft: Bytes::new() }
    }

    pub(super) fn import(&mut self, revision: ImportedRevision) -> Result<(), EtcdImportError> {
        let position = self.next();
        Ok(self.store.import(position, revision)?)
    }

    /// Runs a command; what it refuses is an answer.
    pub(super) fn run(&mut self, body: Body) -> Result<Result<(), Refusal>, EtcdImportError> {
        let (author, note) = (Author::default(), Bytes::new());
        let command = Command { time: self.time, author, note, body };
        let position = self.next();
        let Outcome { result, .. } = self.store.apply(position, &command)?;
        Ok(result.map(drop))
    }

    /// The same, where a refusal is worth a note.
    pub(super) fn try_run(&mut self, what: &str, body: Body) -> Result<bool, EtcdImportError> {
        let refused = self.run(body)?.err();
        if let Some(refusal) = &refused {
            self.notes.push(format!("{what} was left out: {refusal}"));
        }
        Ok(refused.is_none())
    }

    pub(super) fn grant(&mut self, id: LeaseId, ttl_seconds: i64) -> Result<(), EtcdImportError> {
        let body = Body::LeaseGrant { id, ttl_seconds };
        self.try_run(&format!("lease {:x}", id.0), body).map(drop)
    }

    /// Forgets what etcd has forgotten, and waits until it is gone.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<(), EtcdImportError> {
        if revision.is_none() {
            return Ok(());
        }
        if let Err(refusal) = self.run(Body::Compact { revision })? {
            let reason = format!("it cannot be compacted at {revision}: {refusal}");
            return Err(EtcdImportError::Differs { reason });
        }
        self.store.commit()?;
        while !self.store.wait_compacted(revision, COMPACTION_STEP)? {}
        Ok(())
    }

    /// Makes everything durable, and gives the directory its name.
    pub(super) fn finish(
        mut self,
        survey: &Survey,
        compared: u64,
        hash: u32,
    ) -> Result<Imported, EtcdImportError> {
        let identity = self.directory.layout.identity;
        let members = BTreeMap::from([(identity.member, String::new())]);
        let at = LogId { term: TERM, index: self.next().index };
        let position = position_behind(at, &members);
        let position = position.map_err(|error| StartError::io("begin", "the log", error))?;
        self.store.advance(position)?;
        let revision = self.store.current_revision()?;
        self.store.close()?;
        drop(self.store);
        self.directory.finish(Some(at))?;
        Ok(Imported {
            cluster_id: identity.cluster,
            member_id: identity.member,
            revision,
            compacted: survey.compacted,
            compared,
            hash,
            notes: self.notes,
        })
    }
}
