//! All of openraft: its types, our log behind its storage trait, the store behind its state machine,
//! and the network. No type of openraft leaves this module.

mod alone;
mod answer;
mod copying;
mod core;
#[cfg(test)]
mod injection;
mod log_store;
mod membership;
mod network;
mod own_thread;
mod payload;
mod presence;
mod runtime;
#[cfg(test)]
mod simulation;
mod state_machine;
#[cfg(test)]
mod suite;
mod type_config;
#[cfg(test)]
mod version_1;
mod wire;

pub(crate) use self::alone::Alone;
pub(crate) use self::core::{Pace, ReadIndexError, log_id_of};
pub use self::core::{Raft, RaftError, RaftStatus, WriteError};
#[cfg(test)]
pub(crate) use self::injection::{Ending, When};
pub(crate) use self::membership::{Change, Progress, Replication};
pub(crate) use self::payload::{position_behind, position_of, voters_of};
pub(crate) use self::runtime::{Instant, blocking, now};
pub(crate) use self::state_machine::{Told, check_version};
pub use self::state_machine::{TooOld, VersionError, check_spoken};
