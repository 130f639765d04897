//! The contract between the parts of revfs.
//!
//! - [`keyspace`]: the trait [`KeySpace`], the only thing that the file system and the commands know
//!   of a backend, and its plain types;
//! - [`line`]: how locks and elections wait for each other;
//! - [`mirror`]: a prefix of one cluster, kept up to date in another;
//! - [`backup`]: a copy of a whole store on its way;
//! - [`wire`]: the gRPC messages and services generated from `proto/`;
//! - [`convert`] and [`status`]: messages and errors of the wire <-> the plain types;
//! - [`client`]: `KeySpace` over the network.
//!
//! This crate knows neither the store nor openraft.

pub mod backup;
pub mod client;
pub mod convert;
pub mod keyspace;
pub mod line;
pub mod mirror;
pub mod operations;
pub mod reservations;
pub mod socket_path;
pub mod status;
pub mod wire;

pub use keyspace::KeySpace;
