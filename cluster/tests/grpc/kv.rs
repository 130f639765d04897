//! etcd's KV service on a real node: revisions, ranges, order, transactions, compaction and their
//! errors, by the rules that etcd's documentation and its tests state.

use bytes::Bytes;
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use revfs_api::wire::etcdserverpb::range_request::{SortOrder, SortTarget};
use revfs_api::wire::etcdserverpb::request_op::Request;
use revfs_api::wire::etcdserverpb::response_op::Response;
use tonic::{Code, Status};

use crate::node::Node;

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";
const NO_KEY: &str = "etcdserver: key is not provided";

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..pb::PutRequest::default()
    }
}

fn delete(key: &str, range_end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(range_end.as_bytes()),
        prev_kv: true,
    }
}

fn range(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(range_end.as_bytes()),
        ..pb::RangeRequest::default()
    }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put_op(key: &str, value: &str) -> pb::RequestOp {
    op(Request::RequestPut(put(key, value)))
}

fn delete_op(key: &str, range_end: &str) -> pb::RequestOp {
    op(Request::RequestDeleteRange(delete(key, range_end)))
}

fn range_op(request: pb::RangeRequest) -> pb::RequestOp {
    op(Request::RequestRange(request))
}

fn then(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success, ..pb::TxnRequest::default() }
}

fn nested(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::RequestOp {
    op(Request::RequestTxn(pb::TxnRequest { compare: Vec::new(), success, failure }))
}

fn compare(
    key: &str,
    target: CompareTarget,
    with: Option<TargetUnion>,
    result: CompareResult,
) -> pb::Compare {
    pb::Compare {
        result: result.into(),
        target: target.into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::new(),
        target_union: with,
    }
}

fn keys(response: &pb::RangeResponse) -> Vec<&str> {
    response
        .kvs
        .iter()
        .map(|kv| std::str::from_utf8(&kv.key).expect("the tests put text"))
        .collect()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.expect_err("it is to be refused");
    assert_eq!((status.code(), status.message()), (code, text));
}

#[tokio::test]
async fn revisions_count_changes_and_headers_name_the_member() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    let empty = kv.range(range("foo", "")).await.unwrap().into_inner();
    let header = empty.header.unwrap();
    assert_eq!((header.revision, empty.count), (1, 0));
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term > 0, "{header:?}");

    let first = kv.put(put("foo", "1")).await.unwrap().into_inner();
    assert_eq!(first.header.unwrap(), pb::ResponseHeader { revision: 2, ..header });
    assert_eq!(first.prev_kv, None);
    let again = pb::PutRequest { prev_kv: true, ..put("foo", "1") };
    let again = kv.put(again).await.unwrap().into_inner();
    assert_eq!(again.header.unwrap().revision, 3, "an equal value is a change too");
    assert_eq!(again.prev_kv.unwrap().version, 1);

    let found = kv.range(range("foo", "")).await.unwrap().into_inner().kvs.remove(0);
    assert_eq!((found.create_revision, found.mod_revision, found.version), (2, 3, 2));
    let gone = kv.delete_range(delete("foo", "")).await.unwrap().into_inner();
    assert_eq!((gone.deleted, gone.header.unwrap().revision), (1, 4));
    assert_eq!(gone.prev_kvs, vec![found]);
    let nothing = kv.delete_range(delete("foo", "")).await.unwrap().into_inner();
    assert_eq!((nothing.deleted, nothing.header.unwrap().revision), (0, 4));
    kv.put(put("foo", "2")).await.unwrap();
    let reborn = kv.range(range("foo", "")).await.unwrap().into_inner().kvs.remove(0);
    assert_eq!((reborn.create_revision, reborn.mod_revision, reborn.version), (5, 5, 1));
    node.stop().await;
}

