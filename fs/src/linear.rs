//! `consistency=linear`: what is shown holds when it is asked for, everywhere.
//!
//! A question about the present is asked after [`KeySpace::confirm`](revfs_api::KeySpace::confirm): by then
//! the member behind this mount has all that was acknowledged anywhere. The kernel keeps nothing (all times
//! to live are 0) and has each read of a file asked; an open drops what an earlier one fetched. So whoever
//! looks a name up, lists, opens or asks for attributes is shown what was acknowledged before he asked.
//!
//! What cannot be confirmed is EIO, never an older state. Who has waited for it in vain answers for those
//! that ask within the next second, so that a listing without a quorum does not wait once for each name.
//! The root alone keeps its last known attributes then, or nobody could read in `@status` why.

use std::time::{Duration, Instant};

use fuser::Errno;
use parking_lot::Mutex;
use revfs_api::keyspace::Error;

use crate::errno::errno;
use crate::filesystem::{Answer, Filesystem};
use crate::node::{Node, Place, Tree};
use crate::resolve::{Seen, Standing, Subject};

/// How new what a mount shows is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Never older than what it has shown; changes made elsewhere come with the watch.
    #[default]
    Watch,
    /// All that was acknowledged anywhere.
    Linear,
}

impl Consistency {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Linear => "linear",
        }
    }
}

/// How long a failed confirmation answers later questions too.
const FAILURE_LASTS: Duration = Duration::from_secs(1);

/// For how long the root waits to be confirmed: programs that look whether a mount
/// answers wait for 5 seconds, and ask a few times.
const ROOT_WAIT: Duration = Duration::from_secs(1);

/// The last confirmation, if it failed, and when.
#[derive(Debug, Default)]
pub(crate) struct Unconfirmed(Mutex<Option<(Instant, Errno)>>);

impl Unconfirmed {
    fn recent(&self) -> Option<Errno> {
        let mut failed = self.0.lock();
        if failed.is_some_and(|(since, _)| since.elapsed() >= FAILURE_LASTS) {
            *failed = None;
        }
        failed.map(|(_, errno)| errno)
    }
}

impl Filesystem {
    pub(crate) fn is_linear(&self) -> bool {
        self.options.consistency == Consistency::Linear
    }

    /// Waits until what was acknowledged anywhere before the call can be read, if this mount shows nothing
    /// older.
    ///
    /// # Errors
    /// EIO without a quorum; what else the key space answers.
    pub(crate) async fn confirm_present(&self) -> Answer<()> {
        if !self.is_linear() {
            return Ok(());
        }
        if let Some(errno) = self.unconfirmed.recent() {
            return Err(errno);
        }
        self.within_deadline(self.keys.confirm()).await.map_err(|error| {
            let errno = read_errno(&error);
            tracing::warn!(%error, "what is present cannot be confirmed");
            *self.unconfirmed.0.lock() = Some((Instant::now(), errno));
            errno
        })
    }

    /// The root of a linear mount. If nobody confirms what it is now, what it was last: what stops everything else
    /// is told in `@status`, and on the way there this is asked.
    pub(crate) async fn root_stands(&self, root: &Subject) -> Answer<Seen<Option<Standing>>> {
        let confirmed = tokio::time::timeout(ROOT_WAIT, self.stands(Tree::Live, root)).await;
        match confirmed {
            Ok(Ok(seen)) => Ok(seen),
            Ok(Err(_)) | Err(_) => self.stands_at(self.floor(), root).await,
        }
    }

    /// Whoever opens a file reads what is there now, whatever those read who have it open.
    pub(crate) fn begin_anew(&self, node: &Node) {
        if !self.is_linear() || !matches!(node.place(), Place::File { .. }) {
            return;
        }
        let mut file = node.file.lock();
        // What another reader is fetching right now may be older.
        file.content_changes += 1;
        if file.staged.is_none() {
            file.content = None;
        }
    }
}

/// The errno of a question that changes nothing. That a file system cannot be written now is no answer to it.
fn read_errno(error: &Error) -> Errno {
    match error {
        Error::NoQuorum { .. } | Error::Timeout(_) => Errno::EIO,
        other => errno(other),
    }
}
