//! A transaction may change a key once. etcd's rule: no two puts of a key and no put inside a deleted
//! interval, at any depth; the two branches of one transaction exclude each other and may put the same.
//! Deletions may overlap.

use std::collections::BTreeSet;

use bytes::Bytes;
use revfs_api::keyspace::KeyRange;
use revfs_api::status;
use revfs_api::wire::etcdserverpb::request_op::Request;
use revfs_api::wire::etcdserverpb::{RequestOp, TxnRequest};
use tonic::Status;

/// What a branch changes.
#[derive(Default)]
struct Changes {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

pub(super) fn check_duplicates(request: &TxnRequest) -> Result<(), Status> {
    changes(&request.success)?;
    changes(&request.failure)?;
    Ok(())
}

fn changes(operations: &[RequestOp]) -> Result<Changes, Status> {
    let mut all = Changes::default();
    for operation in operations {
        if let Some(Request::RequestDeleteRange(delete)) = &operation.request {
            all.deletes.push(KeyRange::of_interval(delete.key.clone(), delete.range_end.clone()));
        }
    }
    for operation in operations {
        let Some(Request::RequestTxn(txn)) = &operation.request else { continue };
        let success = changes(&txn.success)?;
        let failure = changes(&txn.failure)?;
        for key in success.puts.iter().chain(&failure.puts) {
            all.check_put(key)?;
        }
        all.puts.extend(success.puts);
        all.puts.extend(failure.puts);
        all.deletes.extend(success.deletes);
        all.deletes.extend(failure.deletes);
    }
    for operation in operations {
        let Some(Request::RequestPut(put)) = &operation.request else { continue };
        all.check_put(&put.key)?;
        all.puts.insert(put.key.clone());
    }
    Ok(all)
}

impl Changes {
    fn check_put(&self, key: &[u8]) -> Result<(), Status> {
        if self.puts.contains(key) || self.deletes.iter().any(|range| range.contains(key)) {
            return Err(Status::invalid_argument(status::DUPLICATE_KEY));
        }
        Ok(())
    }
}
