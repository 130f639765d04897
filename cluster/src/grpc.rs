//! The gRPC services of a node, some of them over any [`revfs_api::KeySpace`]: etcd's KV, Watch, Lease
//! and Maintenance, and revfs.v1. They decode, ask the key space and encode; they decide nothing that the store should.
//!
//! - [`serve`]: sockets, their life and the drain at shutdown;
//! - `credentials`: who sent a request;
//! - `kv`: etcd's rules of requests and answers;
//! - `lease`: renewals by the leader's clock;
//! - `watch`: several watches on a stream, in the order that etcd promises;
//! - `revfs`: the key space as it is;
//! - `member`: who answers, for etcd's headers.

mod connection;
mod credentials;
mod kv;
mod large_txn;
mod lease;
mod limits;
mod listener;
mod maintenance;
mod member;
mod revfs;
mod serve;
mod watch;
mod watch_stream;

pub use limits::Limits;
pub use listener::ListenError;
pub use maintenance::ETCD_VERSION;
pub use serve::{Address, Drained, Listen, Listener, ServeError, ServeHandle, serve, serve_node};
