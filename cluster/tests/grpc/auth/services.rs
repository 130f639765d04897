//! What the services beside KV let a user do: members, the state of a node, streamed ranges, locks and
//! elections.

use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::cluster_client::ClusterClient;
use revfs_api::wire::revfs as wire;
use revfs_api::wire::revfs::members_client::MembersClient;
use revfs_api::wire::v3electionpb::election_client::ElectionClient;
use revfs_api::wire::v3electionpb::{CampaignRequest, LeaderRequest};
use revfs_api::wire::v3lockpb::lock_client::LockClient;
use revfs_api::wire::v3lockpb::{LockRequest, UnlockRequest};
use tonic::Status;

use super::{Client, DENIED, NOBODY, guarded, refused};

impl Client {
    /// The keys of a streamed range.
    async fn stream(
        &self,
        key: &'static str,
        range_end: &'static str,
        count_only: bool,
    ) -> Result<usize, Status> {
        let request = pb::RangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            count_only,
            ..Default::default()
        };
        let mut parts = self.kv().range_stream(self.ask(request)).await?.into_inner();
        let mut count = 0;
        while let Some(part) = parts.message().await? {
            count += part.range_response.expect("each part is one").kvs.len();
        }
        Ok(count)
    }

    async fn lock(&self, name: &'static str) -> Result<Vec<u8>, Status> {
        let request = LockRequest { name: name.into(), lease: 0 };
        let locked = LockClient::new(self.channel.clone()).lock(self.ask(request)).await?;
        Ok(locked.into_inner().key.to_vec())
    }

    async fn unlock(&self, key: Vec<u8>) -> Result<(), Status> {
        let request = UnlockRequest { key: key.into() };
        LockClient::new(self.channel.clone()).unlock(self.ask(request)).await.map(drop)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_a_node_is_for_root_to_change() {
    let (node, root, user, nobody) = guarded().await;
    for (client, refusal) in [(&user, DENIED), (&nobody, NOBODY)] {
        let mut m = client.maintenance();
        refused(m.defragment(client.ask(pb::DefragmentRequest {})).await, refusal);
        refused(m.hash(client.ask(pb::HashRequest {})).await, refusal);
        refused(m.hash_kv(client.ask(pb::HashKvRequest { revision: 0 })).await, refusal);
        refused(m.snapshot(client.ask(pb::SnapshotRequest {})).await.map(drop), refusal);
        let target = pb::MoveLeaderRequest { target_id: 1 };
        refused(m.move_leader(client.ask(target)).await, refusal);
        let cancel = pb::DowngradeRequest { action: 2, version: String::new() };
        refused(m.downgrade(client.ask(cancel)).await, refusal);
        let raise = pb::AlarmRequest { action: 1, member_id: 1, alarm: 2 };
        refused(m.alarm(client.ask(raise)).await, refusal);
        let lift = pb::AlarmRequest { action: 2, member_id: 1, alarm: 2 };
        refused(m.alarm(client.ask(lift)).await, refusal);
    }
    let list = pb::AlarmRequest::default();
    user.maintenance().alarm(user.ask(list)).await.unwrap();
    user.maintenance().status(user.ask(pb::StatusRequest {})).await.unwrap();
    refused(nobody.maintenance().alarm(nobody.ask(list)).await, NOBODY);
    root.maintenance().defragment(root.ask(pb::DefragmentRequest {})).await.unwrap();
    root.maintenance().hash(root.ask(pb::HashRequest {})).await.unwrap();
    let alarms = root.maintenance().alarm(root.ask(list)).await.unwrap().into_inner().alarms;
    assert!(alarms.is_empty(), "nobody who was refused raised one");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_for_root_to_change_and_for_users_to_see() {
    let (node, root, user, nobody) = guarded().await;
    let urls = || vec!["http://127.0.0.1:9".to_owned()];
    for (client, refusal) in [(&user, DENIED), (&nobody, NOBODY)] {
        let mut cluster = ClusterClient::new(client.channel.clone());
        let add = pb::MemberAddRequest { peer_ur_ls: urls(), is_learner: false };
        refused(cluster.member_add(client.ask(add)).await, refusal);
        let remove = pb::MemberRemoveRequest { id: 1 };
        refused(cluster.member_remove(client.ask(remove)).await, refusal);
        let update = pb::MemberUpdateRequest { id: 1, peer_ur_ls: urls() };
        refused(cluster.member_update(client.ask(update)).await, refusal);
        let promote = pb::MemberPromoteRequest { id: 1 };
        refused(cluster.member_promote(client.ask(promote)).await, refusal);
        let mut members = MembersClient::new(client.channel.clone());
        let add = wire::MemberAddRequest { peer_urls: urls(), role: 3 };
        refused(members.member_add(client.ask(add)).await, refusal);
        let remove = wire::MemberRemoveRequest { id: 1, force: true };
        refused(members.member_remove(client.ask(remove)).await, refusal);
        let set_role = wire::MemberSetRoleRequest { id: 1, role: 1 };
        refused(members.member_set_role(client.ask(set_role)).await, refusal);
        let replace = wire::MemberReplaceRequest { id: 1, peer_urls: urls() };
        refused(members.member_replace(client.ask(replace)).await, refusal);
    }
    let mut members = MembersClient::new(user.channel.clone());
    for serializable in [false, true] {
        let list = wire::MembersInDetailRequest { serializable };
        refused(members.members_in_detail(nobody.ask(list)).await, NOBODY);
        let listed = members.members_in_detail(user.ask(list)).await.unwrap().into_inner().members;
        assert_eq!((listed.len(), listed[0].leads, listed[0].is_there), (1, true, !serializable));
    }
    let list = pb::MemberListRequest { linearizable: true };
    let mut cluster = ClusterClient::new(user.channel.clone());
    refused(cluster.member_list(nobody.ask(list)).await, NOBODY);
    let id = cluster.member_list(user.ask(list)).await.unwrap().into_inner().members[0].id;
    let update = pb::MemberUpdateRequest { id, peer_ur_ls: urls() };
    cluster.member_update(root.ask(update)).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_ranges_locks_and_elections_need_what_their_keys_need() {
    let (node, root, user, nobody) = guarded().await;
    for key in ["a/1", "a/2", "b"] {
        root.put(key).await.unwrap();
    }
    for count_only in [false, true] {
        user.stream("a", "b", count_only).await.unwrap();
        refused(user.stream("a", "c", count_only).await, DENIED);
        refused(user.stream("a", "\0", count_only).await, DENIED);
        refused(nobody.stream("a", "b", count_only).await, NOBODY);
    }
    assert_eq!(user.stream("a", "b", false).await.unwrap(), 2);

    let key = user.lock("a/lock").await.unwrap();
    refused(user.lock("b").await, DENIED);
    refused(nobody.lock("a/lock").await, NOBODY);
    let others = root.lock("b").await.unwrap();
    refused(user.unlock(others).await, DENIED);
    refused(nobody.unlock(key.clone()).await, NOBODY);
    user.unlock(key).await.unwrap();

    let mut elections = ElectionClient::new(user.channel.clone());
    let campaign =
        |name: &'static str| CampaignRequest { name: name.into(), lease: 0, value: "me".into() };
    elections.campaign(user.ask(campaign("a/post"))).await.unwrap();
    refused(elections.campaign(user.ask(campaign("c"))).await, DENIED);
    let leader = |name: &'static str| LeaderRequest { name: name.into() };
    elections.leader(user.ask(leader("a/post"))).await.unwrap();
    refused(elections.leader(user.ask(leader("c"))).await, DENIED);
    refused(elections.leader(nobody.ask(leader("a/post"))).await, NOBODY);
    let mut observed = elections.observe(user.ask(leader("c"))).await.unwrap().into_inner();
    refused(observed.message().await, DENIED);
    node.stop().await;
}