#[tokio::test]
async fn a_put_may_keep_the_value_and_must_be_well_formed() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    refused(kv.put(put("", "x")).await, Code::InvalidArgument, NO_KEY);
    let keep = pb::PutRequest { ignore_value: true, ignore_lease: true, ..put("foo", "") };
    let missing = kv.put(keep.clone()).await;
    refused(missing, Code::InvalidArgument, "etcdserver: key not found");
    let both = pb::PutRequest { value: "x".into(), ..keep.clone() };
    refused(kv.put(both).await, Code::InvalidArgument, "etcdserver: value is provided");
    let both = pb::PutRequest { lease: 7, ..keep.clone() };
    refused(kv.put(both).await, Code::InvalidArgument, "etcdserver: lease is provided");
    let no_lease = pb::PutRequest { lease: 7, ..put("foo", "x") };
    refused(kv.put(no_lease).await, Code::NotFound, "etcdserver: requested lease not found");

    kv.put(put("foo", "1")).await.unwrap();
    assert_eq!(kv.put(keep).await.unwrap().into_inner().header.unwrap().revision, 3);
    let kept = kv.range(range("foo", "")).await.unwrap().into_inner().kvs.remove(0);
    assert_eq!((kept.value.as_ref(), kept.version), (&b"1"[..], 2));
    let long = put(&"k".repeat(1_901), "");
    let status = kv.put(long).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("1901"), "{}", status.message());
    node.stop().await;
}

#[tokio::test]
async fn ranges_follow_etcds_conventions() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    for key in ["a", "b", "b/1", "b/2", "c"] {
        kv.put(put(key, key)).await.unwrap();
    }
    let intervals = [
        ("b", "", vec!["b"]),
        ("b", "c", vec!["b", "b/1", "b/2"]),
        ("b/", "b0", vec!["b/1", "b/2"]),
        ("b/2", "\0", vec!["b/2", "c"]),
        ("\0", "\0", vec!["a", "b", "b/1", "b/2", "c"]),
        ("c", "b", vec![]),
        ("b", "b", vec![]),
    ];
    for (key, range_end, expected) in intervals {
        let found = kv.range(range(key, range_end)).await.unwrap().into_inner();
        assert_eq!(keys(&found), expected, "[{key:?}, {range_end:?})");
        assert_eq!(found.count, i64::try_from(expected.len()).unwrap());
        assert!(!found.more);
    }
    refused(kv.range(range("", "\0")).await, Code::InvalidArgument, NO_KEY);

    let all = range("\0", "\0");
    let limited = pb::RangeRequest { limit: 2, ..all.clone() };
    let limited = kv.range(limited).await.unwrap().into_inner();
    assert_eq!((keys(&limited), limited.more, limited.count), (vec!["a", "b"], true, 5));
    let unlimited = pb::RangeRequest { limit: -1, ..all.clone() };
    assert_eq!(kv.range(unlimited).await.unwrap().into_inner().kvs.len(), 5);
    let counted = pb::RangeRequest { count_only: true, limit: 1, ..all.clone() };
    let counted = kv.range(counted).await.unwrap().into_inner();
    assert_eq!((counted.kvs.len(), counted.count, counted.more), (0, 5, false));
    let bare = pb::RangeRequest { keys_only: true, ..all };
    let bare = kv.range(bare).await.unwrap().into_inner();
    assert!(bare.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision > 0), "{bare:?}");
    node.stop().await;
}

