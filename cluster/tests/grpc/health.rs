//! How the node is, by HTTP: health, checks and metrics.

use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::lease_client::LeaseClient;
use revfs_api::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use revfs_api::wire::etcdserverpb::watch_client::WatchClient;
use revfs_api::wire::etcdserverpb::{AlarmRequest, PutRequest};
use revfs_cluster::grpc::{Address, Listen, Listener, Shows};
use serde_json::json;

use crate::http::ask;
use crate::node::Node;

async fn get(node: &Node, path: &str) -> (u16, String) {
    let answer = ask(&node.address(), "GET", path, "").await;
    (answer.code, answer.body)
}

#[tokio::test]
async fn a_node_that_serves_is_healthy_alive_and_ready() {
    let node = Node::start().await;
    let healthy = json!({"health": "true", "reason": ""});
    for path in ["/health", "/health?serializable=true"] {
        let (code, body) = get(&node, path).await;
        assert_eq!((code, body.parse::<serde_json::Value>().unwrap()), (200, healthy.clone()));
    }
    for path in ["/livez", "/readyz", "/readyz/linearizable_read", "/livez/serializable_read"] {
        assert_eq!(get(&node, path).await, (200, "ok\n".to_owned()), "{path}");
    }
    let all = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n";
    assert_eq!(get(&node, "/readyz?verbose").await, (200, all.to_owned()));
    let some = "[+]serializable_read ok\n[+]non_learner ok\nok\n";
    let path = "/readyz?verbose&exclude=linearizable_read&exclude=data_corruption";
    assert_eq!(get(&node, path).await, (200, some.to_owned()));
    assert_eq!(ask(&node.address(), "POST", "/health", "").await.code, 405);
    assert_eq!(get(&node, "/readyz/nothing").await.0, 404);
    node.stop().await;
}

#[tokio::test]
async fn alarms_are_reasons() {
    let node = Node::start().await;
    let mut maintenance = MaintenanceClient::new(node.channel().await);
    // Activated: no space, then damage.
    let mut alarm = async |alarm: i32| {
        maintenance.alarm(AlarmRequest { action: 1, member_id: 0, alarm }).await.unwrap();
    };
    alarm(1).await;
    let (code, body) = get(&node, "/health").await;
    assert_eq!((code, body.contains("ALARM NOSPACE")), (503, true), "{body}");
    assert_eq!(get(&node, "/health?exclude=NOSPACE").await.0, 200);
    assert_eq!(get(&node, "/readyz").await.0, 200, "reading goes on");
    alarm(2).await;
    let (code, body) = get(&node, "/readyz").await;
    assert_eq!(code, 503);
    assert!(body.contains("[-]data_corruption failed: alarm activated: CORRUPT\n"), "{body}");
    assert_eq!(get(&node, "/livez").await.0, 200);
    node.stop().await;
}

#[tokio::test]
async fn metrics_have_etcds_names_and_count_calls_by_method_and_code() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    kv.put(PutRequest { key: "a".into(), ..PutRequest::default() }).await.unwrap();
    kv.put(PutRequest::default()).await.unwrap_err();
    ask(&node.address(), "POST", "/v3/kv/put", "{\"key\":\"Yg==\"}").await;
    get(&node, "/health").await;
    let answer = ask(&node.address(), "GET", "/metrics", "").await;
    assert!(answer.head.contains("content-type: application/openmetrics-text"), "{}", answer.head);
    let put = "grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"";
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_debugging_mvcc_current_revision 3",
        "etcd_server_health_success 1",
        "etcd_server_version{server_version=\"3.6",
        &format!("grpc_server_started_total{{{put}}} 3"),
        &format!("grpc_server_handled_total{{{put},grpc_code=\"OK\"}} 2"),
        &format!("grpc_server_handled_total{{{put},grpc_code=\"InvalidArgument\"}} 1"),
        &format!("grpc_server_handling_seconds_count{{{put}}} 3"),
        "etcd_server_is_learner 0",
        "etcd_server_read_indexes_failed_total 0",
        "process_resident_memory_bytes ",
        "revfs_read_only 0",
    ] {
        let found = answer.body.lines().any(|found| found.starts_with(line));
        assert!(found, "{line} is missing in {}", answer.body);
    }
    assert!(answer.body.ends_with("# EOF\n"));
    assert!(!answer.body.contains("revfs.peer"), "members alone call it, elsewhere");
    node.stop().await;
}

/// The value of a row.
fn value(metrics: &str, name: &str) -> f64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("{name} is missing in {metrics}"));
    value.parse().unwrap_or_else(|error| panic!("{name} {value}: {error}"))
}

