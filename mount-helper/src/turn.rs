//! A place in a line: how etcd's clients lock and elect.
//!
//! Who wants NAME puts a key NAME/LEASE that hangs on a lease of its own. Whose key was created first
//! has the turn; each of the others waits until the key that was created just before its own is gone.
//! `etcdctl lock` and `elect`, and the services Lock and Election, stand in the same line.

use std::time::Duration;

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Answer, Compare, KeyRange, KeyValue, LeaseId, Op, Read, Revision, Txn};
use revfs_api::line;
use tokio::time::Instant;

use crate::error::{Asked as _, Failure, Kind, Result};
use crate::origin::origin;
use crate::output::readable;

pub(crate) struct Turn {
    pub(crate) key: Bytes,
    /// When the key was created: greater for each who has the turn later.
    pub(crate) revision: Revision,
    line: KeyRange,
}

impl Turn {
    /// Goes to the end of the line.
    pub(crate) async fn enter(
        keys: &dyn KeySpace,
        name: &[u8],
        value: &Bytes,
        lease: LeaseId,
    ) -> Result<Self> {
        let digits = crate::lease_id::shown(lease);
        let key = Bytes::from([name, b"/", digits.as_bytes()].concat());
        let put = Op::put_on(lease, key.clone(), value.clone());
        let compares = vec![Compare::absent(KeyRange::Key(key.clone()))];
        let txn = Txn { compares, success: vec![put], failure: Vec::new() };
        let answer = keys.txn(txn, origin()).await;
        let answer = answer.asked(|| format!("wait in line for {}", readable(name)))?;
        if !answer.succeeded {
            let message = format!("{} is there already", readable(&key));
            return Err(Failure::conflict(message).hint("try again: a lease is new each time"));
        }
        Ok(Self { key, revision: answer.revision, line: line::of(name) })
    }

    /// Waits for the turn, at most for `patience`; whether it came.
    pub(crate) async fn wait(
        &self,
        keys: &dyn KeySpace,
        patience: Option<Duration>,
    ) -> Result<bool> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            let Some((before, view)) = self.before(keys).await? else { return Ok(true) };
            let left = line::left(keys, before.clone(), view);
            let left = match deadline {
                None => left.await,
                Some(deadline) => match tokio::time::timeout_at(deadline, left).await {
                    Ok(left) => left,
                    Err(_) => return Ok(false),
                },
            };
            left.asked(|| format!("watch {}", readable(&before)))?;
        }
    }

    /// The key just before, and the revision at which it was seen.
    async fn before(&self, keys: &dyn KeySpace) -> Result<Option<(Bytes, Revision)>> {
        let before = line::before(self.line.clone(), self.revision);
        let reads = vec![Read::Range(before), Read::key(self.key.clone())];
        let answer = keys.read(Revision::NONE, reads).await;
        let answer = answer.asked(|| format!("look who is before {}", readable(&self.key)))?;
        let mut first = answer.answers.into_iter().map(|answer| match answer {
            Answer::Range(range) => range.kvs.into_iter().next(),
            Answer::List(_) | Answer::Directory(_) => None,
        });
        let (before, own) = (first.next().flatten(), first.next().flatten());
        if own.is_none_or(|own| own.create_revision != self.revision) {
            let message = format!("{} was deleted: the place in line is lost", readable(&self.key));
            return Err(Failure::new(Kind::Conflict, message).hint("run the command again"));
        }
        Ok(before.map(|kv| (kv.key, answer.current)))
    }
}

/// Whose turn it is now, and the revision at which that was so.
pub(crate) async fn holder(
    keys: &dyn KeySpace,
    name: &[u8],
) -> Result<(Option<KeyValue>, Revision)> {
    let first = Read::Range(line::first(line::of(name)));
    let answer = keys.read(Revision::NONE, vec![first]).await;
    let answer = answer.asked(|| format!("look who leads {}", readable(name)))?;
    let first = answer.answers.into_iter().next();
    let kv = match first {
        Some(Answer::Range(range)) => range.kvs.into_iter().next(),
        _ => None,
    };
    Ok((kv, answer.current))
}