#[tokio::test]
async fn ranges_are_sorted_filtered_and_cut_in_this_order() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    // Revisions 2 to 6: b is created first and changed last, c has the most versions.
    for (key, value) in [("b", "9"), ("c", "5"), ("c", "6"), ("a", "7"), ("b", "8")] {
        kv.put(put(key, value)).await.unwrap();
    }
    let all = || range("\0", "\0");
    let sorted = |target: SortTarget, order: SortOrder, limit: i64| pb::RangeRequest {
        sort_target: target.into(),
        sort_order: order.into(),
        limit,
        ..all()
    };
    let cases = [
        (sorted(SortTarget::Key, SortOrder::Descend, 0), vec!["c", "b", "a"]),
        (sorted(SortTarget::Key, SortOrder::Descend, 1), vec!["c"]),
        (sorted(SortTarget::Key, SortOrder::Ascend, 2), vec!["a", "b"]),
        (sorted(SortTarget::Mod, SortOrder::Descend, 0), vec!["b", "a", "c"]),
        (sorted(SortTarget::Create, SortOrder::None, 0), vec!["b", "c", "a"]),
        (sorted(SortTarget::Version, SortOrder::Ascend, 1), vec!["a"]),
        (sorted(SortTarget::Value, SortOrder::Descend, 2), vec!["b", "a"]),
        (pb::RangeRequest { min_mod_revision: 5, ..all() }, vec!["a", "b"]),
        (pb::RangeRequest { max_mod_revision: 5, ..all() }, vec!["a", "c"]),
        (pb::RangeRequest { max_create_revision: 3, limit: 1, ..all() }, vec!["b"]),
        (pb::RangeRequest { min_create_revision: 3, max_create_revision: 3, ..all() }, vec!["c"]),
    ];
    for (request, expected) in cases {
        let found = kv.range(request.clone()).await.unwrap().into_inner();
        assert_eq!(keys(&found), expected, "{request:?}");
        assert_eq!(found.count, 3, "{request:?}");
        let is_cut = request.limit == 1 || request.limit == 2;
        assert_eq!(found.more, is_cut, "{request:?}");
    }
    let by_value =
        pb::RangeRequest { keys_only: true, ..sorted(SortTarget::Value, SortOrder::Ascend, 0) };
    let by_value = kv.range(by_value).await.unwrap().into_inner();
    assert_eq!(keys(&by_value), ["c", "a", "b"]);
    assert!(by_value.kvs.iter().all(|kv| kv.value.is_empty()));
    let invalid = "etcdserver: invalid sort option";
    let unknown = pb::RangeRequest { sort_target: 9, ..all() };
    refused(kv.range(unknown).await, Code::InvalidArgument, invalid);
    let unknown = pb::RangeRequest { sort_order: -1, ..all() };
    refused(kv.range(unknown).await, Code::InvalidArgument, invalid);
    node.stop().await;
}

#[tokio::test]
async fn the_past_is_readable_until_it_is_compacted() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    for value in ["2", "3", "4", "5"] {
        kv.put(put("foo", value)).await.unwrap();
    }
    let at = |revision: i64| pb::RangeRequest { revision, ..range("foo", "") };
    for revision in 2..=5_i64 {
        let found = kv.range(at(revision)).await.unwrap().into_inner();
        assert_eq!(found.kvs[0].value, revision.to_string());
        assert_eq!(found.header.unwrap().revision, 5, "the header tells the present");
    }
    assert_eq!(kv.range(at(-1)).await.unwrap().into_inner().kvs[0].value, "5");
    refused(kv.range(at(6)).await, Code::OutOfRange, FUTURE);

    let compaction = |revision: i64| pb::CompactionRequest { revision, physical: true };
    refused(kv.compact(compaction(6)).await, Code::OutOfRange, FUTURE);
    refused(kv.compact(compaction(-1)).await, Code::OutOfRange, COMPACTED);
    let compacted = kv.compact(compaction(4)).await.unwrap().into_inner();
    assert_eq!(compacted.header.unwrap().revision, 5);
    refused(kv.compact(compaction(4)).await, Code::OutOfRange, COMPACTED);
    refused(kv.range(at(3)).await, Code::OutOfRange, COMPACTED);
    assert_eq!(kv.range(at(4)).await.unwrap().into_inner().kvs[0].value, "4");
    let in_txn = |revision| then(vec![put_op("bar", "x"), range_op(at(revision))]);
    refused(kv.txn(in_txn(3)).await, Code::OutOfRange, COMPACTED);
    refused(kv.txn(in_txn(6)).await, Code::OutOfRange, FUTURE);
    let answer = kv.txn(in_txn(4)).await.unwrap().into_inner();
    let Some(Response::ResponseRange(past)) = &answer.responses[1].response else { panic!() };
    assert_eq!((past.kvs[0].value.as_ref(), past.count), (&b"4"[..], 1));
    assert_eq!(answer.header.unwrap().revision, 6, "the refused ones changed nothing");
    node.stop().await;
}

