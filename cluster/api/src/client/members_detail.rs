//! Members by the service of revfs.v1: roles, replacements, and what each member waits for. An etcd does
//! not offer it: [`Error::Unsupported`].

use super::{Client, Wire, within};
use crate::keyspace::{Error, Result};
use crate::wire::revfs as pb;
use crate::wire::revfs::members_client::MembersClient;

/// What is wanted of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberRole {
    #[default]
    Voter,
    /// Does not vote before it is promoted.
    Learner,
    /// Votes in place of a voter that is gone.
    Standby,
    /// Never votes.
    ReadOnly,
}

impl MemberRole {
    pub const ALL: [Self; 4] = [Self::Voter, Self::Learner, Self::Standby, Self::ReadOnly];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
            Self::Standby => "standby",
            Self::ReadOnly => "read-only",
        }
    }

    fn to_wire(self) -> i32 {
        match self {
            Self::Voter => pb::MemberRole::Voter.into(),
            Self::Learner => pb::MemberRole::Learner.into(),
            Self::Standby => pb::MemberRole::Standby.into(),
            Self::ReadOnly => pb::MemberRole::ReadOnly.into(),
        }
    }

    fn from_wire(role: pb::MemberRole) -> Self {
        match role {
            pb::MemberRole::Voter | pb::MemberRole::Unspecified => Self::Voter,
            pb::MemberRole::Learner => Self::Learner,
            pb::MemberRole::Standby => Self::Standby,
            pb::MemberRole::ReadOnly => Self::ReadOnly,
        }
    }
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It has not come up at its address.
    Pending,
    /// It receives the log.
    Learns,
    Votes,
    /// It was removed, and enough of the others have not agreed yet.
    Leaves,
}

/// A member with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDetail {
    pub id: u64,
    /// Empty before its first start.
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub role: MemberRole,
    pub state: MemberState,
    pub leads: bool,
    /// The number of its data directory, once it is known.
    pub instance: Option<u128>,
    /// The newest cluster version that it speaks; 0 = not known.
    pub cluster_version: u32,
    pub replaces: Option<u64>,
    /// The leader has heard of it just now.
    pub is_there: bool,
    /// Entries of the log that it lacks, if the leader knows.
    pub behind: Option<u64>,
    /// In words that go on after "waits for"; `None` if it is what is wanted, or the leader was not asked.
    pub waits_for: Option<String>,
}

impl From<pb::MemberDetail> for MemberDetail {
    fn from(member: pb::MemberDetail) -> Self {
        let state = match member.state() {
            pb::MemberState::Pending | pb::MemberState::Unspecified => MemberState::Pending,
            pb::MemberState::Learns => MemberState::Learns,
            pb::MemberState::Votes => MemberState::Votes,
            pb::MemberState::Leaves => MemberState::Leaves,
        };
        Self {
            role: MemberRole::from_wire(member.role()),
            state,
            id: member.id,
            leads: member.leads,
            instance: <[u8; 16]>::try_from(&member.instance[..]).ok().map(u128::from_be_bytes),
            cluster_version: member.cluster_version,
            replaces: Some(member.replaces).filter(|&old| old != 0),
            is_there: member.is_there,
            behind: member.behind,
            waits_for: Some(member.waits_for).filter(|words| !words.is_empty()),
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
        }
    }
}

fn service(wire: Wire) -> MembersClient<Wire> {
    MembersClient::new(wire)
}

impl Client {
    /// All members, and what each waits for; `serializable` asks for no quorum and no leader, and leaves out
    /// what only the leader sees.
    ///
    /// # Errors
    /// What a read meets.
    pub async fn members_in_detail(&self, serializable: bool) -> Result<Vec<MemberDetail>> {
        let found = self.repeat(|at, limit| async move {
            let request = within(pb::MembersInDetailRequest { serializable }, limit);
            service(at.wire()).members_in_detail(request).await
        });
        Ok(found.await?.members.into_iter().map(MemberDetail::from).collect())
    }

    /// Adds a member at some URLs, pending until it has come up there; its number. An etcd knows voters and
    /// learners.
    ///
    /// # Errors
    /// What a change meets; another's URLs; too many learners; a role that the server does not know.
    pub async fn member_add(&self, peer_urls: Vec<String>, role: MemberRole) -> Result<u64> {
        let request = pb::MemberAddRequest { peer_urls: peer_urls.clone(), role: role.to_wire() };
        let sent = self.once(self.settings().call_timeout, |at, limit| {
            let request = within(request.clone(), limit);
            async move { service(at.wire()).member_add(request).await }
        });
        match (sent.await, role) {
            (Ok(added), _) => Ok(added.id),
            (Err(Error::Unsupported(_)), MemberRole::Voter) => {
                self.etcd_member_add(peer_urls, false).await
            }
            (Err(Error::Unsupported(_)), MemberRole::Learner) => {
                self.etcd_member_add(peer_urls, true).await
            }
            (Err(Error::Unsupported(_)), MemberRole::Standby | MemberRole::ReadOnly) => {
                Err(Error::Unsupported("a member of etcd is a voter or a learner"))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Removes a member; its number is never given again. An etcd takes no force. What the force may cost,
    /// if so.
    ///
    /// # Errors
    /// What a change meets; no such member; one that is needed.
    pub async fn member_remove(&self, id: u64, force: bool) -> Result<Option<String>> {
        let sent = self.once(self.settings().call_timeout, |at, limit| async move {
            let request = within(pb::MemberRemoveRequest { id, force }, limit);
            service(at.wire()).member_remove(request).await
        });
        match sent.await {
            Ok(removed) => Ok(Some(removed.warning).filter(|words| !words.is_empty())),
            Err(Error::Unsupported(_)) if !force => {
                self.etcd_member_remove(id).await.map(|()| None)
            }
            Err(Error::Unsupported(_)) => Err(Error::Unsupported(
                "an etcd removes who is needed only if it runs with --strict-reconfig-check=false",
            )),
            Err(error) => Err(error),
        }
    }

    /// Changes what is wanted of a member. An etcd can make a voter of a learner.
    ///
    /// # Errors
    /// What a change meets; no such member; one that is to vote and does so, or lags.
    pub async fn member_set_role(&self, id: u64, role: MemberRole) -> Result<()> {
        let sent = self.once(self.settings().call_timeout, |at, limit| async move {
            let request = within(pb::MemberSetRoleRequest { id, role: role.to_wire() }, limit);
            service(at.wire()).member_set_role(request).await
        });
        match sent.await {
            Ok(_) => Ok(()),
            Err(Error::Unsupported(_)) if role == MemberRole::Voter => {
                self.etcd_member_promote(id).await
            }
            Err(Error::Unsupported(_)) => {
                Err(Error::Unsupported("etcd lets learners vote, and changes no other role"))
            }
            Err(error) => Err(error),
        }
    }

    /// Adds a member that takes the place and the role of another once it keeps up; its number.
    ///
    /// # Errors
    /// What a change meets; no such member, or one that is replaced already; another's URLs.
    pub async fn member_replace(&self, old: u64, peer_urls: Vec<String>) -> Result<u64> {
        let request = pb::MemberReplaceRequest { id: old, peer_urls };
        let sent = self.once(self.settings().call_timeout, |at, limit| {
            let request = within(request.clone(), limit);
            async move { service(at.wire()).member_replace(request).await }
        });
        match sent.await {
            Ok(replaced) => Ok(replaced.id),
            Err(Error::Unsupported(_)) => Err(Error::Unsupported(
                "an etcd replaces no member: remove it, then add the new one",
            )),
            Err(error) => Err(error),
        }
    }
}
