//! The member that answers: cluster, member and term of etcd's response headers.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Error, Result, Revision};
use revfs_api::status::to_status;
use revfs_api::wire::etcdserverpb::ResponseHeader;
use tokio::time::Instant;
use tonic::Status;

use crate::local::Local;

/// Identity never changes and the term hardly ever: a header may show a term that is so old.
const TERM_AGE_MAX: Duration = Duration::from_secs(1);

pub(super) struct Member {
    keyspace: Arc<dyn KeySpace>,
    local: Option<Arc<Local>>,
    known: Mutex<Known>,
}

struct Known {
    header: ResponseHeader,
    since: Instant,
}

impl Member {
    pub(super) async fn new(
        keyspace: Arc<dyn KeySpace>,
        local: Option<Arc<Local>>,
    ) -> Result<Self> {
        let header = identity(keyspace.as_ref()).await?;
        Ok(Self { keyspace, local, known: Mutex::new(Known { header, since: Instant::now() }) })
    }

    pub(super) fn local(&self) -> &Local {
        self.local.as_deref().expect("services that need the node are offered for a node only")
    }

    pub(super) fn keyspace(&self) -> &dyn KeySpace {
        self.keyspace.as_ref()
    }

    /// A complete header. It never fails: the change that it reports has happened.
    pub(super) async fn header(&self, revision: Revision) -> ResponseHeader {
        let is_old = {
            let mut known = self.known.lock();
            let is_old = known.since.elapsed() > TERM_AGE_MAX;
            if is_old {
                // One request asks for all that come meanwhile.
                known.since = Instant::now();
            }
            is_old
        };
        if is_old && let Ok(header) = identity(self.keyspace.as_ref()).await {
            self.known.lock().header = header;
        }
        let known = self.known.lock().header;
        ResponseHeader { revision: signed(revision.0), ..known }
    }
}

async fn identity(keyspace: &dyn KeySpace) -> Result<ResponseHeader> {
    let status = keyspace.status().await?;
    Ok(ResponseHeader {
        cluster_id: status.cluster_id,
        member_id: status.member_id,
        revision: 0,
        raft_term: status.raft_term,
    })
}

/// An error of the key space, for a client.
#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
pub(super) fn fail(error: Error) -> Status {
    to_status(&error)
}

/// etcd's numbers are signed; ours never come near the difference.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
