//! etcd's Maintenance and Cluster services on a real node, RangeStream, and what every gRPC server
//! tells of itself.

use std::io::Write;
use std::time::Duration;

use revfs_api::keyspace::{Op, Origin, Txn};
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::alarm_request::AlarmAction;
use revfs_api::wire::etcdserverpb::cluster_client::ClusterClient;
use revfs_api::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use revfs_api::wire::etcdserverpb::range_request::SortOrder;
use revfs_store::verify_backup;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1 as reflection;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1alpha;

use crate::node::Node;

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.expect_err("it is to be refused");
    assert_eq!((status.code(), status.message()), (code, text));
}

async fn put(node: &Node, keys: impl Iterator<Item = (String, Vec<u8>)>) {
    let success = keys.map(|(key, value)| Op::put(key, value)).collect();
    let txn = Txn { success, ..Txn::default() };
    node.key_space().txn(txn, Origin::default()).await.expect("it is put");
}

fn alarm(action: AlarmAction, member_id: u64, alarm: pb::AlarmType) -> pb::AlarmRequest {
    pb::AlarmRequest { action: action.into(), member_id, alarm: alarm.into() }
}

#[tokio::test]
async fn alarms_are_raised_listed_and_lifted_and_refuse_meanwhile() {
    let node = Node::start().await;
    let mut maintenance = MaintenanceClient::new(node.channel().await);
    let mut ask = async |request| maintenance.alarm(request).await.map(|a| a.into_inner().alarms);
    let corrupt = pb::AlarmMember { member_id: 7, alarm: pb::AlarmType::Corrupt.into() };
    let list = alarm(AlarmAction::Get, 0, pb::AlarmType::None);
    let raise = alarm(AlarmAction::Activate, 7, pb::AlarmType::Corrupt);
    let lift = alarm(AlarmAction::Deactivate, 7, pb::AlarmType::Corrupt);
    assert_eq!(ask(list).await.unwrap(), []);
    assert_eq!(ask(raise).await.unwrap(), [corrupt]);
    assert_eq!(ask(raise).await.unwrap(), [corrupt], "it is raised already");
    assert_eq!(ask(list).await.unwrap(), [corrupt]);
    let others = alarm(AlarmAction::Get, 0, pb::AlarmType::Nospace);
    assert_eq!(ask(others).await.unwrap(), []);
    let put = pb::PutRequest { key: "k".into(), ..Default::default() };
    let refusal = node.kv().await.put(put.clone()).await;
    refused(refusal, Code::DataLoss, "etcdserver: corrupt cluster");
    let mut status = MaintenanceClient::new(node.channel().await);
    let errors = status.status(pb::StatusRequest {}).await.unwrap().into_inner().errors;
    assert_eq!(errors, ["memberID:7 alarm:CORRUPT "]);
    assert_eq!(ask(lift).await.unwrap(), [corrupt]);
    assert_eq!(ask(lift).await.unwrap(), [], "there is none any more");
    node.kv().await.put(put).await.unwrap();
    let unknown = pb::AlarmRequest { alarm: 9, ..raise };
    assert_eq!(ask(unknown).await.unwrap_err().code(), Code::InvalidArgument);
    node.stop().await;
}