#[tokio::test]
async fn transactions_judge_the_state_before_and_answer_each_operation() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    kv.put(put("x", "v1")).await.unwrap();
    let is_first =
        compare("x", CompareTarget::Version, Some(TargetUnion::Version(1)), CompareResult::Equal);
    let inner = pb::TxnRequest {
        compare: vec![is_first],
        success: vec![put_op("y", "inner")],
        failure: vec![],
    };
    let outer = then(vec![
        put_op("x", "v2"),
        range_op(range("x", "")),
        op(Request::RequestTxn(inner)),
        delete_op("nothing", "nothinh"),
    ]);
    let answer = kv.txn(outer).await.unwrap().into_inner();
    let header = answer.header.unwrap();
    assert!(answer.succeeded && header.revision == 3 && header.member_id != 0, "{header:?}");
    let inner_header = Some(pb::ResponseHeader { revision: 3, ..pb::ResponseHeader::default() });
    let responses: Vec<_> =
        answer.responses.into_iter().map(|response| response.response.unwrap()).collect();
    let Response::ResponsePut(put) = &responses[0] else { panic!("{responses:?}") };
    assert_eq!(put.header, inner_header);
    let Response::ResponseRange(range) = &responses[1] else { panic!("{responses:?}") };
    assert_eq!(range.header, inner_header);
    assert_eq!((range.kvs[0].value.as_ref(), range.kvs[0].mod_revision), (&b"v2"[..], 3));
    let Response::ResponseTxn(txn) = &responses[2] else { panic!("{responses:?}") };
    assert!(txn.succeeded, "compares see the state before the transaction");
    assert_eq!(txn.header, Some(pb::ResponseHeader::default()));
    let Response::ResponseDeleteRange(delete) = &responses[3] else { panic!("{responses:?}") };
    assert_eq!((delete.header, delete.deleted), (inner_header, 0));

    for unchanged in [then(vec![]), then(vec![delete_op("nothing", "")])] {
        let answer = kv.txn(unchanged).await.unwrap().into_inner();
        assert_eq!(answer.header.unwrap().revision, 3);
    }
    node.stop().await;
}

#[tokio::test]
async fn compares_treat_a_missing_key_as_etcd_does() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    kv.put(put("x", "m")).await.unwrap();
    let number = |number| Some(TargetUnion::CreateRevision(number));
    let value = |value: &'static str| Some(TargetUnion::Value(value.into()));
    let cases = [
        (compare("no", CompareTarget::Create, number(0), CompareResult::Equal), true),
        (compare("no", CompareTarget::Create, None, CompareResult::Equal), true),
        (compare("no", CompareTarget::Value, value(""), CompareResult::Equal), false),
        (compare("no", CompareTarget::Value, value("a"), CompareResult::NotEqual), false),
        (compare("no", CompareTarget::Create, number(-1), CompareResult::Greater), true),
        (compare("x", CompareTarget::Create, number(2), CompareResult::Equal), true),
        (compare("x", CompareTarget::Create, number(2), CompareResult::Less), false),
        (compare("x", CompareTarget::Create, number(-1), CompareResult::Equal), false),
        (compare("x", CompareTarget::Create, number(-1), CompareResult::NotEqual), true),
        (compare("x", CompareTarget::Value, value("l"), CompareResult::Greater), true),
        (compare("x", CompareTarget::Value, value("n"), CompareResult::Less), true),
        (compare("x", CompareTarget::Lease, None, CompareResult::Equal), true),
    ];
    for (condition, expected) in cases {
        let request = pb::TxnRequest { compare: vec![condition.clone()], ..then(vec![]) };
        let answer = kv.txn(request).await.unwrap().into_inner();
        assert_eq!(answer.succeeded, expected, "{condition:?}");
    }
    let ranged = pb::Compare {
        range_end: "\0".into(),
        ..compare("\0", CompareTarget::Value, value("m"), CompareResult::Equal)
    };
    let request = pb::TxnRequest { compare: vec![ranged], ..then(vec![put_op("y", "o")]) };
    assert!(kv.txn(request.clone()).await.unwrap().into_inner().succeeded);
    assert!(!kv.txn(request).await.unwrap().into_inner().succeeded, "y is not m");
    node.stop().await;
}

