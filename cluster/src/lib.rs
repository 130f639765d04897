//! One node of a revfs cluster: proposal -> log -> commit -> apply -> answer.
//!
//! - [`Node`]: a data directory, opened by this process alone, and what runs on it;
//! - [`log`]: entries and votes, durable before they are acknowledged;
//! - [`raft`]: all of openraft, the only module that names its types;
//! - [`proposal`]: what becomes of a change, in every case;
//! - `upload`: transactions that are too large for one entry of the log;
//! - [`Local`]: the [`revfs_api::KeySpace`] of the node in this process;
//! - [`auth`]: who asks;
//! - `http`: the same services as JSON, and the state of the node for machines that watch it;
//! - [`tls`]: certificates of the listeners, and who is let in;
//! - [`grpc`]: the services.

pub mod auth;
mod backup;
mod ballast;
mod compaction_clock;
mod config;
mod convert;
mod data_dir;
mod fields;
pub mod grpc;
mod housekeeping;
mod http;
pub mod inspect;
mod lease_clock;
mod local;
pub mod log;
mod maintenance;
mod node;
pub mod proposal;
pub mod raft;
pub mod restore;
mod space_alarm;
pub mod tls;
mod upload;
mod watch;

pub use auth::AuthConfig;
pub use config::{AutoCompaction, NodeConfig, StartError};
pub use local::Local;
pub use node::{Node, ShutdownError};