#[tokio::test]
async fn a_status_tells_of_the_member_and_hashes_tell_of_its_store() {
    let node = Node::start().await;
    let mut maintenance = MaintenanceClient::new(node.channel().await);
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.version.as_str(), status.storage_version.as_str()), ("3.6.0", "3.6"));
    assert_eq!(status.leader, status.header.unwrap().member_id);
    assert!(status.raft_applied_index > 0 && status.raft_index >= status.raft_applied_index);
    assert!(status.db_size >= status.db_size_in_use && status.db_size_in_use > 0);
    assert!(status.errors.is_empty() && !status.is_learner);
    assert_eq!(status.downgrade_info, Some(pb::DowngradeInfo::default()));

    let hash = async |mut maintenance: MaintenanceClient<Channel>| {
        maintenance.hash(pb::HashRequest {}).await.unwrap().into_inner().hash
    };
    // A new node notes itself as a member behind the first two entries of its log.
    let settled = async {
        let ask = async || maintenance.clone().status(pb::StatusRequest {}).await.unwrap();
        while ask().await.into_inner().raft_applied_index < 3 {}
    };
    tokio::time::timeout(Duration::from_secs(60), settled).await.expect("it notes itself");
    let before = hash(maintenance.clone()).await;
    assert_eq!(hash(maintenance.clone()).await, before);
    put(&node, [("k".to_owned(), vec![1])].into_iter()).await;
    assert_ne!(hash(maintenance.clone()).await, before);

    let compaction = pb::CompactionRequest { revision: 2, physical: false };
    node.kv().await.compact(compaction).await.unwrap();
    let done = maintenance.defragment(pb::DefragmentRequest {}).await.unwrap().into_inner();
    assert_eq!(done.header.unwrap().revision, 2);
    node.stop().await;
}

#[tokio::test]
async fn a_snapshot_is_a_backup_that_can_be_restored() {
    let node = Node::start().await;
    let value = |n: u8| vec![n; 100_000];
    put(&node, (0..30_u8).map(|n| (format!("k{n:02}"), value(n)))).await;
    let mut maintenance = MaintenanceClient::new(node.channel().await);
    let parts = maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap();
    let mut parts = parts.into_inner();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backup");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut remaining = None;
    while let Some(part) = parts.message().await.unwrap() {
        let sent = u64::try_from(part.blob.len()).unwrap();
        assert!(remaining.is_none_or(|before| before == part.remaining_bytes + sent));
        assert_eq!((part.version.as_str(), part.header.unwrap().revision), ("3.6", 2));
        remaining = Some(part.remaining_bytes);
        file.write_all(&part.blob).unwrap();
    }
    assert_eq!(remaining, Some(0));
    node.stop().await;
    let mut on_progress = |_| std::ops::ControlFlow::Continue(());
    let verified = verify_backup(&path, &mut on_progress).expect("a whole backup");
    assert_eq!(verified.revision.0, 2);
}

#[tokio::test]
async fn leadership_and_older_releases_are_answered_as_a_cluster_of_one_can() {
    let node = Node::start().await;
    let mut maintenance = MaintenanceClient::new(node.channel().await);
    let member = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner().leader;
    let to = |target_id| pb::MoveLeaderRequest { target_id };
    maintenance.move_leader(to(member)).await.expect("it leads already");
    let bad = "etcdserver: bad leader transferee";
    refused(maintenance.move_leader(to(member + 1)).await, Code::FailedPrecondition, bad);
    let mut downgrade = async |action, version: &str| {
        let request = pb::DowngradeRequest { action, version: version.to_owned() };
        maintenance.downgrade(request).await
    };
    let format = "etcdserver: wrong downgrade target version format";
    refused(downgrade(0, "older").await, Code::InvalidArgument, format);
    let invalid = "etcdserver: invalid downgrade target version";
    refused(downgrade(1, "3.5.0").await, Code::InvalidArgument, invalid);
    let none = "etcdserver: no inflight downgrade job";
    refused(downgrade(2, "").await, Code::FailedPrecondition, none);
    node.stop().await;
}

