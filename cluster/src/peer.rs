//! Between members: who calls, over which connection, and what each side answers.
//!
//! ```text
//! replication (raft::network) ─┐                                 ┌─► raft: appends, votes
//! forwarded changes ([`forward`]) ├─► [`Peers`]: a [`Link`] a member ═► [`service`] ├─► proposer: forwarded changes
//! confirmed reads, leases      ─┘     one HTTP/2 connection       └─► confirmed reads, the leader's leases
//! ```
//!
//! Each call says who calls whom ([`caller`]); a member answers nobody else. There is one connection to
//! each member for everything; it is made when it is needed, and again when it was lost.

mod caller;
mod complaints;
mod forward;
mod link;
mod listen;
mod service;

pub(crate) use self::caller::Met;
pub(crate) use self::complaints::Complaints;
pub(crate) use self::forward::{End, Forwarder, Waiting};
pub(crate) use self::link::{Link, PeerError, Peers};
pub use self::listen::{PeerListen, PeerListener};
pub(crate) use self::listen::{PeerServer, serve};
pub(crate) use self::service::PeerService;
