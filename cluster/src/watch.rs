//! A watch of the store as a [`Watch`]: it waits on the store's hub, and ends with the node. And for
//! etcd's Watch service, which has filters and previous versions, the watch as it is.

use std::future::poll_fn;

use async_trait::async_trait;
use revfs_api::keyspace::{Error, Result, Revision, RevisionEvents, Watch};
use revfs_store::{WatchRequest, Watcher};
use tokio::sync::watch;

use crate::convert;
use crate::local::Local;
use crate::proposal::check_range;

/// See the module.
pub(crate) struct StoreWatch {
    pub(crate) watcher: Watcher,
    /// Set, or its sender gone, when the node shuts down.
    pub(crate) stop: watch::Receiver<bool>,
}

#[async_trait]
impl Watch for StoreWatch {
    async fn next(&mut self) -> Result<RevisionEvents> {
        let Self { watcher, stop } = self;
        tokio::select! {
            biased;
            next = poll_fn(|context| watcher.poll_next(context.waker())) => {
                let revision = next.map_err(convert::read_error)?;
                Ok(convert::events_to_api(revision.to_events()))
            }
            stop = stop.wait_for(|&stop| stop) => {
                // The guard of the value must not be held on.
                drop(stop);
                let reason = "the node is shutting down".to_owned();
                Err(Error::Unavailable { reason })
            }
        }
    }

    fn progress(&self) -> Revision {
        convert::revision_to_api(self.watcher.progress())
    }
}

impl Local {
    /// Watches the store itself. Keys are bounded, for the hub holds them.
    pub(crate) fn watch_events(&self, request: WatchRequest) -> Result<Watcher> {
        request.ranges.iter().try_for_each(check_range)?;
        self.store.watch(request).map_err(convert::read_error)
    }

    pub(crate) fn current_revision(&self) -> Result<revfs_store::types::Revision> {
        self.store.current_revision().map_err(convert::store_error)
    }
}
