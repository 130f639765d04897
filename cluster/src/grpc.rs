//! The gRPC services of a node, some of them over any [`revfs_api::KeySpace`]: all of etcd's, and
//! revfs.v1. They decode, ask the key space and encode; they decide nothing that the store should.
//!
//! - [`serve`]: sockets, their life and the drain at shutdown;
//! - `auth`: users, roles, and tokens;
//! - `authority`: clients that send no name for the server;
//! - `credentials`: who sent a request;
//! - `kv`: etcd's rules of requests and answers;
//! - `lease`: renewals by the leader's clock;
//! - `watch`: several watches on a stream, in the order that etcd promises;
//! - `maintenance`, `cluster`: the state of a node and of its cluster;
//! - `lock`, `election`: who waits for what, as keys (`turn`);
//! - `routes`: which services there are;
//! - `revfs`: the key space as it is;
//! - `members`: members with their roles, and what each waits for;
//! - `member`: who answers, for etcd's headers.

mod auth;
mod authority;
mod cluster;
mod connection;
mod credentials;
mod election;
mod kv;
mod large_txn;
mod lease;
mod limits;
mod listener;
mod lock;
mod maintenance;
mod member;
mod members;
mod revfs;
mod routes;
mod serve;
mod turn;
mod watch;
mod watch_stream;

pub use crate::http::{Access, Names};
pub(crate) use connection::{Connection, Peer, Phase, wire_of_member};
pub use limits::Limits;
pub use listener::ListenError;
pub(crate) use listener::tcp as bind;
pub use maintenance::ETCD_VERSION;
pub use serve::{
    Address, Drained, Listen, Listener, ServeError, ServeHandle, Shows, serve, serve_node,
};
