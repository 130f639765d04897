//! Leases, wherever their clock runs: the leader is asked, whoever it is. Every question may be repeated.

use std::time::{Duration, Instant};

use revfs_api::keyspace::{Error, LeaseState, Result};
use revfs_api::wire::peer::lease_request::Ask;
use revfs_api::wire::peer::{AllLeases, LeaseRequest, LeaseResponse};
use revfs_store::Need;
use revfs_store::types::LeaseId;

use super::LeaseClock;
use crate::auth::Caller;
use crate::convert;

/// Pause before a leader is looked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

impl LeaseClock {
    /// Renews a lease; its whole time, or `None` if there is no such lease (any more).
    pub(crate) async fn keep_alive(&self, id: LeaseId) -> Result<Option<i64>> {
        let here = || self.keep_alive_here(id);
        let there = |answer: LeaseResponse| answer.is_found.then_some(answer.granted_seconds);
        self.ask(Ask::KeepAlive(id.0), here, there).await
    }

    /// What is left of a lease and, if wanted, its keys; `None` if there is no such lease.
    pub(crate) async fn time_to_live(
        &self,
        caller: &Caller,
        id: LeaseId,
        with_keys: bool,
    ) -> Result<Option<LeaseState>> {
        let here = || self.left_here(id);
        let there = |answer: LeaseResponse| {
            answer.is_found.then_some((answer.granted_seconds, answer.remaining_seconds))
        };
        let left = self.ask(Ask::TimeToLive(id.0), here, there).await?;
        let Some((granted_seconds, remaining_seconds)) = left else { return Ok(None) };
        let mut keys = Vec::new();
        if with_keys {
            let view = self.proposer.store.read_view().map_err(convert::store_error)?;
            caller.authorise(&view, Need::ReadLease(id)).map_err(convert::read_error)?;
            keys = view.lease_keys(id).map_err(convert::store_error)?;
        }
        let id = convert::lease_to_api(id);
        Ok(Some(LeaseState { id, granted_seconds, remaining_seconds, keys }))
    }

    /// All leases, those that end first before the others.
    pub(crate) async fn all(&self) -> Result<Vec<LeaseId>> {
        let there = |answer: LeaseResponse| answer.leases.into_iter().map(LeaseId).collect();
        self.ask(Ask::All(AllLeases {}), || self.all_here(), there).await
    }

    /// Asks the leader until it answers, within the deadline of a change.
    async fn ask<T, F: Future<Output = Result<T>>>(
        &self,
        ask: Ask,
        here: impl Fn() -> F,
        there: impl Fn(LeaseResponse) -> T,
    ) -> Result<T> {
        let deadline = Instant::now() + self.proposer.timeout;
        loop {
            let answer = match self.proposer.leader_elsewhere() {
                None => here().await,
                Some(link) => {
                    let asked = async {
                        let mut client = link.client().await?;
                        let answer = client.lease(LeaseRequest { ask: Some(ask) }).await;
                        answer.map_err(|status| link.failed(status))
                    };
                    match tokio::time::timeout_at(deadline.into(), asked).await {
                        Ok(Ok(answer)) => Ok(there(answer.into_inner())),
                        Ok(Err(error)) => Err(Error::NoQuorum { reason: error.to_string() }),
                        Err(_) => Err(Error::Timeout(self.proposer.timeout)),
                    }
                }
            };
            match answer {
                Err(Error::NoQuorum { .. }) if Instant::now() + RETRY_PAUSE < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }
}