#[tokio::test]
async fn a_cluster_of_one_names_its_member_and_keeps_it() {
    let node = Node::start().await;
    let mut cluster = ClusterClient::new(node.channel().await);
    let list = pb::MemberListRequest { linearizable: true };
    let listed = cluster.member_list(list).await.unwrap().into_inner();
    assert_eq!(listed.header.unwrap().revision, 0);
    let [member] = &listed.members[..] else { panic!("{listed:?}") };
    assert_eq!((member.name.as_str(), member.is_learner), ("default", false));
    assert_eq!(member.client_ur_ls, [format!("http://{}", node.address())]);
    assert!(member.peer_ur_ls.is_empty());

    let peers = vec!["http://10.0.0.1:2380".to_owned(), "http://10.0.0.2:2380".to_owned()];
    let update = |id, peer_ur_ls| pb::MemberUpdateRequest { id, peer_ur_ls };
    let updated = cluster.member_update(update(member.id, peers.clone())).await;
    assert_eq!(updated.unwrap().into_inner().members[0].peer_ur_ls, peers);
    let unknown = "etcdserver: member not found";
    let answer = cluster.member_update(update(1, peers.clone())).await;
    refused(answer, Code::NotFound, unknown);
    let invalid = "etcdserver: given member URLs are invalid";
    let answer = cluster.member_update(update(member.id, vec!["nowhere".into()])).await;
    refused(answer, Code::InvalidArgument, invalid);

    let remove = |id| pb::MemberRemoveRequest { id };
    refused(cluster.member_remove(remove(1)).await, Code::NotFound, unknown);
    let few = "etcdserver: re-configuration failed due to not enough started members";
    refused(cluster.member_remove(remove(member.id)).await, Code::FailedPrecondition, few);
    let promote = |id| pb::MemberPromoteRequest { id };
    refused(cluster.member_promote(promote(1)).await, Code::NotFound, unknown);
    let voter = "etcdserver: can only promote a learner member";
    refused(cluster.member_promote(promote(member.id)).await, Code::FailedPrecondition, voter);

    let add =
        |url: &str| pb::MemberAddRequest { peer_ur_ls: vec![url.to_owned()], is_learner: false };
    let exists = "etcdserver: Peer URLs already exists";
    refused(cluster.member_add(add(&peers[1])).await, Code::FailedPrecondition, exists);
    refused(cluster.member_add(add("x")).await, Code::InvalidArgument, invalid);
    // Who was added and has not come up counts nowhere: the node goes on, and it can be taken back.
    let added = cluster.member_add(add("http://10.0.0.3:2380")).await.unwrap().into_inner();
    let new = added.member.unwrap();
    assert_eq!((new.name.as_str(), new.is_learner, added.members.len()), ("", false, 2));
    refused(cluster.member_promote(promote(new.id)).await, Code::FailedPrecondition, voter);
    let removed = cluster.member_remove(remove(new.id)).await.unwrap().into_inner();
    assert_eq!(removed.members.len(), 1);
    refused(cluster.member_remove(remove(new.id)).await, Code::NotFound, unknown);
    node.stop().await;
}

/// All parts of a streamed range, merged, and how many there were.
async fn merged(
    node: &Node,
    request: pb::RangeRequest,
) -> Result<(pb::RangeResponse, usize), Status> {
    let mut parts = node.kv().await.range_stream(request).await?.into_inner();
    let (mut whole, mut count) = (pb::RangeResponse::default(), 0);
    while let Some(part) = parts.message().await? {
        let part = part.range_response.expect("each part is one");
        assert!(whole.header.is_none(), "only the last part has a header");
        whole.kvs.extend(part.kvs);
        (whole.header, whole.more, whole.count) = (part.header, part.more, part.count);
        count += 1;
    }
    Ok((whole, count))
}

