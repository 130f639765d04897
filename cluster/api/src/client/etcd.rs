//! [`Etcd`]: a key space that etcd's own API serves.
//!
//! What etcd has no words for is put together from what it has, as far as that is exact:
//! - a *view* is one revision: the first answer fixes it, what follows is asked for at that revision;
//! - a *listing* skips ranges ([`list`]); whether a directory is there tells a range of two keys;
//! - *Append, Move, Exchange and Restore* are a read and a transaction that holds only if nothing of what
//!   was read has changed, a few times over ([`bulk`]); what needs more operations than etcd takes is
//!   [`Error::TooBig`];
//! - *history* is walked back along a key's changes, *changes* are a watch from the past ([`past`]).
//!
//! What etcd does not keep is [`Error::Unsupported`]: the revision at a time, stamps, backups. Times only
//! tell the order ([`plain`]).

mod bulk;
mod list;
mod past;
mod plain;
mod read;
mod txn;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use super::resuming::ResumingWatch;
use super::{Client, within};
use crate::keyspace::{
    Capabilities, ChangesAnswer, ChangesRequest, Error, HistoryRequest, KeyRange, KeySpace, KvHash,
    LeaseId, LeaseState, Origin, Read, ReadAnswer, Result, Revision, Stamp, Status, Time, Txn,
    TxnAnswer, Version, Watch,
};
use crate::wire::etcdserverpb as pb;

/// What a real etcd is called in [`Status::backend`].
pub const BACKEND: &str = "etcd";

/// etcd's bound on a request unless it is told otherwise.
const REQUEST_BYTES_MAX: usize = 1_536 * 1024;

/// The largest value that fits into such a request beside the compares and the record of a file.
const VALUE_BYTES_MAX: usize = REQUEST_BYTES_MAX - 64 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Etcd {
    client: Client,
    /// Whether a watch that is asked how far it has come tells the truth: releases before 3.4.25 and
    /// 3.5.8 answer before they have sent all events.
    has_exact_progress: bool,
    /// The newest revision that an answer named.
    newest: AtomicU64,
}

impl Etcd {
    /// # Errors
    /// [`Error::Unavailable`] if nobody answers, [`Error::Unsupported`] if it is no etcd.
    pub(super) async fn open(client: Client) -> Result<Self> {
        let status = status(&client).await?;
        let has_exact_progress = has_exact_progress(&status.version);
        Ok(Self { client, has_exact_progress, newest: AtomicU64::new(0) })
    }

    /// Notes the revision of a header and returns it.
    fn see(&self, header: Option<&pb::ResponseHeader>) -> Revision {
        let current = plain::current(header);
        self.newest.fetch_max(current.0, Ordering::Relaxed);
        current
    }

    /// Puts the numbers into an error that etcd leaves them out of.
    async fn explain(&self, error: Error, requested: Revision) -> Error {
        match error {
            Error::Compacted { .. } => match self.compacted().await {
                Ok(compacted) => Error::Compacted { requested, compacted },
                Err(error) => error,
            },
            Error::Future { .. } => {
                let current = Revision(self.newest.load(Ordering::Relaxed));
                Error::Future { requested, current }
            }
            other => other,
        }
    }

    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse> {
        let requested = plain::revision(request.revision);
        let sent = self.client.repeat(|at, limit| {
            let request = within(request.clone(), limit);
            async move { at.kv().range(request).await }
        });
        match sent.await {
            Ok(response) => {
                self.see(response.header.as_ref());
                Ok(response)
            }
            Err(error) => Err(self.explain(error, requested).await),
        }
    }

    /// The present revision.
    async fn current(&self) -> Result<Revision> {
        match self.range(nothing_at(0)).await {
            // Not every user may read the least key, but everybody may ask a member how it is.
            Err(Error::Denied { .. }) => Ok(self.see(status(&self.client).await?.header.as_ref())),
            answer => Ok(plain::current(answer?.header.as_ref())),
        }
    }

    /// The revision up to which history is compacted; [`Revision::NONE`] if it is not.
    async fn compacted(&self) -> Result<Revision> {
        let asked = self
            .client
            .repeat(|at, limit| async move { at.kv().range(within(nothing_at(1), limit)).await });
        match asked.await {
            Ok(_) => Ok(Revision::NONE),
            Err(Error::Compacted { .. }) => watch::compacted(&self.client).await,
            Err(error) => Err(error),
        }
    }
}

/// A question that only the header of its answer matters of.
fn nothing_at(revision: i64) -> pb::RangeRequest {
    pb::RangeRequest {
        key: bytes::Bytes::from_static(b"\0"),
        revision,
        count_only: true,
        ..pb::RangeRequest::default()
    }
}

async fn status(client: &Client) -> Result<pb::StatusResponse> {
    let sent = client.repeat(|at, limit| async move {
        at.maintenance().status(within(pb::StatusRequest {}, limit)).await
    });
    sent.await
}

