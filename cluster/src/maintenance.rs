//! What services ask of the node itself, for which a key space has no words: parts of a range, alarms,
//! members, and the state of the store as a whole.

use std::sync::Arc;
use std::time::Duration;

use revfs_api::keyspace::{Error, Origin, Result};
use revfs_store::types::{KeyRange, RangeQuery, Revision};
use revfs_store::{Alarm, Body, Done, Need, RangePart, Store};

use crate::convert;
use crate::local::Local;

/// The physical part of a compaction is waited for so long.
const COMPACTION_TIMEOUT: Duration = Duration::from_secs(600);

/// Work in the store that blocks.
async fn blocking<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
) -> Result<T> {
    let store = Arc::clone(store);
    match tokio::task::spawn_blocking(move || work(&store)).await {
        Ok(done) => done,
        Err(error) => Err(Error::Unavailable { reason: error.to_string() }),
    }
}

impl Local {
    /// The first keys of a range, as many as fit into `bounds` (keys, bytes); and the present revision.
    pub(crate) fn range_part(
        &self,
        at: Revision,
        range: &KeyRange,
        keys_only: bool,
        bounds: (usize, usize),
    ) -> Result<(RangePart, Revision)> {
        let view = self.view()?;
        self.may_read(&view, range)?;
        let part = view.range_part(at, range, keys_only, bounds).map_err(convert::read_error)?;
        Ok((part, view.current()))
    }

    /// How many keys live in a range; and the present revision.
    pub(crate) fn range_count(&self, at: Revision, range: KeyRange) -> Result<(u64, Revision)> {
        let view = self.view()?;
        self.may_read(&view, &range)?;
        let query = RangeQuery { count_only: true, ..RangeQuery::new(range) };
        let counted = view.range(at, &query).map_err(convert::read_error)?;
        Ok((counted.count, view.current()))
    }

    /// The alarms that are raised, by member.
    pub(crate) fn alarms(&self) -> Result<Vec<Alarm>> {
        let view = self.view()?;
        self.may(&view, Need::User)?;
        view.alarms().map_err(convert::store_error)
    }

    /// Raises or lifts an alarm; whether that changed anything.
    pub(crate) async fn set_alarm(&self, alarm: Alarm, is_raised: bool) -> Result<bool> {
        self.require(Need::Root)?;
        let body = Body::Alarm { alarm, is_raised };
        match self.propose(Origin::default(), body).await?.result.map_err(convert::refusal)? {
            Done::AlarmSet { changed } => Ok(changed),
            other => Err(convert::unexpected(&other)),
        }
    }

    /// One number for all that the store holds.
    pub(crate) async fn hash_all(&self) -> Result<u32> {
        self.require(Need::Root)?;
        blocking(&self.node.store, |store| {
            let history = store.hash_kv(Revision::NONE).map_err(convert::read_error)?;
            let own = store.own_hash().map_err(convert::store_error)?;
            Ok(crc32c::crc32c_append(history.hash, &own.hash.to_be_bytes()))
        })
        .await
    }

    /// Returns when what compaction has forgotten is gone and its room is free for what comes.
    pub(crate) async fn defragment(&self) -> Result<()> {
        self.require(Need::Root)?;
        let is_done = blocking(&self.node.store, |store| {
            let compacted = store.read_view().map_err(convert::store_error)?.compacted();
            let done = store.wait_compacted(compacted, COMPACTION_TIMEOUT);
            store.commit().map_err(convert::store_error)?;
            done.map_err(convert::store_error)
        })
        .await?;
        if is_done { Ok(()) } else { Err(Error::Timeout(COMPACTION_TIMEOUT)) }
    }

    /// The member that leads, as far as this one knows.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.node.proposer.raft.status().leader
    }

    /// Bound of the store's bytes in use, if there is one.
    pub(crate) fn quota_bytes(&self) -> Option<u64> {
        self.node.proposer.quota_bytes
    }

    /// Why nothing is taken any more, or why nothing that needs room is.
    pub(crate) fn trouble(&self) -> Option<String> {
        let failure = self.node.proposer.failure().map(|reason| reason.to_string());
        failure.or_else(|| self.node.proposer.no_space(0))
    }
}
