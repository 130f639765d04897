//! Entries, positions and memberships as bytes: what openraft holds, as the log and the store keep it.
//!
//! Specified in `docs/FORMAT.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroU64;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::impls::BasicNode;
use revfs_store::Position;

use super::type_config::{
    CommittedLeaderId, EncodedCommand, Membership, RaftEntry, RaftLogId, StoredMembership,
};
use crate::fields::Fields;
use crate::log;

const KIND_BLANK: u8 = 0;
const KIND_COMMAND: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;
/// A command behind the number by which the member that forwarded it knows it.
const KIND_FORWARDED: u8 = 3;

const NUMBER_BYTES: usize = size_of::<u64>();

pub(super) fn to_log_id(id: RaftLogId) -> log::LogId {
    log::LogId { term: id.leader_id.term, index: id.index }
}

pub(super) fn from_log_id(id: log::LogId) -> RaftLogId {
    RaftLogId::new(CommittedLeaderId::new(id.term), id.index)
}

pub(super) fn to_log_entry(entry: RaftEntry) -> log::Entry {
    let (kind, payload) = match entry.payload {
        EntryPayload::Blank => (KIND_BLANK, Bytes::new()),
        EntryPayload::Normal(EncodedCommand { forwarded: None, bytes }) => (KIND_COMMAND, bytes),
        EntryPayload::Normal(EncodedCommand { forwarded: Some(number), bytes }) => {
            let mut payload = Vec::with_capacity(NUMBER_BYTES + bytes.len());
            payload.extend_from_slice(&number.get().to_be_bytes());
            payload.extend_from_slice(&bytes);
            (KIND_FORWARDED, payload.into())
        }
        EntryPayload::Membership(membership) => {
            let mut bytes = Vec::new();
            put_membership(&mut bytes, &membership);
            (KIND_MEMBERSHIP, bytes.into())
        }
    };
    log::Entry { id: to_log_id(entry.log_id), kind, payload }
}

pub(super) fn from_log_entry(entry: log::Entry) -> io::Result<RaftEntry> {
    let payload = match entry.kind {
        KIND_BLANK => EntryPayload::Blank,
        KIND_COMMAND => {
            EntryPayload::Normal(EncodedCommand { forwarded: None, bytes: entry.payload })
        }
        KIND_FORWARDED => {
            let number = Fields(&entry.payload).u64().and_then(NonZeroU64::new);
            let number = number.ok_or_else(|| invalid(format!("{} has no number", entry.id)))?;
            let bytes = entry.payload.slice(NUMBER_BYTES..);
            EntryPayload::Normal(EncodedCommand { forwarded: Some(number), bytes })
        }
        KIND_MEMBERSHIP => {
            let membership = whole(&entry.payload, |fields| fields.membership())
                .ok_or_else(|| invalid(format!("{} holds no membership", entry.id)))?;
            EntryPayload::Membership(membership)
        }
        kind => {
            let reason = format!(
                "{} is of kind {kind}, which this program does not know: use a newer release",
                entry.id
            );
            return Err(invalid(reason));
        }
    };
    Ok(RaftEntry { log_id: from_log_id(entry.id), payload })
}

/// The store's position after the entry `id`, under `membership`.
pub(super) fn to_position(id: RaftLogId, membership: &StoredMembership) -> Position {
    let mut bytes = Vec::with_capacity(64);
    put_log_id(&mut bytes, id);
    match membership.log_id() {
        None => bytes.push(0),
        Some(id) => {
            bytes.push(1);
            put_log_id(&mut bytes, *id);
        }
    }
    put_membership(&mut bytes, membership.membership());
    Position { index: id.index, term: id.leader_id.term, raft: bytes.into() }
}

/// What [`to_position`] wrote; `None` and the empty membership before the first entry.
pub(super) fn from_position(
    position: &Position,
) -> io::Result<(Option<RaftLogId>, StoredMembership)> {
    if position.raft.is_empty() {
        return Ok((None, StoredMembership::default()));
    }
    let decoded = whole(&position.raft, |fields| {
        let id = fields.log_id()?;
        let of_membership = if fields.u8()? == 0 { None } else { Some(fields.log_id()?) };
        Some((id, StoredMembership::new(of_membership, fields.membership()?)))
    });
    let (id, membership) = decoded.ok_or_else(|| {
        invalid(format!("the store's position in the log, entry {}, is damaged", position.index))
    })?;
    Ok((Some(id), membership))
}

/// A position as a cluster of these voters would have it, and the log entry that it stands at.
pub(crate) fn position_of(
    position: &Position,
    members: &BTreeMap<u64, String>,
) -> io::Result<(Option<log::LogId>, Bytes)> {
    let (id, _) = from_position(position)?;
    let Some(id) = id else { return Ok((None, Bytes::new())) };
    let id = to_log_id(id);
    Ok((Some(id), position_behind(id, members)?.raft))
}

