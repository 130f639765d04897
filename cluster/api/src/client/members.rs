//! Members and alarms: what of etcd's Cluster and Maintenance services the commands need.

use super::{Client, within};
use crate::keyspace::Result;
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::alarm_request::AlarmAction;
use crate::wire::etcdserverpb::cluster_client::ClusterClient;

/// A member of the cluster, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    /// Empty before its first start.
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub is_learner: bool,
}

impl From<pb::Member> for Member {
    fn from(member: pb::Member) -> Self {
        Self {
            id: member.id,
            name: member.name,
            peer_urls: member.peer_ur_ls,
            client_urls: member.client_ur_ls,
            is_learner: member.is_learner,
        }
    }
}

/// An alarm that a member has raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    pub member_id: u64,
    /// etcd's name: `NOSPACE`, `CORRUPT`; of one that is not known here, its number.
    pub name: String,
    number: i32,
}

impl From<pb::AlarmMember> for Alarm {
    fn from(raised: pb::AlarmMember) -> Self {
        let number = raised.alarm;
        let known = pb::AlarmType::try_from(number);
        let name = known.map_or_else(|_| number.to_string(), |kind| kind.as_str_name().to_owned());
        Self { member_id: raised.member_id, name, number }
    }
}

impl Client {
    /// All members.
    ///
    /// # Errors
    /// What a read meets.
    pub async fn members(&self) -> Result<Vec<Member>> {
        let found = self.repeat(|at, limit| async move {
            let request = pb::MemberListRequest { linearizable: true };
            ClusterClient::new(at.wire()).member_list(within(request, limit)).await
        });
        Ok(found.await?.members.into_iter().map(Member::from).collect())
    }

    /// Adds a member as etcd does; its number.
    pub(super) async fn etcd_member_add(
        &self,
        peer_urls: Vec<String>,
        is_learner: bool,
    ) -> Result<u64> {
        let request = pb::MemberAddRequest { peer_ur_ls: peer_urls, is_learner };
        let sent = self.once(self.settings().call_timeout, |at, limit| {
            let request = within(request.clone(), limit);
            async move { ClusterClient::new(at.wire()).member_add(request).await }
        });
        Ok(sent.await?.member.map_or(0, |member| member.id))
    }

    pub(super) async fn etcd_member_remove(&self, id: u64) -> Result<()> {
        let sent = self.once(self.settings().call_timeout, |at, limit| async move {
            let request = within(pb::MemberRemoveRequest { id }, limit);
            ClusterClient::new(at.wire()).member_remove(request).await
        });
        sent.await.map(drop)
    }

    /// Changes where the other members find one.
    ///
    /// # Errors
    /// What a change meets; no such member; another's URLs.
    pub async fn member_update(&self, id: u64, peer_urls: Vec<String>) -> Result<()> {
        let request = pb::MemberUpdateRequest { id, peer_ur_ls: peer_urls };
        let sent = self.once(self.settings().call_timeout, |at, limit| {
            let request = within(request.clone(), limit);
            async move { ClusterClient::new(at.wire()).member_update(request).await }
        });
        sent.await.map(drop)
    }

    pub(super) async fn etcd_member_promote(&self, id: u64) -> Result<()> {
        let sent = self.once(self.settings().call_timeout, |at, limit| async move {
            let request = within(pb::MemberPromoteRequest { id }, limit);
            ClusterClient::new(at.wire()).member_promote(request).await
        });
        sent.await.map(drop)
    }

    /// The alarms that are raised.
    ///
    /// # Errors
    /// What a read meets.
    pub async fn alarms(&self) -> Result<Vec<Alarm>> {
        let request = pb::AlarmRequest { action: AlarmAction::Get.into(), ..Default::default() };
        let found =
            self.repeat(
                |at, limit| async move { at.maintenance().alarm(within(request, limit)).await },
            );
        Ok(found.await?.alarms.into_iter().map(Alarm::from).collect())
    }

    /// Takes an alarm back.
    ///
    /// # Errors
    /// What a change meets.
    pub async fn disarm(&self, alarm: &Alarm) -> Result<()> {
        let (member_id, alarm) = (alarm.member_id, alarm.number);
        let request = pb::AlarmRequest { action: AlarmAction::Deactivate.into(), member_id, alarm };
        let sent = self.once(self.settings().call_timeout, |at, limit| async move {
            at.maintenance().alarm(within(request, limit)).await
        });
        sent.await.map(drop)
    }
}
