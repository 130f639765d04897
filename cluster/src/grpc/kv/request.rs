//! etcd's requests: the checks that come before anything runs, in etcd's order and with its texts, and
//! the operations of the key space that they become.

use revfs_api::keyspace::{
    Compare, CompareResult, CompareTarget, KeyRange, LeaseId, Op, Revision, Txn,
};
use revfs_api::status;
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::compare::{
    CompareResult as PbResult, CompareTarget as PbTarget, TargetUnion,
};
use revfs_api::wire::etcdserverpb::request_op::Request;
use tonic::Status;

use super::range::range_read;

pub(super) fn check_key(key: &[u8]) -> Result<(), Status> {
    if key.is_empty() {
        return Err(Status::invalid_argument(status::KEY_NOT_PROVIDED));
    }
    Ok(())
}

pub(super) fn check_put(request: &pb::PutRequest) -> Result<(), Status> {
    check_key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Status::invalid_argument(status::VALUE_PROVIDED));
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Status::invalid_argument(status::LEASE_PROVIDED));
    }
    Ok(())
}

/// Keys, operations and counts of a transaction that may have `room` of them in a list. A nested one has
/// the room that the longest list around it leaves.
pub(super) fn check_txn(request: &pb::TxnRequest, room: usize) -> Result<(), Status> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(left) = room.checked_sub(longest) else {
        return Err(Status::invalid_argument(status::TOO_MANY_OPERATIONS));
    };
    for compare in &request.compare {
        check_key(&compare.key)?;
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestRange(range)) => range_read(range.clone()).map(drop)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_key(&delete.key)?,
            Some(Request::RequestTxn(txn)) => check_txn(txn, left)?,
            None => return Err(Status::invalid_argument(status::KEY_NOT_FOUND)),
        }
    }
    Ok(())
}

pub(super) fn put(request: pb::PutRequest) -> Op {
    Op::Put {
        key: request.key,
        value: request.value,
        lease: LeaseId(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub(super) fn delete(request: pb::DeleteRangeRequest) -> Op {
    Op::Delete {
        range: KeyRange::of_interval(request.key, request.range_end),
        prev_kv: request.prev_kv,
    }
}

/// The request has been checked.
pub(super) fn txn(request: pb::TxnRequest) -> Result<Txn, Status> {
    Ok(Txn {
        compares: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: operations(request.success)?,
        failure: operations(request.failure)?,
    })
}

fn operations(requests: Vec<pb::RequestOp>) -> Result<Vec<Op>, Status> {
    let operation = |request: pb::RequestOp| {
        Ok(match request.request {
            Some(Request::RequestPut(request)) => put(request),
            Some(Request::RequestDeleteRange(request)) => delete(request),
            Some(Request::RequestRange(request)) => Op::Range(range_read(request)?),
            Some(Request::RequestTxn(request)) => Op::Txn(txn(request)?),
            None => return Err(Status::invalid_argument(status::KEY_NOT_FOUND)),
        })
    };
    requests.into_iter().map(operation).collect()
}

fn compare(compare: pb::Compare) -> Result<Compare, Status> {
    let unknown = |what: &str| Status::invalid_argument(format!("unknown compare {what}"));
    let target = PbTarget::try_from(compare.target).map_err(|_| unknown("target"))?;
    let result = match PbResult::try_from(compare.result).map_err(|_| unknown("result"))? {
        PbResult::Equal => CompareResult::Equal,
        PbResult::NotEqual => CompareResult::NotEqual,
        PbResult::Less => CompareResult::Less,
        PbResult::Greater => CompareResult::Greater,
    };
    let (target, result) = compare_target(target, compare.target_union, result);
    Ok(Compare { range: KeyRange::of_interval(compare.key, compare.range_end), target, result })
}

/// A number that is missing or of another target is 0, a value is empty.
fn compare_target(
    target: PbTarget,
    with: Option<TargetUnion>,
    result: CompareResult,
) -> (CompareTarget, CompareResult) {
    match target {
        PbTarget::Version => {
            let Some(TargetUnion::Version(number)) = with else {
                return (CompareTarget::Version(0), result);
            };
            let (number, result) = unsigned(number, result);
            (CompareTarget::Version(number), result)
        }
        PbTarget::Create => {
            let Some(TargetUnion::CreateRevision(number)) = with else {
                return (CompareTarget::CreateRevision(Revision::NONE), result);
            };
            let (number, result) = unsigned(number, result);
            (CompareTarget::CreateRevision(Revision(number)), result)
        }
        PbTarget::Mod => {
            let Some(TargetUnion::ModRevision(number)) = with else {
                return (CompareTarget::ModRevision(Revision::NONE), result);
            };
            let (number, result) = unsigned(number, result);
            (CompareTarget::ModRevision(Revision(number)), result)
        }
        PbTarget::Value => match with {
            Some(TargetUnion::Value(value)) => (CompareTarget::Value(value), result),
            _ => (CompareTarget::Value(bytes::Bytes::new()), result),
        },
        PbTarget::Lease => match with {
            Some(TargetUnion::Lease(lease)) => (CompareTarget::Lease(LeaseId(lease)), result),
            _ => (CompareTarget::Lease(LeaseId(0)), result),
        },
    }
}

/// A comparison with a negative number, said in numbers that are not: no key's number is negative, and
/// none is `u64::MAX`.
fn unsigned(number: i64, result: CompareResult) -> (u64, CompareResult) {
    if let Ok(number) = u64::try_from(number) {
        return (number, result);
    }
    match result {
        CompareResult::Equal | CompareResult::Less => (u64::MAX, CompareResult::Equal),
        CompareResult::NotEqual | CompareResult::Greater => (u64::MAX, CompareResult::NotEqual),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(number: u64, result: CompareResult, with: u64) -> bool {
        match result {
            CompareResult::Equal => number == with,
            CompareResult::NotEqual => number != with,
            CompareResult::Less => number < with,
            CompareResult::Greater => number > with,
        }
    }

    #[test]
    fn a_comparison_with_a_negative_number_keeps_its_meaning() {
        let results = [
            (CompareResult::Equal, false),
            (CompareResult::NotEqual, true),
            (CompareResult::Less, false),
            (CompareResult::Greater, true),
        ];
        for (result, expected) in results {
            let (with, said) = unsigned(-1, result);
            for number in [0, 1, i64::MAX.unsigned_abs()] {
                assert_eq!(holds(number, said, with), expected, "{number} {result:?} -1");
            }
            assert_eq!(unsigned(7, result), (7, result));
        }
    }
}
