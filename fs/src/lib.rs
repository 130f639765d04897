//! The key space as a file system.
//!
//! Layers, from the kernel down: `mount` (mounting, threads) - `fuse` (decode, call, reply; no
//! decisions) - `ops/` (one file per family of operations on [`filesystem::Filesystem`]) - [`node_table`],
//! [`staged`], `resolve` - [`path`], [`attributes`] (the only places where keys are built) -
//! [`revfs_api::KeySpace`].

pub mod attributes;
pub mod budget;
mod closing;
pub mod coherence;
pub mod commit;
pub mod errno;
mod events;
pub mod filesystem;
pub mod found;
pub mod fuse;
pub mod handle;
pub mod history;
pub mod inode_number;
mod interrupt;
mod keys_tree;
pub mod linear;
pub mod listing;
pub mod local_names;
pub mod locks;
pub mod memory;
pub mod mount;
mod mount_lease;
pub mod node;
pub mod node_table;
pub mod note;
pub mod notices;
pub mod ops;
mod panics;
pub mod path;
pub mod refused;
mod reservation;
pub mod resolve;
pub mod staged;
mod status;
mod stored;
mod txn;
mod watching;