/// The position behind the entry `id`, which gave a cluster these voters.
pub(crate) fn position_behind(
    id: log::LogId,
    members: &BTreeMap<u64, String>,
) -> io::Result<Position> {
    let nodes: BTreeMap<u64, BasicNode> =
        members.iter().map(|(member, urls)| (*member, BasicNode::new(urls))).collect();
    let voters = Membership::new(vec![members.keys().copied().collect()], nodes);
    let voters = voters.map_err(|error| invalid(error.to_string()))?;
    let id = from_log_id(id);
    Ok(to_position(id, &StoredMembership::new(Some(id), voters)))
}

/// Who votes, by the membership that stands in the position, and where each is found.
pub(crate) fn voters_of(position: &Position) -> io::Result<Vec<(u64, String)>> {
    let (_, stored) = from_position(position)?;
    let membership = stored.membership();
    let address = |id: u64| membership.get_node(&id).map(|node| node.addr.clone());
    Ok(membership.voter_ids().map(|id| (id, address(id).unwrap_or_default())).collect())
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn put_log_id(bytes: &mut Vec<u8>, id: RaftLogId) {
    bytes.extend_from_slice(&id.leader_id.term.to_be_bytes());
    bytes.extend_from_slice(&id.index.to_be_bytes());
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("memberships and addresses are small");
    bytes.extend_from_slice(&length.to_be_bytes());
}

fn put_membership(bytes: &mut Vec<u8>, membership: &Membership) {
    let configurations = membership.get_joint_config();
    put_length(bytes, configurations.len());
    for voters in configurations {
        put_length(bytes, voters.len());
        for voter in voters {
            bytes.extend_from_slice(&voter.to_be_bytes());
        }
    }
    put_length(bytes, membership.nodes().count());
    for (id, node) in membership.nodes() {
        bytes.extend_from_slice(&id.to_be_bytes());
        put_length(bytes, node.addr.len());
        bytes.extend_from_slice(node.addr.as_bytes());
    }
}

/// Decodes all of `bytes`, no less.
fn whole<T>(bytes: &[u8], decode: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> Option<T> {
    let mut fields = Fields(bytes);
    let decoded = decode(&mut fields)?;
    fields.0.is_empty().then_some(decoded)
}

impl Fields<'_> {
    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.u32()?).ok()
    }

    fn log_id(&mut self) -> Option<RaftLogId> {
        let term = self.u64()?;
        Some(RaftLogId::new(CommittedLeaderId::new(term), self.u64()?))
    }

    fn membership(&mut self) -> Option<Membership> {
        let mut configurations = Vec::new();
        for _ in 0..self.length()? {
            let mut voters = BTreeSet::new();
            for _ in 0..self.length()? {
                voters.insert(self.u64()?);
            }
            configurations.push(voters);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.length()? {
            let id = self.u64()?;
            let address = String::from_utf8(self.bytes()?.to_vec()).ok()?;
            nodes.insert(id, BasicNode::new(address));
        }
        if configurations.is_empty() && nodes.is_empty() {
            return Some(Membership::default());
        }
        Membership::new(configurations, nodes).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::num::NonZeroU64;

    use bytes::Bytes;
    use openraft::EntryPayload;
    use openraft::impls::BasicNode;

    use super::{from_log_entry, from_position, to_log_entry, to_position};
    use crate::raft::type_config::{
        CommittedLeaderId, EncodedCommand, Membership, RaftEntry, RaftLogId, StoredMembership,
    };

    fn joint() -> Membership {
        let nodes: BTreeMap<u64, BasicNode> =
            [1, 2, 9].map(|id| (id, BasicNode::new(format!("host-{id}:2380")))).into();
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2])], nodes).unwrap()
    }

    fn command(forwarded: Option<NonZeroU64>) -> EncodedCommand {
        EncodedCommand { forwarded, bytes: Bytes::from_static(b"\x01abc") }
    }

    fn id(term: u64, index: u64) -> RaftLogId {
        RaftLogId::new(CommittedLeaderId::new(term), index)
    }

    #[test]
    fn entries_survive_the_log() {
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(command(None)),
            EntryPayload::Normal(command(NonZeroU64::new(7))),
            EntryPayload::Membership(joint()),
        ];
        for payload in payloads {
            let entry = RaftEntry { log_id: id(3, 7), payload };
            assert_eq!(from_log_entry(to_log_entry(entry.clone())).unwrap(), entry);
        }
    }

    #[test]
    fn positions_survive_the_store() {
        for membership in
            [StoredMembership::default(), StoredMembership::new(Some(id(1, 4)), joint())]
        {
            let position = to_position(id(3, 7), &membership);
            assert_eq!(position.index, 7);
            assert_eq!(from_position(&position).unwrap(), (Some(id(3, 7)), membership));
        }
    }

    #[test]
    fn damaged_positions_and_unknown_kinds_are_errors() {
        let position = to_position(id(3, 7), &StoredMembership::new(Some(id(1, 4)), joint()));
        for length in 1..position.raft.len() {
            let mut cut = position.clone();
            cut.raft.truncate(length);
            assert!(from_position(&cut).is_err(), "{length} bytes");
        }
        let blank = RaftEntry { log_id: id(1, 1), payload: EntryPayload::Blank };
        let mut unknown = to_log_entry(blank);
        unknown.kind = 99;
        assert!(from_log_entry(unknown).is_err());
    }
}
