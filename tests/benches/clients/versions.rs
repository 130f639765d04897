//! Ranges of keys with many versions, at a revision in the middle of them.
//!
//! All keys are put in the order of their numbers, a transaction for each hundred, and then again and again: the
//! revision at which all of them have so many versions follows from that of the first time.

use std::time::Duration;

use bytes::Bytes;
use revfs_api::wire::etcdserverpb::{RangeRequest, TxnRequest};

use crate::load::{Done, Load, Outcome, VALUE_BYTES, put, put_op};
use crate::unread;
use crate::workloads::MANY;

const KEYS: usize = 1_000;
const KEYS_OF_TXN: usize = 100;
const VERSIONS: usize = 100;

fn key(number: usize) -> Bytes {
    format!("/bench/versions/key-{number:010}").into()
}

pub(crate) async fn fill(load: &Load) -> Outcome<()> {
    let mut kv = load.kv(0);
    for version in 0..VERSIONS {
        for from in (0..KEYS).step_by(KEYS_OF_TXN) {
            let numbers = from..from + KEYS_OF_TXN;
            let puts = numbers.map(|number| put_op(put(key(number), version)));
            kv.txn(TxnRequest { success: puts.collect(), ..TxnRequest::default() }).await?;
        }
    }
    Ok(())
}

pub(crate) async fn ranges(load: &Load, length: Duration) -> Outcome<Done> {
    let last = RangeRequest { key: key(KEYS - 1), ..RangeRequest::default() };
    let last = load.kv(0).range(last).await?.into_inner();
    let last = last.kvs.first().ok_or("there are no keys with many versions")?;
    let later = (VERSIONS / 2 - 1) * (KEYS / KEYS_OF_TXN);
    let revision = last.create_revision + i64::try_from(later)?;
    load.repeat(MANY, length, move |load, client, _| async move {
        let request =
            RangeRequest { key: key(0), range_end: key(KEYS), revision, ..Default::default() };
        let bytes = unread::range(&load, client, request).await?;
        let least = KEYS * (VALUE_BYTES + key(0).len());
        if bytes > least { Ok(()) } else { Err("keys are missing".into()) }
    })
    .await
}
