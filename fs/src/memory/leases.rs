//! Leases: granted, attached to keys, and ended by whoever revokes them. Time ends none.

use bytes::Bytes;
use revfs_api::keyspace::{Error, KeyRange, LeaseId, Origin, Result, Time};

use super::state::{Changes, State};

impl State {
    pub(super) fn grant(&mut self, id: LeaseId, ttl_seconds: i64) -> Result<LeaseId> {
        let id = match id {
            LeaseId(0) => {
                self.last_lease += 1;
                LeaseId(self.last_lease)
            }
            own if self.leases.contains_key(&own) => {
                return Err(Error::Invalid("lease already exists".to_owned()));
            }
            own => own,
        };
        // Numbers come back no more than a cluster's random ones do.
        self.last_lease = self.last_lease.max(id.0);
        self.leases.insert(id, ttl_seconds);
        Ok(id)
    }

    pub(super) fn lease(&self, id: LeaseId) -> Option<i64> {
        self.leases.get(&id).copied()
    }

    pub(super) fn leases(&self) -> Vec<LeaseId> {
        self.leases.keys().copied().collect()
    }

    pub(super) fn lease_keys(&self, id: LeaseId) -> Vec<Bytes> {
        let all = KeyRange::From(Bytes::new());
        let own = self.range(&all, self.current()).filter(|kv| kv.lease == id);
        own.map(|kv| kv.key.clone()).collect()
    }

    /// Deletes the keys of the lease, sorted, as one revision if there are any.
    pub(super) fn revoke(&mut self, id: LeaseId, clock: Time) -> Result<()> {
        if self.leases.remove(&id).is_none() {
            return Err(Error::Invalid("requested lease not found".to_owned()));
        }
        let keys = self.lease_keys(id);
        if !keys.is_empty() {
            let keys = keys.into_iter().map(|key| (key, None)).collect();
            let changes = Changes { keys, ..Changes::default() };
            self.commit(changes, clock, Origin::default());
        }
        Ok(())
    }
}
