//! What lies below the source's prefix, before anything is written: how much it is, and what the destination
//! does not take.

use std::sync::Arc;

use bytes::Bytes;

use super::copying::Side;
use super::{MirrorError, Places};
use crate::KeySpace;
use crate::keyspace::{KEY_BYTES_MAX, LeaseId, Read, Revision, escaped_bytes};

/// So many long keys are named; the rest is counted.
const LONG_KEYS_NAMED: usize = 1_000;

/// Keys between two calls of who is told how far it is.
const TOLD_EVERY: u64 = 1_000;

/// A key of the source whose name at the destination is longer than a key may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongKey {
    /// As the destination would have it.
    pub key: Bytes,
    /// After escaping.
    pub bytes: usize,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    pub revision: Revision,
    pub keys: u64,
    /// Of them so many are on a lease.
    pub leased_keys: u64,
    /// The first ones by name.
    pub long_keys: Vec<LongKey>,
    pub long_keys_count: u64,
}

/// Looks at every key of the source, without its value, at one revision.
///
/// # Errors
/// What a read meets; a revision that is compacted meanwhile.
pub async fn survey(
    source: &Arc<dyn KeySpace>,
    places: &Places,
    on_keys: &mut (dyn FnMut(u64) + Send),
) -> Result<Survey, MirrorError> {
    let revision = source.read(Revision::NONE, Vec::<Read>::new()).await?.current;
    let places = Places { leaves_out_long: false, ..places.clone() };
    let mut side = Side::source(Arc::clone(source), places, revision).without_values();
    let mut survey = Survey { revision, ..Survey::default() };
    while let Some((place, kv)) = side.next().await? {
        survey.keys += 1;
        survey.leased_keys += u64::from(kv.lease != LeaseId::default());
        let bytes = escaped_bytes(&place.key);
        if bytes > KEY_BYTES_MAX {
            survey.long_keys_count += 1;
            if survey.long_keys.len() < LONG_KEYS_NAMED {
                survey.long_keys.push(LongKey { key: place.key, bytes });
            }
        }
        if survey.keys.is_multiple_of(TOLD_EVERY) {
            on_keys(survey.keys);
        }
    }
    Ok(survey)
}
