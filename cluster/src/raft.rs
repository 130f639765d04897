//! All of openraft: its types, our log behind its storage trait, the store behind its state machine,
//! and the network. No type of openraft leaves this module.

mod core;
mod log_store;
mod network;
mod payload;
mod state_machine;
#[cfg(test)]
mod suite;
mod type_config;

pub(crate) use self::core::{Pace, RaftMember, log_id_of};
pub use self::core::{Raft, RaftError, RaftStatus, WriteError};
pub(crate) use self::payload::position_of_one;
