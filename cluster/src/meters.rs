//! What a node counts as it works, for those who look at `/metrics`. How things stand now (sizes, revisions,
//! who leads) is not counted: it is asked of the parts themselves.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use revfs_store::types::OpAnswer;
use revfs_store::{Body, Done, Outcome};

/// An entry that takes longer than this to apply holds up those behind it noticeably. etcd's bound.
const SLOW_APPLY: Duration = Duration::from_millis(100);

/// Each counter only grows.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    pub(crate) puts: Counter,
    pub(crate) deletes: Counter,
    pub(crate) ranges: Counter,
    /// Transactions of more than one operation.
    pub(crate) txns: Counter,
    pub(crate) slow_applies: Counter,
    pub(crate) proposals_failed: Counter,
    pub(crate) proposals_pending: Gauge,
    pub(crate) leases_granted: Counter,
    pub(crate) leases_revoked: Counter,
    pub(crate) leases_expired: Counter,
    pub(crate) leases_renewed: Counter,
    pub(crate) watch_streams: Gauge,
    /// Of etcd's clients.
    pub(crate) watches: Gauge,
    pub(crate) watch_events: Counter,
    pub(crate) leader_changes: Counter,
    /// Questions for the index that linearizable reads wait for.
    pub(crate) read_indexes_failed: Counter,
    pub(crate) read_indexes_slow: Counter,
}

/// One that counts as long as it lives.
#[derive(Debug)]
#[must_use = "it counts as long as it is held"]
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Meters {
    /// A change whose outcome is waited for.
    pub(crate) fn pending(&self) -> Counted {
        Counted::new(&self.proposals_pending)
    }

    pub(crate) fn watch_stream(&self) -> Counted {
        Counted::new(&self.watch_streams)
    }

    pub(crate) fn watch(&self) -> Counted {
        Counted::new(&self.watches)
    }

    /// Takes note of what an entry did, on every member.
    pub(crate) fn applied(&self, body: &Body, outcome: &Outcome, took: Duration) {
        if took > SLOW_APPLY {
            self.slow_applies.inc();
        }
        match &outcome.result {
            Ok(Done::Txn(answer)) => self.operations(&answer.answers),
            Ok(Done::LeaseGranted { .. }) => {
                self.leases_granted.inc();
            }
            Ok(Done::LeaseRevoked { .. }) => match body {
                Body::LeaseExpire { .. } => {
                    self.leases_expired.inc();
                }
                _ => {
                    self.leases_revoked.inc();
                }
            },
            Ok(_) | Err(_) => {}
        }
    }

    fn operations(&self, answers: &[OpAnswer]) {
        if answers.len() > 1 {
            self.txns.inc();
        }
        for answer in answers {
            match answer {
                OpAnswer::Put { .. } | OpAnswer::Append { .. } => {
                    self.puts.inc();
                }
                OpAnswer::Delete { .. } => {
                    self.deletes.inc();
                }
                OpAnswer::Range(_) => {
                    self.ranges.inc();
                }
                OpAnswer::Txn(inner) => self.operations(&inner.answers),
                // etcd has none of these: they are of many keys, whose number is their own.
                OpAnswer::Move { .. } | OpAnswer::Restore { .. } => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use revfs_store::types::{Revision, TxnAnswer};

    use super::*;

    fn txn(answers: Vec<OpAnswer>) -> TxnAnswer {
        TxnAnswer { succeeded: true, revision: Revision(2), changed: true, answers }
    }

    #[test]
    fn operations_are_counted_at_every_depth() {
        let put = || OpAnswer::Put { prev_kv: None };
        let delete = OpAnswer::Delete { deleted: 7, prev_kvs: Vec::new() };
        let inner = OpAnswer::Txn(txn(vec![put(), delete]));
        let result = Ok(Done::Txn(txn(vec![put(), inner])));
        let outcome = Outcome { revision: Revision(2), result };
        let meters = Meters::default();
        let body = Body::Compact { revision: Revision(1) };
        meters.applied(&body, &outcome, SLOW_APPLY);
        meters.applied(&body, &outcome, SLOW_APPLY * 2);
        let counts = [&meters.puts, &meters.deletes, &meters.txns, &meters.slow_applies];
        assert_eq!(counts.map(Counter::get), [4, 2, 4, 1]);
    }

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let meters = Meters::default();
        let (one, two) = (meters.pending(), meters.pending());
        assert_eq!(meters.proposals_pending.get(), 2);
        drop((one, two));
        assert_eq!(meters.proposals_pending.get(), 0);
    }
}
