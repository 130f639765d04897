//! etcd's JSON gateway, on the port of gRPC.

use serde_json::json;

use crate::http::{ask, ask_with, begin};
use crate::node::Node;

/// Base64 of `foo`, `bar`, `fop`.
const FOO: &str = "Zm9v";
const BAR: &str = "YmFy";
const FOP: &str = "Zm9w";

async fn post(node: &Node, path: &str, body: serde_json::Value) -> (u16, serde_json::Value) {
    let answer = ask(&node.address(), "POST", path, &body.to_string()).await;
    (answer.code, answer.json())
}

/// Without what differs from node to node.
fn bare(mut answer: serde_json::Value) -> serde_json::Value {
    let header = answer["header"].as_object_mut().expect("every answer has one");
    for name in ["cluster_id", "member_id", "raft_term"] {
        let value = header.remove(name).expect("it is there");
        assert!(value.is_string(), "64 bits are a string: {value}");
    }
    answer
}

#[tokio::test]
async fn keys_are_written_and_read_with_etcds_names_and_forms() {
    let node = Node::start().await;
    let (code, put) = post(&node, "/v3/kv/put", json!({"key": FOO, "value": BAR})).await;
    assert_eq!((code, bare(put)), (200, json!({"header": {"revision": "2"}})));
    let (_, range) = post(&node, "/v3/kv/range", json!({"key": FOO})).await;
    let kv = json!({"key": FOO, "value": BAR, "create_revision": "2", "mod_revision": "2", "version": "1"});
    let expected = json!({"header": {"revision": "2"}, "kvs": [kv], "count": "1"});
    assert_eq!(bare(range), expected, "what is zero is left out");
    // Names in either form, numbers as such or as strings, enumerations by name.
    let (code, range) = post(
        &node,
        "/v3/kv/range",
        json!({"key": FOO, "rangeEnd": FOP, "limit": "5", "sort_order": "DESCEND", "unknown": 1}),
    )
    .await;
    assert_eq!((code, bare(range)["count"].clone()), (200, json!("1")));
    let (_, deleted) =
        post(&node, "/v3/kv/deleterange", json!({"key": FOO, "prev_kv": true})).await;
    assert_eq!(bare(deleted)["prev_kvs"][0]["value"], BAR);
    let (_, empty) = post(&node, "/v3/kv/range", json!({"key": FOO})).await;
    assert_eq!(bare(empty), json!({"header": {"revision": "3"}}));
    node.stop().await;
}

#[tokio::test]
async fn a_transaction_has_its_branches_and_their_answers() {
    let node = Node::start().await;
    let txn = json!({
        "compare": [{"key": FOO, "target": "CREATE", "create_revision": 0}],
        "success": [{"request_put": {"key": FOO, "value": BAR}}],
        "failure": [{"requestRange": {"key": FOO}}],
    });
    let (code, first) = post(&node, "/v3/kv/txn", txn.clone()).await;
    let expected = json!({"header": {"revision": "2"}, "succeeded": true,
        "responses": [{"response_put": {"header": {"revision": "2"}}}]});
    assert_eq!(code, 200, "{first}");
    assert_eq!(bare(first), expected);
    let (_, second) = post(&node, "/v3/kv/txn", txn).await;
    assert_eq!(second.get("succeeded"), None, "false is left out");
    assert_eq!(second["responses"][0]["response_range"]["kvs"][0]["value"], BAR);
    node.stop().await;
}

