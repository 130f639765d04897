//! Whether two answers are the same, but for what names the member that gave them.

use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::ResponseHeader;
use revfs_api::wire::etcdserverpb::{request_op, response_op};
use revfs_api::wire::mvccpb::KeyValue;
use tonic::Status;

use super::Answer;
use super::requests::Request;

pub(super) fn check(
    request: &Request,
    expected: &Result<Answer, Status>,
    found: &Result<Answer, Status>,
) {
    match (expected, found) {
        (Ok(expected), Ok(found)) => {
            assert_eq!(revision(found), revision(expected), "revision after {request:?}");
            let same = match (request, expected, found) {
                (Request::Range(asked), Answer::Range(expected), Answer::Range(found)) => {
                    same_range(asked, expected, found)
                }
                (Request::Txn(asked), Answer::Txn(expected), Answer::Txn(found)) => {
                    same_txn(asked, expected, found)
                }
                _ => bare(expected) == bare(found),
            };
            assert!(same, "{request:?}\netcd {expected:?}\nnode {found:?}");
        }
        (Err(expected), Err(found)) => {
            let say = |status: &Status| (status.code(), status.message().to_owned());
            assert_eq!(say(found), say(expected), "{request:?}");
        }
        _ => panic!("{request:?}\netcd {expected:?}\nnode {found:?}"),
    }
}

/// The revision in the header of an answer.
pub(super) fn revision(answer: &Answer) -> i64 {
    let header = match answer {
        Answer::Put(put) => &put.header,
        Answer::Delete(delete) => &delete.header,
        Answer::Range(range) => &range.header,
        Answer::Txn(txn) => &txn.header,
        Answer::Compact(compact) => &compact.header,
        Answer::Hash(hash) => &hash.header,
        Answer::Grant(grant) => &grant.header,
        Answer::Revoke(revoke) => &revoke.header,
        Answer::LeaseKeys(keys) => &keys.header,
        Answer::Leases(leases) => &leases.header,
    };
    header.as_ref().expect("every answer has a header").revision
}

/// Without the header, whose revision was compared, and without what etcd 3.4 does not know.
fn bare(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    match &mut answer {
        Answer::Put(put) => put.header = None,
        Answer::Delete(delete) => delete.header = None,
        Answer::Range(range) => range.header = None,
        Answer::Txn(txn) => txn.header = None,
        Answer::Compact(compact) => compact.header = None,
        Answer::Grant(grant) => grant.header = None,
        Answer::Revoke(revoke) => revoke.header = None,
        Answer::LeaseKeys(keys) => {
            keys.header = None;
            // What is left differs by the time between the two answers.
            keys.ttl = keys.ttl.signum();
            keys.keys.sort();
        }
        Answer::Leases(leases) => {
            leases.header = None;
            leases.leases.sort_by_key(|lease| lease.id);
        }
        Answer::Hash(hash) => (hash.header, hash.hash_revision) = (None, 0),
    }
    answer
}

/// etcd's sort is not stable: among keys that are equal in what they are sorted by any order will do,
/// and where the limit cuts such a group any of it may be in the answer.
fn same_range(
    asked: &pb::RangeRequest,
    expected: &pb::RangeResponse,
    found: &pb::RangeResponse,
) -> bool {
    if (found.count, found.more, found.kvs.len())
        != (expected.count, expected.more, expected.kvs.len())
    {
        return false;
    }
    // Without values nobody can tell what was equal in its value.
    if asked.sort_target == i32::from(pb::range_request::SortTarget::Value) && asked.keys_only {
        return found.more || by_key(&found.kvs) == by_key(&expected.kvs);
    }
    let rank = |kv: &KeyValue| match asked.sort_target() {
        pb::range_request::SortTarget::Key => (0, kv.key.clone()),
        pb::range_request::SortTarget::Version => (kv.version, Default::default()),
        pb::range_request::SortTarget::Create => (kv.create_revision, Default::default()),
        pb::range_request::SortTarget::Mod => (kv.mod_revision, Default::default()),
        pb::range_request::SortTarget::Value => (0, kv.value.clone()),
    };
    let ranks = |kvs: &[KeyValue]| kvs.iter().map(rank).collect::<Vec<_>>();
    let last = found.kvs.last().map(rank);
    let sure = |kvs: &[KeyValue]| -> Vec<KeyValue> {
        let is_sure = |kv: &&KeyValue| !found.more || Some(rank(kv)) != last;
        by_key(&kvs.iter().filter(is_sure).cloned().collect::<Vec<_>>())
    };
    ranks(&found.kvs) == ranks(&expected.kvs) && sure(&found.kvs) == sure(&expected.kvs)
}

fn by_key(kvs: &[KeyValue]) -> Vec<KeyValue> {
    let mut kvs = kvs.to_vec();
    kvs.sort_by(|one, other| one.key.cmp(&other.key));
    kvs
}

fn same_txn(asked: &pb::TxnRequest, expected: &pb::TxnResponse, found: &pb::TxnResponse) -> bool {
    let asked = if found.succeeded { &asked.success } else { &asked.failure };
    let of = |txn: &pb::TxnResponse| (txn.succeeded, txn.responses.len());
    of(found) == of(expected)
        && asked
            .iter()
            .zip(expected.responses.iter().zip(&found.responses))
            .all(|(asked, (expected, found))| same_operation(asked, expected, found))
}

fn same_operation(
    asked: &pb::RequestOp,
    expected: &pb::ResponseOp,
    found: &pb::ResponseOp,
) -> bool {
    use response_op::Response;
    match (&asked.request, &expected.response, &found.response) {
        (
            Some(request_op::Request::RequestRange(asked)),
            Some(Response::ResponseRange(expected)),
            Some(Response::ResponseRange(found)),
        ) => same_header(&expected.header, &found.header) && same_range(asked, expected, found),
        (
            Some(request_op::Request::RequestTxn(asked)),
            Some(Response::ResponseTxn(expected)),
            Some(Response::ResponseTxn(found)),
        ) => same_header(&expected.header, &found.header) && same_txn(asked, expected, found),
        (_, expected, found) => expected == found,
    }
}

fn same_header(expected: &Option<ResponseHeader>, found: &Option<ResponseHeader>) -> bool {
    expected == found
}