fn has_exact_progress(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    match (next(), next(), next()) {
        (3, 4, patch) => patch >= 25,
        (3, 5, patch) => patch >= 8,
        (major, minor, _) => (major, minor) >= (3, 6),
    }
}

#[async_trait]
impl KeySpace for Etcd {
    fn capabilities(&self) -> Capabilities {
        Capabilities { stamps: false, bulk: false, value_bytes_max: VALUE_BYTES_MAX }
    }

    async fn read(&self, revision: Revision, reads: Vec<Read>) -> Result<ReadAnswer> {
        self.answer(revision, reads).await
    }

    async fn history(&self, request: HistoryRequest) -> Result<Vec<Version>> {
        self.walk_back(request).await
    }

    async fn changes(&self, request: ChangesRequest) -> Result<ChangesAnswer> {
        self.changes_between(request).await
    }

    async fn revision_at(&self, _time: Time) -> Result<Revision> {
        Err(Error::Unsupported("etcd keeps no time of a revision"))
    }

    async fn stamp(&self, _revision: Revision) -> Result<Stamp> {
        Err(Error::Unsupported("etcd keeps neither time nor author of a revision"))
    }

    async fn txn(&self, txn: Txn, _origin: Origin) -> Result<TxnAnswer> {
        self.run(txn).await
    }

    async fn watch(&self, ranges: Vec<KeyRange>, from: Revision) -> Result<Box<dyn Watch>> {
        let watched = watch::Watched { client: self.client.clone(), ranges };
        let settings = self.client.settings().clone();
        Ok(Box::new(ResumingWatch::open(watched, settings, from).await?))
    }

    async fn compact(&self, revision: Revision, physical: bool) -> Result<()> {
        let settings = self.client.settings();
        let timeout =
            if physical { settings.physical_compaction_timeout } else { settings.call_timeout };
        let request = pb::CompactionRequest { revision: plain::number(revision), physical };
        let sent = self.client.once(timeout, |at, limit| async move {
            at.kv().compact(within(request, limit)).await
        });
        match sent.await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(error, revision).await),
        }
    }

    async fn hash_kv(&self, revision: Revision) -> Result<KvHash> {
        let request = pb::HashKvRequest { revision: plain::number(revision) };
        let sent = self.client.repeat(|at, limit| async move {
            at.maintenance().hash_kv(within(request, limit)).await
        });
        let answer = match sent.await {
            Ok(answer) => answer,
            Err(error) => return Err(self.explain(error, revision).await),
        };
        let current = self.see(answer.header.as_ref());
        // Releases before 3.6 do not repeat what they hashed.
        let hashed = [plain::revision(answer.hash_revision), revision, current];
        let hashed = hashed.into_iter().find(|revision| *revision != Revision::NONE);
        Ok(KvHash {
            hash: answer.hash,
            revision: hashed.unwrap_or_default(),
            compacted: u64::try_from(answer.compact_revision).ok().map(Revision),
            current,
        })
    }

    async fn status(&self) -> Result<Status> {
        let answer = status(&self.client).await?;
        let revision = self.see(answer.header.as_ref());
        let header = answer.header.unwrap_or_default();
        let size = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(Status {
            backend: BACKEND.to_owned(),
            version: answer.version,
            endpoint: self.client.names(),
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            leader_id: answer.leader,
            raft_term: answer.raft_term,
            raft_index: answer.raft_index,
            applied_index: answer.raft_applied_index,
            revision: revision.0,
            compacted_revision: self.compacted().await?.0,
            store_bytes: size(answer.db_size),
            store_bytes_in_use: size(answer.db_size_in_use),
            read_only: answer.errors.join("; "),
            ..Status::default()
        })
    }

    async fn lease_grant(&self, id: LeaseId, ttl_seconds: i64) -> Result<(LeaseId, i64)> {
        self.client.grant(id, ttl_seconds).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Option<i64>> {
        self.client.keep_alive(id).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<()> {
        self.client.revoke(id).await
    }

    async fn lease_time_to_live(&self, id: LeaseId, with_keys: bool) -> Result<Option<LeaseState>> {
        self.client.time_to_live(id, with_keys).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>> {
        self.client.list_leases().await
    }
}

#[cfg(test)]
mod tests {
    use super::has_exact_progress;

    #[test]
    fn releases_that_answer_too_early_are_known() {
        for (version, is_exact) in [
            ("3.4.23", false),
            ("3.4.25", true),
            ("3.5.7", false),
            ("3.5.8", true),
            ("3.6.0", true),
            ("3.6.0-rc.1", true),
            ("4.0.0", true),
            ("3.3.27", false),
            ("", false),
        ] {
            assert_eq!(has_exact_progress(version), is_exact, "{version}");
        }
    }
}