#[tokio::test]
async fn errors_have_etcds_codes_texts_and_form() {
    let node = Node::start().await;
    for (path, body, code, grpc, text) in [
        ("/v3/kv/put", json!({}), 400, 3, "etcdserver: key is not provided"),
        (
            "/v3/kv/range",
            json!({"key": FOO, "revision": "99"}),
            400,
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        ("/v3/lease/revoke", json!({"ID": 7}), 404, 5, "etcdserver: requested lease not found"),
        ("/v3/nothing", json!({}), 404, 5, "Not Found"),
    ] {
        let (found, body) = post(&node, path, body).await;
        let expected = json!({"code": grpc, "message": text, "details": []});
        assert_eq!((found, body), (code, expected), "{path}");
    }
    let answer = ask(&node.address(), "GET", "/v3/kv/range", "").await;
    assert_eq!(answer.code, 501);
    assert_eq!(answer.json(), json!({"code": 12, "message": "Method Not Allowed", "details": []}));
    let answer = ask(&node.address(), "GET", "/nothing", "").await;
    assert_eq!((answer.code, answer.body.as_str()), (404, "404 page not found\n"));
    node.stop().await;
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let node = Node::start().await;
    for body in
        ["{", "[]", "{\"key\":1}", "{\"key\":\"not base64!\"}", "{\"limit\":\"x\"}", "\u{1}"]
    {
        let answer = ask(&node.address(), "POST", "/v3/kv/range", body).await;
        assert_eq!((answer.code, &answer.json()["code"]), (400, &json!(3)), "{body}");
    }
    let nested = format!("{}{}", "{\"success\":[{\"request_txn\":".repeat(300), "}]}".repeat(300));
    let answer = ask(&node.address(), "POST", "/v3/kv/txn", &nested).await;
    assert_eq!(answer.code, 400, "{}", answer.body);
    // Over the bound of a request, whether as JSON it is read to its end or not.
    for bytes in [1_600_000, 6_000_000] {
        let value = "A".repeat(bytes / 3 * 4);
        let (code, body) = post(&node, "/v3/kv/put", json!({"key": FOO, "value": value})).await;
        let expected =
            json!({"code": 3, "message": "etcdserver: request is too large", "details": []});
        assert_eq!((code, body), (400, expected), "{bytes}");
    }
    let (code, _) = post(&node, "/v3/kv/put", json!({"key": FOO, "value": BAR})).await;
    assert_eq!(code, 200, "others are served");
    node.stop().await;
}

#[tokio::test]
async fn a_watch_streams_a_line_for_each_answer_while_its_body_goes_on() {
    let node = Node::start().await;
    let create = json!({"create_request": {"key": FOO}}).to_string();
    let chunked = [("transfer-encoding", "chunked")];
    let (code, _, mut lines) = begin(&node.address(), "POST", "/v3/watch", &chunked, &create).await;
    assert_eq!(code, 200);
    assert_eq!(lines.next().await.unwrap()["result"]["created"], true);
    let (code, put) = post(&node, "/v3/kv/put", json!({"key": FOO, "value": BAR})).await;
    assert_eq!(code, 200, "{put}");
    let line = lines.next().await.unwrap();
    let kv = &line["result"]["events"][0]["kv"];
    assert_eq!((&kv["key"], &kv["mod_revision"]), (&json!(FOO), &json!("2")));
    // A second watch on the same stream.
    lines.say(&json!({"createRequest": {"key": BAR}}).to_string()).await;
    let created = lines.next().await.unwrap();
    assert_eq!(
        (&created["result"]["created"], &created["result"]["watch_id"]),
        (&json!(true), &json!("1"))
    );
    lines.say("nonsense").await;
    assert_eq!(lines.next().await.unwrap()["error"]["code"], 3);
    assert!(lines.next().await.is_none(), "an error is the end");
    node.stop().await;
}

#[tokio::test]
async fn a_watch_goes_on_after_its_body_has_ended_and_ends_with_the_server() {
    let node = Node::start().await;
    let create = json!({"create_request": {"key": FOO}}).to_string();
    let (_, _, mut lines) = begin(&node.address(), "POST", "/v3/watch", &[], &create).await;
    assert_eq!(lines.next().await.unwrap()["result"]["created"], true);
    let (code, put) = post(&node, "/v3/kv/put", json!({"key": FOO, "value": BAR})).await;
    assert_eq!(code, 200, "{put}");
    assert_eq!(lines.next().await.unwrap()["result"]["events"][0]["kv"]["value"], BAR);
    let stopping = node.signal();
    assert_eq!(lines.next().await.unwrap()["error"]["code"], 14, "clients try again");
    assert!(lines.next().await.is_none());
    stopping.finished().await;
}

#[tokio::test]
async fn leases_are_kept_alive_a_line_for_each_renewal() {
    let node = Node::start().await;
    let (_, granted) = post(&node, "/v3/lease/grant", json!({"TTL": 60, "ID": "77"})).await;
    assert_eq!((&granted["ID"], &granted["TTL"]), (&json!("77"), &json!("60")));
    let twice = format!("{}{}", json!({"ID": 77}), json!({"ID": "78"}));
    let answer = ask(&node.address(), "POST", "/v3/lease/keepalive", &twice).await;
    let lines: Vec<serde_json::Value> =
        answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{}", answer.body);
    assert_eq!(
        (&lines[0]["result"]["ID"], &lines[0]["result"]["TTL"]),
        (&json!("77"), &json!("60"))
    );
    assert_eq!(lines[1]["result"].get("TTL"), None, "there is no such lease");
    let (_, leases) = post(&node, "/v3/kv/lease/leases", json!({})).await;
    assert_eq!(leases["leases"], json!([{"ID": "77"}]));
    node.stop().await;
}

#[tokio::test]
async fn every_path_of_etcds_gateway_is_there() {
    let node = Node::start().await;
    let paths = "kv/range kv/put kv/deleterange kv/txn kv/compaction watch lease/grant lease/revoke \
        lease/keepalive lease/timetolive lease/leases kv/lease/revoke kv/lease/timetolive \
        kv/lease/leases cluster/member/add cluster/member/remove cluster/member/update \
        cluster/member/list cluster/member/promote maintenance/alarm maintenance/status \
        maintenance/defragment maintenance/hash maintenance/hashkv maintenance/snapshot \
        maintenance/transfer-leadership maintenance/downgrade lock/lock lock/unlock \
        election/campaign election/proclaim election/leader election/observe election/resign";
    for path in paths.split_whitespace() {
        // No POST: only a path that is there says so.
        let answer = ask(&node.address(), "GET", &format!("/v3/{path}"), "").await;
        assert_eq!(answer.code, 501, "{path}");
    }
    let (code, members) = post(&node, "/v3/cluster/member/list", json!({})).await;
    assert_eq!((code, members["members"].as_array().map(Vec::len)), (200, Some(1)));
    node.stop().await;
}

#[tokio::test]
async fn the_version_names_the_etcd_that_is_built() {
    let node = Node::start().await;
    let answer = ask(&node.address(), "GET", "/version", "").await;
    let version = revfs_cluster::grpc::ETCD_VERSION;
    let expected = json!({
        "etcdserver": version, "etcdcluster": version, "storage": version,
        "revfs": env!("CARGO_PKG_VERSION"), "revfscluster": 1,
    });
    assert_eq!((answer.code, answer.json()), (200, expected));
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    node.stop().await;
}

#[tokio::test]
async fn users_log_in_and_their_token_stands_in_a_header() {
    let node = Node::start().await;
    let root = json!({"name": "root", "password": "secret"});
    assert_eq!(post(&node, "/v3/auth/user/add", root.clone()).await.0, 200);
    assert_eq!(post(&node, "/v3/auth/role/add", json!({"name": "root"})).await.0, 200);
    let grant = json!({"user": "root", "role": "root"});
    assert_eq!(post(&node, "/v3/auth/user/grant", grant).await.0, 200);
    assert_eq!(post(&node, "/v3/auth/enable", json!({})).await.0, 200);

    let put = json!({"key": FOO, "value": BAR});
    let (code, refused) = post(&node, "/v3/kv/put", put.clone()).await;
    assert_eq!((code, &refused["message"]), (400, &json!("etcdserver: user name is empty")));
    let wrong = json!({"name": "root", "password": "guessed"});
    assert_eq!(post(&node, "/v3/auth/authenticate", wrong).await.0, 400);
    let (_, answer) = post(&node, "/v3/auth/authenticate", root).await;
    let token = answer["token"].as_str().expect("a token");
    for (header, expected) in [(token, 200), (&format!("Bearer {token}"), 200), ("other", 401)] {
        let headers = [("Authorization", header)];
        let body = put.to_string();
        let answer = ask_with(&node.address(), "POST", "/v3/kv/put", &headers, &body).await;
        assert_eq!(answer.code, expected, "{}", answer.body);
    }
    let headers = [("Authorization", token)];
    let listed = ask_with(&node.address(), "POST", "/v3/auth/user/list", &headers, "{}").await;
    assert_eq!(listed.json()["users"], json!(["root"]));
    node.stop().await;
}
