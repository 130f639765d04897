//! Leases, which a mirror does without: at the end of a move, when clients are about to renew them at the
//! destination, each is granted there under its number and with its whole time, and its keys are put on it.
//!
//! What was taken already is taken again: it only gets its whole time anew. A lease of the destination's own that
//! has the same number is told by its keys: then nothing is taken of that one, and it is an error.

use bytes::Bytes;

use super::copying::BATCH_OPS;
use super::{Mirror, MirrorError, Places};
use crate::keyspace::{LeaseId, LeaseState, Op};

/// What was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    pub leases: u64,
    pub keys: u64,
}

fn put_on(lease: LeaseId, key: Bytes) -> Op {
    let (value, ignore_value, ignore_lease) = (Bytes::new(), true, false);
    Op::Put { key, value, lease, prev_kv: false, ignore_value, ignore_lease }
}

/// The keys of a lease as the destination has them.
fn mapped(state: &LeaseState, places: &Places) -> Vec<Bytes> {
    let place = |key: &Bytes| places.place_of(key).map(|place| place.key);
    state.keys.iter().filter_map(place).collect()
}

impl Mirror {
    /// Takes over the leases of the source that keys below its prefix are on; where the prefix is everything,
    /// also those without keys. Nobody should write to either side meanwhile.
    ///
    /// # Errors
    /// What a read, a grant or a put meets; a lease of the destination that has such a number already.
    pub async fn take_leases(&mut self) -> Result<Leases, MirrorError> {
        let mut taken = Leases::default();
        for id in self.source.leases().await? {
            let Some(state) = self.source.lease_time_to_live(id, true).await? else { continue };
            let keys = mapped(&state, &self.places);
            if keys.is_empty() && !self.places.source.is_empty() {
                continue;
            }
            self.grant(&state, &keys).await?;
            taken.leases += 1;
            for keys in keys.chunks(BATCH_OPS) {
                let ops = keys.iter().map(|key| put_on(id, key.clone())).collect();
                self.put(ops, self.record.clone()).await?;
                taken.keys += keys.len() as u64;
            }
        }
        Ok(taken)
    }

    async fn grant(&self, state: &LeaseState, keys: &[Bytes]) -> Result<(), MirrorError> {
        let id = state.id;
        match self.destination.lease_time_to_live(id, true).await? {
            Some(there) if there.keys.iter().all(|key| keys.contains(key)) => {
                self.destination.lease_keep_alive(id).await?;
            }
            Some(_) => return Err(MirrorError::LeaseTaken { lease: id }),
            None => {
                self.destination.lease_grant(id, state.granted_seconds).await?;
            }
        }
        Ok(())
    }
}