#[tokio::test]
async fn a_transaction_changes_a_key_once() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    let p = || put_op("abc", "x");
    let legal = [
        vec![p(), put_op("abd", "x")],
        vec![delete_op("abc", "abd"), delete_op("abc", "")],
        vec![nested(vec![p()], vec![p()])],
        vec![p(), delete_op("b", "c")],
        vec![delete_op("abd", "\0"), p()],
        vec![p(), delete_op("abz", "abc")],
    ];
    for operations in legal {
        kv.txn(then(operations.clone())).await.unwrap_or_else(|status| {
            panic!("{status} for {operations:?}");
        });
    }
    let before = kv.range(range("abc", "")).await.unwrap().into_inner().header.unwrap().revision;
    let doubled = [
        vec![p(), p()],
        vec![p(), delete_op("abc", "")],
        vec![delete_op("a", "b"), p()],
        vec![p(), delete_op("a", "\0")],
        vec![p(), nested(vec![p()], vec![])],
        vec![nested(vec![], vec![p()]), p()],
        vec![nested(vec![p()], vec![]), nested(vec![], vec![p()])],
        vec![nested(vec![nested(vec![p()], vec![])], vec![]), delete_op("abc", "")],
        vec![nested(vec![delete_op("a", "b")], vec![]), p()],
        vec![nested(vec![delete_op("a", "b")], vec![]), nested(vec![p()], vec![])],
    ];
    for operations in doubled {
        refused(kv.txn(then(operations.clone())).await, Code::InvalidArgument, DUPLICATE);
        let failure = pb::TxnRequest { failure: operations, ..pb::TxnRequest::default() };
        refused(kv.txn(failure).await, Code::InvalidArgument, DUPLICATE);
    }
    let after = kv.range(range("abc", "")).await.unwrap().into_inner().header.unwrap().revision;
    assert_eq!(before, after);
    node.stop().await;
}

#[tokio::test]
async fn malformed_transactions_are_refused_whole() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    let good = || put_op("good", "x");
    let empty = pb::RequestOp { request: None };
    let not_found = "etcdserver: key not found";
    refused(kv.txn(then(vec![good(), empty])).await, Code::InvalidArgument, not_found);
    refused(kv.txn(then(vec![good(), put_op("", "x")])).await, Code::InvalidArgument, NO_KEY);
    let no_key = compare("", CompareTarget::Version, None, CompareResult::Equal);
    let request = pb::TxnRequest { compare: vec![no_key], ..then(vec![good()]) };
    refused(kv.txn(request).await, Code::InvalidArgument, NO_KEY);
    let keep = pb::PutRequest { ignore_value: true, ..put("missing", "") };
    let keep = then(vec![good(), op(Request::RequestPut(keep))]);
    refused(kv.txn(keep).await, Code::InvalidArgument, not_found);

    let many = "etcdserver: too many operations in txn request";
    let reads = |count: usize| vec![range_op(range("good", "")); count];
    refused(kv.txn(then(reads(10_001))).await, Code::InvalidArgument, many);
    let mut around = reads(9_990);
    around.push(nested(reads(10), vec![]));
    refused(kv.txn(then(around)).await, Code::InvalidArgument, many);
    kv.txn(then(reads(10_000))).await.unwrap();
    let found = kv.range(range("good", "")).await.unwrap().into_inner();
    assert_eq!((found.count, found.header.unwrap().revision), (0, 1), "nothing was written");
    node.stop().await;
}