#[tokio::test]
async fn a_streamed_range_is_the_range_in_parts() {
    let node = Node::start().await;
    put(&node, (0..200_u8).map(|n| (format!("k{n:03}"), vec![n; 10_000]))).await;
    put(&node, [("k100".to_owned(), vec![1])].into_iter()).await;
    let all = || pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let cases = [
        (all(), true),
        (pb::RangeRequest { limit: 60, ..all() }, true),
        (pb::RangeRequest { limit: 200, ..all() }, true),
        (pb::RangeRequest { revision: 2, ..all() }, true),
        (pb::RangeRequest { keys_only: true, limit: 7, ..all() }, false),
        (pb::RangeRequest { count_only: true, ..all() }, false),
        (pb::RangeRequest { range_end: "k".into(), ..all() }, false),
        (pb::RangeRequest { key: "k050".into(), range_end: "".into(), ..all() }, false),
        (pb::RangeRequest { sort_order: SortOrder::Ascend.into(), ..all() }, true),
    ];
    for (request, is_long) in cases {
        let whole = node.kv().await.range(request.clone()).await.unwrap().into_inner();
        let (parts, count) = merged(&node, request.clone()).await.unwrap();
        assert_eq!(parts, whole, "{request:?}");
        assert_eq!(count > 1, is_long, "{request:?} in {count} parts");
    }
    let descending = pb::RangeRequest { sort_order: SortOrder::Descend.into(), ..all() };
    assert_eq!(merged(&node, descending).await.unwrap_err().code(), Code::Unimplemented);
    let bounded = pb::RangeRequest { min_mod_revision: 1, ..all() };
    assert_eq!(merged(&node, bounded).await.unwrap_err().code(), Code::Unimplemented);
    let future = pb::RangeRequest { revision: 99, ..all() };
    assert_eq!(merged(&node, future).await.unwrap_err().code(), Code::OutOfRange);
    let empty = pb::RangeRequest { key: "".into(), ..all() };
    refused(merged(&node, empty).await, Code::InvalidArgument, "etcdserver: key is not provided");

    // What is compacted meanwhile ends it.
    // More than a connection's windows hold.
    put(&node, (0..200_u8).map(|n| (format!("m{n:03}"), vec![n; 100_000]))).await;
    let large = pb::RangeRequest { key: "m".into(), range_end: "n".into(), ..Default::default() };
    let mut parts = node.kv().await.range_stream(large).await.unwrap().into_inner();
    parts.message().await.unwrap().expect("the first part");
    put(&node, [("m199".to_owned(), vec![1])].into_iter()).await;
    let compaction = pb::CompactionRequest { revision: 5, physical: false };
    node.kv().await.compact(compaction).await.unwrap();
    let ended = async {
        while parts.message().await?.is_some() {}
        Ok(())
    };
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    refused(ended.await, Code::OutOfRange, compacted);
    node.stop().await;
}

#[tokio::test]
async fn health_is_told_and_that_it_ends() {
    let node = Node::start().await;
    let mut health = HealthClient::new(node.channel().await);
    let whole = HealthCheckRequest { service: String::new() };
    let serving = tonic_health::pb::health_check_response::ServingStatus::Serving;
    let not_serving = tonic_health::pb::health_check_response::ServingStatus::NotServing;
    let checked = health.check(whole.clone()).await.unwrap().into_inner();
    assert_eq!(checked.status(), serving);
    let unknown = HealthCheckRequest { service: "other".to_owned() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);
    let mut watched = health.watch(whole).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), serving);
    let stopping = node.signal();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), not_serving);
    assert_eq!(watched.message().await.unwrap(), None);
    stopping.finished().await;
}

const SERVICES: [&str; 10] = [
    "etcdserverpb.Cluster",
    "etcdserverpb.KV",
    "etcdserverpb.Lease",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Watch",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "revfs.v1.Revfs",
    "v3electionpb.Election",
    "v3lockpb.Lock",
];

#[tokio::test]
async fn a_server_says_what_it_speaks() {
    use reflection::server_reflection_request::MessageRequest;
    use reflection::server_reflection_response::MessageResponse;
    let node = Node::start().await;
    let mut client = ServerReflectionClient::new(node.channel().await);
    let mut ask = async |request| {
        let request = reflection::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        };
        let answers = client.server_reflection_info(tokio_stream::once(request)).await;
        let answer = answers.unwrap().into_inner().message().await.unwrap().expect("an answer");
        answer.message_response.expect("of some kind")
    };
    let list = ask(MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = list else { panic!("{list:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for service in SERVICES {
        assert!(names.contains(&service), "{service} is not among {names:?}");
    }
    let symbol = MessageRequest::FileContainingSymbol("etcdserverpb.WatchRequest".into());
    let found = ask(symbol).await;
    assert!(matches!(found, MessageResponse::FileDescriptorResponse(_)), "{found:?}");

    let mut old =
        v1alpha::server_reflection_client::ServerReflectionClient::new(node.channel().await);
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let answers = old.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    assert!(answers.into_inner().message().await.unwrap().is_some());
    node.stop().await;
}
