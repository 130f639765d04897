//! The member that answers: on whose behalf its services ask ([`Credentials`]), and cluster, member and
//! term of etcd's response headers.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Error, Result, Revision};
use revfs_api::status::to_status;
use revfs_api::wire::etcdserverpb::ResponseHeader;
use tokio::time::Instant;
use tonic::{Request, Status};

use super::credentials::Credentials;
use crate::local::Local;

/// Identity never changes and the term hardly ever: a header may show a term that is so old.
const TERM_AGE_MAX: Duration = Duration::from_secs(1);

/// What is served.
pub(super) enum Backend {
    Node(Arc<Local>),
    /// A key space without users.
    Other(Arc<dyn KeySpace>),
}

pub(super) struct Member {
    backend: Backend,
    known: Mutex<Known>,
}

struct Known {
    header: ResponseHeader,
    since: Instant,
}

impl Member {
    pub(super) async fn new(backend: Backend) -> Result<Self> {
        let header = identity(backend.own()).await?;
        Ok(Self { backend, known: Mutex::new(Known { header, since: Instant::now() }) })
    }

    /// The key space on the member's own behalf: for what every client may know that is answered.
    pub(super) fn own(&self) -> &dyn KeySpace {
        self.backend.own()
    }

    /// The node on its own behalf, as [`Member::own`].
    pub(super) fn own_node(&self) -> Result<&Arc<Local>, Status> {
        match &self.backend {
            Backend::Node(node) => Ok(node),
            Backend::Other(_) => Err(Status::unimplemented("this service is of a node alone")),
        }
    }

    /// The node for who sent a request.
    pub(super) fn node<T>(&self, request: &Request<T>) -> Result<Arc<Local>, Status> {
        self.node_for(&Credentials::of(request))
    }

    /// The node for who began a stream, as of now: users and roles may have changed since.
    pub(super) fn node_for(&self, credentials: &Credentials) -> Result<Arc<Local>, Status> {
        credentials.node(self.own_node()?)
    }

    /// The key space for who sent a request.
    pub(super) fn key_space<T>(&self, request: &Request<T>) -> Result<Arc<dyn KeySpace>, Status> {
        self.key_space_for(&Credentials::of(request))
    }

    /// The key space for who began a stream, as of now.
    pub(super) fn key_space_for(
        &self,
        credentials: &Credentials,
    ) -> Result<Arc<dyn KeySpace>, Status> {
        match &self.backend {
            Backend::Node(_) => Ok(self.node_for(credentials)?),
            Backend::Other(keyspace) => Ok(Arc::clone(keyspace)),
        }
    }

    /// A header with the present revision.
    pub(super) async fn current_header(&self) -> Result<ResponseHeader, Status> {
        let now = self.own().read(Revision::NONE, Vec::new()).await.map_err(fail)?;
        Ok(self.header(now.current).await)
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
        if is_old && let Ok(header) = identity(self.own()).await {
            self.known.lock().header = header;
        }
        let known = self.known.lock().header;
        ResponseHeader { revision: signed(revision.0), ..known }
    }
}

impl Backend {
    fn own(&self) -> &dyn KeySpace {
        match self {
            Self::Node(node) => node.as_ref(),
            Self::Other(keyspace) => keyspace.as_ref(),
        }
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
