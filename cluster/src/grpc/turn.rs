//! Turns, as etcd's locks and elections take them: who wants something puts a key of its own, with its
//! lease, under a prefix; whose key is the oldest has it, and the others wait until all older keys are
//! gone.
//!
//! Everything is done with the key space of who asks. A key goes with its lease; one that was put for a
//! request which nobody waits for any more is deleted.

use std::sync::Arc;

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{
    Answer, Compare, Error, KeyRange, KeyValue, LeaseId, Op, OpAnswer, Origin, RangeRead, Read,
    Result, Revision, Txn, TxnAnswer,
};
use revfs_api::line;

/// The lease that the server grants to who has none.
const LEASE_SECONDS: i64 = 60;

/// One range, and the present revision.
pub(super) async fn read(
    keys: &dyn KeySpace,
    read: RangeRead,
) -> Result<(Option<KeyValue>, Revision)> {
    let answer = keys.read(Revision::NONE, vec![Read::Range(read)]).await?;
    match answer.answers.into_iter().next() {
        Some(Answer::Range(range)) => Ok((range.kvs.into_iter().next(), answer.current)),
        _ => Err(misfit()),
    }
}

fn misfit() -> Error {
    let reason = "the key space gave an answer of another kind than was asked for".to_owned();
    Error::OutcomeUnknown { reason }
}

/// The lease to use: the given one, or a new one.
pub(super) async fn lease(keys: &dyn KeySpace, lease: i64) -> Result<LeaseId> {
    if lease != 0 {
        return Ok(LeaseId(lease));
    }
    Ok(keys.lease_grant(LeaseId(0), LEASE_SECONDS).await?.0)
}

/// A place among those who want something.
pub(super) struct Turn {
    keys: Arc<dyn KeySpace>,
    line: KeyRange,
    pub(super) key: Bytes,
    /// When the key was created.
    pub(super) revision: Revision,
    pub(super) lease: LeaseId,
    /// Of the transaction that took the place.
    pub(super) entered: Revision,
    /// What the key says, if it was there before.
    pub(super) before: Option<Bytes>,
    /// Nobody was there before.
    is_first: bool,
    /// The key goes when this does.
    is_to_go: bool,
}

impl Turn {
    /// Takes a place, or the one that the lease has already.
    pub(super) async fn enter(
        keys: Arc<dyn KeySpace>,
        name: &[u8],
        lease: LeaseId,
        value: Bytes,
    ) -> Result<Self> {
        let line = line::of(name);
        let key: Bytes = [name, b"/", hexadecimal(lease).as_bytes()].concat().into();
        let put = Op::put_on(lease, key.clone(), value);
        let first = Op::Range(line::first(line.clone()));
        let own = Op::Range(RangeRead::new(KeyRange::Key(key.clone())));
        let txn = Txn {
            compares: vec![Compare::absent(KeyRange::Key(key.clone()))],
            success: vec![put, first.clone()],
            failure: vec![own, first],
        };
        let TxnAnswer { succeeded, revision: entered, answers, .. } =
            keys.txn(txn, Origin::default()).await?;
        let mut found = answers.into_iter().map(|answer| match answer {
            OpAnswer::Range(range) => range.kvs.into_iter().next(),
            _ => None,
        });
        let (own, first) = (found.next().flatten(), found.next().flatten());
        let revision = own.as_ref().map_or(entered, |own| own.create_revision);
        let is_first = first.is_none_or(|first| first.create_revision == revision);
        let before = own.map(|own| own.value);
        let is_to_go = succeeded;
        Ok(Self { keys, line, key, revision, lease, entered, before, is_first, is_to_go })
    }

    /// Waits until all older keys are gone; the present revision then. Whether the own key still exists
    /// is another question.
    pub(super) async fn wait(&self) -> Result<Revision> {
        if self.is_first {
            return Ok(self.entered);
        }
        let just_before = line::before(self.line.clone(), self.revision);
        loop {
            let (before, current) = read(self.keys.as_ref(), just_before.clone()).await?;
            let Some(before) = before else { return Ok(current) };
            line::left(self.keys.as_ref(), before.key, current).await?;
        }
    }

    /// Whether it had not to wait.
    pub(super) fn was_first(&self) -> bool {
        self.is_first
    }

    /// The present revision, if the own key still exists.
    pub(super) async fn confirm(&self) -> Result<Option<Revision>> {
        let own = RangeRead::new(KeyRange::Key(self.key.clone()));
        let (own, current) = read(self.keys.as_ref(), own).await?;
        Ok(own.filter(|own| own.create_revision == self.revision).map(|_| current))
    }

    /// The key stays.
    pub(super) fn keep(mut self) {
        self.is_to_go = false;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_to_go {
            return;
        }
        let (keys, key, revision) = (Arc::clone(&self.keys), self.key.clone(), self.revision);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // Without it the place is free when the lease ends.
                if let Err(error) =
                    guarded(keys.as_ref(), &key, revision, Op::delete(key.clone())).await
                {
                    tracing::debug!(%error, "a place that nobody waits in any more stays");
                }
            });
        }
    }
}

/// Runs an operation if the key is still the one created at `revision`; the revision after it.
pub(super) async fn guarded(
    keys: &dyn KeySpace,
    key: &Bytes,
    revision: Revision,
    operation: Op,
) -> Result<(bool, Revision)> {
    let compare = Compare::create_revision(key.clone(), revision);
    let txn = Txn { compares: vec![compare], success: vec![operation], ..Txn::default() };
    let answer = keys.txn(txn, Origin::default()).await?;
    Ok((answer.succeeded, answer.revision))
}

/// As Go prints an int64.
fn hexadecimal(lease: LeaseId) -> String {
    let sign = if lease.0 < 0 { "-" } else { "" };
    format!("{sign}{:x}", lease.0.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use revfs_api::keyspace::LeaseId;

    use super::hexadecimal;

    #[test]
    fn keys_are_named_by_the_lease_in_etcds_hexadecimal() {
        assert_eq!(hexadecimal(LeaseId(0x1f)), "1f");
        assert_eq!(hexadecimal(LeaseId(-0x1f)), "-1f");
        assert_eq!(hexadecimal(LeaseId(i64::MIN)), "-8000000000000000");
    }
}
