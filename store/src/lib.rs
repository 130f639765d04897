//! The revisioned store of revfs: etcd's data model on LMDB.
//!
//! [`types`] is the vocabulary, [`Command`] what the log replicates and [`Outcome`] what applying it
//! answers. [`schema`] is the disk boundary.

mod codec;
mod command;
mod error;
mod escape;
pub mod schema;
pub mod types;

pub use codec::{DecodeError, Problem};
pub use command::{Body, COMMAND_FORMAT, Command, Done, EncodeError, Outcome, Refusal};
pub use error::{OpenError, ReadError, StoreError};
pub use escape::escaped_bytes;
