//! What is written behind the log of a member that is to go on alone, whatever became of the others.
//!
//! Every entry that its log holds stays: some were acknowledged, and nobody can say which were not. Behind
//! them comes a membership of this member alone, and the removal of every other one that the store or the
//! log has ever heard of, in a term above all that this member knows.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use openraft::EntryPayload;
use openraft::impls::BasicNode;
use revfs_store::types::{Author, Time};
use revfs_store::{Body, Command, MemberChange, Store};

use super::payload::{from_log_entry, from_log_id, from_position, to_log_entry, to_log_id};
use super::type_config::{EncodedCommand, Membership, RaftEntry};
use crate::log::{Entry, Log, LogId, Vote};

/// See the module.
pub(crate) struct Alone {
    /// To be durable first.
    pub(crate) vote: Vote,
    pub(crate) entries: Vec<Entry>,
    /// Who belongs to the cluster no longer.
    pub(crate) others: Vec<u64>,
}

/// Who belongs to the cluster, as the last word of store and log has it, and whom both have heard of.
struct Known {
    latest: Membership,
    ids: BTreeSet<u64>,
}

impl Known {
    fn read(store: &Store, log: &Log) -> io::Result<Self> {
        let (id, stored) = from_position(&store.committed())?;
        let mut latest = stored.membership().clone();
        let rows = store.read_view().and_then(|view| view.members()).map_err(io::Error::other)?;
        let mut ids: BTreeSet<u64> = rows.into_iter().map(|row| row.id).collect();
        let from = id.map_or(0, |id| to_log_id(id).index + 1);
        for entry in log.read(from..u64::MAX, usize::MAX)? {
            match from_log_entry(entry)?.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(EncodedCommand { bytes, .. }) => {
                    let command = Command::decode(&bytes).map_err(io::Error::other)?;
                    if let Body::Member(
                        MemberChange::Add { id, .. } | MemberChange::Adopt { id, .. },
                    ) = command.body.inner()
                    {
                        ids.insert(*id);
                    }
                }
                EntryPayload::Membership(membership) => latest = membership,
            }
        }
        ids.extend(latest.nodes().map(|(id, _)| *id));
        Ok(Self { latest, ids })
    }
}

impl Alone {
    /// `None` if `member` is alone already.
    ///
    /// # Errors
    /// A log or a store that cannot be read, or that never belonged to a cluster.
    pub(crate) fn plan(store: &Store, log: &Log, member: u64) -> io::Result<Option<Self>> {
        let Known { latest, mut ids } = Known::read(store, log)?;
        let Some(last) = log.state().last else {
            return Err(io::Error::other("it never belonged to a cluster"));
        };
        ids.remove(&member);
        if ids.is_empty() && latest.voter_ids().eq([member]) {
            return Ok(None);
        }
        let voted = log.state().vote.map_or(0, |vote| vote.term);
        let term = voted.max(last.term) + 1;
        let node = latest.get_node(&member).cloned().unwrap_or_else(|| BasicNode::new(""));
        let nodes = BTreeMap::from([(member, node)]);
        let alone = Membership::new(vec![BTreeSet::from([member])], nodes);
        let mut payloads = vec![EntryPayload::Membership(alone.map_err(io::Error::other)?)];
        for &id in &ids {
            let body = Body::Member(MemberChange::Remove { id });
            let (author, note) = (Author::default(), bytes::Bytes::new());
            // Apply raises the time to that of the revision before.
            let command = Command { time: Time::default(), author, note, body };
            let bytes = command.encode().map_err(io::Error::other)?;
            payloads.push(EntryPayload::Normal(EncodedCommand { forwarded: None, bytes }));
        }
        let entries = (last.index + 1..).zip(payloads).map(|(index, payload)| {
            to_log_entry(RaftEntry { log_id: from_log_id(LogId { term, index }), payload })
        });
        Ok(Some(Self {
            vote: Vote { term, node: member, committed: false },
            entries: entries.collect(),
            others: ids.into_iter().collect(),
        }))
    }
}
