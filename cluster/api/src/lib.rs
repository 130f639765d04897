//! The contract between the parts of revfs.
//!
//! - [`keyspace`]: the trait [`KeySpace`], the only thing that the file system and the commands know
//!   of a backend, and its plain types;
//! - [`wire`]: the gRPC messages and services generated from `proto/`;
//! - [`client`]: `KeySpace` over the network.
//!
//! This crate knows neither the store nor openraft.

pub mod keyspace;

pub use keyspace::KeySpace;
