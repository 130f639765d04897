//! The types that openraft is made concrete with.

use std::num::NonZeroU64;

use bytes::Bytes;
use openraft::impls::{BasicNode, leader_id_std};
use revfs_store::Outcome;

use super::runtime::Runtime;

/// A store command as [`revfs_store::Command::encode`] wrote it, and who waits for it elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EncodedCommand {
    /// By which the member that forwarded the command knows it again when it applies it.
    pub(crate) forwarded: Option<NonZeroU64>,
    pub(crate) bytes: Bytes,
}

impl std::fmt::Debug for EncodedCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EncodedCommand({} bytes, {:?})", self.bytes.len(), self.forwarded)
    }
}

impl std::fmt::Display for EncodedCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "command of {} bytes", self.bytes.len())
    }
}

/// What applying an entry answers; `None` for blank entries and memberships.
pub(crate) type Applied = Option<Outcome>;

openraft::declare_raft_types!(
    /// `leader_id_std`: at most one leader in a term, so that terms are Raft's.
    pub(crate) TypeConfig:
        D = EncodedCommand,
        R = Applied,
        NodeId = u64,
        Node = BasicNode,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

pub(crate) type CommittedLeaderId = openraft::alias::CommittedLeaderIdOf<TypeConfig>;
pub(crate) type RaftEntry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type RaftLogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type RaftVote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, BasicNode>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