#[tokio::test]
async fn metrics_count_what_the_node_does_and_how_long_its_disk_takes() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    for key in ["a", "b"] {
        kv.put(PutRequest { key: key.into(), ..PutRequest::default() }).await.unwrap();
    }
    let all = || pb::RangeRequest { key: "a".into(), range_end: "z".into(), ..Default::default() };
    kv.range(all()).await.unwrap();
    let delete = pb::DeleteRangeRequest { key: "b".into(), ..Default::default() };
    kv.delete_range(delete).await.unwrap();
    let op = |request| pb::RequestOp { request: Some(request) };
    let put = PutRequest { key: "c".into(), ..Default::default() };
    let success = vec![
        op(pb::request_op::Request::RequestPut(put)),
        op(pb::request_op::Request::RequestRange(all())),
    ];
    kv.txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap();
    let mut leases = LeaseClient::new(node.channel().await);
    for id in [1, 2] {
        leases.lease_grant(pb::LeaseGrantRequest { ttl: 60, id }).await.unwrap();
    }
    leases.lease_revoke(pb::LeaseRevokeRequest { id: 1 }).await.unwrap();
    let (requests, sent) = tokio::sync::mpsc::channel(1);
    let create = pb::WatchCreateRequest { key: "w".into(), ..Default::default() };
    let create = pb::watch_request::RequestUnion::CreateRequest(create);
    requests.send(pb::WatchRequest { request_union: Some(create) }).await.unwrap();
    let mut watching = WatchClient::new(node.channel().await);
    let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
    let mut watching = watching.watch(sent).await.unwrap().into_inner();
    assert!(watching.message().await.unwrap().unwrap().created);
    kv.put(PutRequest { key: "w".into(), ..PutRequest::default() }).await.unwrap();
    assert_eq!(watching.message().await.unwrap().unwrap().events.len(), 1);

    let (_, metrics) = get(&node, "/metrics").await;
    let watch =
        "grpc_type=\"bidi_stream\",grpc_service=\"etcdserverpb.Watch\",grpc_method=\"Watch\"";
    for (name, expected) in [
        ("etcd_mvcc_put_total", 4.0),
        ("etcd_mvcc_delete_total", 1.0),
        ("etcd_mvcc_range_total", 2.0),
        ("etcd_mvcc_txn_total", 1.0),
        ("etcd_debugging_lease_granted_total", 2.0),
        ("etcd_debugging_lease_revoked_total", 1.0),
        ("revfs_leases", 1.0),
        ("etcd_debugging_mvcc_watch_stream_total", 1.0),
        ("etcd_debugging_mvcc_watcher_total", 1.0),
        ("etcd_debugging_mvcc_events_total", 1.0),
        ("etcd_server_proposals_pending", 0.0),
        ("etcd_server_proposals_failed_total", 0.0),
        (&format!("grpc_server_msg_received_total{{{watch}}}"), 1.0),
        (&format!("grpc_server_msg_sent_total{{{watch}}}"), 2.0),
    ] {
        assert_eq!(value(&metrics, name), expected, "{name}");
    }
    let flushes = "etcd_disk_wal_fsync_duration_seconds";
    let count = value(&metrics, &format!("{flushes}_count"));
    assert!(count >= 7.0, "one for each change that came alone: {count}");
    assert_eq!(value(&metrics, &format!("{flushes}_bucket{{le=\"+Inf\"}}")), count);
    assert!(value(&metrics, &format!("{flushes}_sum")) > 0.0);
    // Also where nothing was committed yet.
    value(&metrics, "etcd_disk_backend_commit_duration_seconds_count");
    drop((requests, watching, kv, leases));
    node.stop().await;
}

#[tokio::test]
async fn a_listener_for_metrics_shows_no_data() {
    let address = Address::Tcp("127.0.0.1:0".parse().unwrap());
    let listeners = vec![Listener { address, tls: None, shows: Shows::Metrics }];
    let node = Node::start_with(Listen { listeners, ..Listen::default() }).await;
    let Address::Tcp(address) = &node.bound()[0] else { panic!("it listens on TCP") };
    let address = address.to_string();
    for path in ["/metrics", "/health", "/livez", "/readyz", "/version"] {
        assert_eq!(ask(&address, "GET", path, "").await.code, 200, "{path}");
    }
    assert_eq!(ask(&address, "POST", "/v3/kv/range", "{\"key\":\"Yg==\"}").await.code, 404);
    let channel = tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap();
    let mut kv =
        revfs_api::wire::etcdserverpb::kv_client::KvClient::new(channel.connect().await.unwrap());
    let status = kv.put(PutRequest { key: "a".into(), ..PutRequest::default() }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    drop(kv);
    node.stop().await;
}
