//! The operations, one file for each family. Each is an async method of
//! [`Filesystem`](crate::filesystem::Filesystem) that takes plain arguments and answers with the truth
//! or an errno; who sends the answer, and how, is not known here.

pub(crate) mod create;
mod fallocate;
mod fsync;
mod getattr;
mod hidden;
pub(crate) mod lock;
mod lookup;
mod open;
mod open_to_read;
mod read;
mod readdir;
mod readlink;
mod remove;
pub(crate) mod rename;
mod setattr;
mod statfs;
mod ttl;
mod write;
mod xattr_get;
mod xattr_set;

pub use revfs_api::operations::OperationKind;

pub use fallocate::AllocateRequest;
pub use lock::{InTheWay, LockRequest};
pub use open::Opened;
pub use open_to_read::Pages;
pub use readdir::DirectoryEntry;
pub use setattr::SetAttr;
pub use statfs::Statistics;
pub use write::WriteRequest;

#[cfg(test)]
mod tests;
