//! The operations, one file for each family. Each is an async method of
//! [`Filesystem`](crate::filesystem::Filesystem) that takes plain arguments and answers with the truth
//! or an errno; who sends the answer, and how, is not known here.

mod getattr;
mod hidden;
mod lookup;
mod open_to_read;
mod read;
mod readdir;
mod readlink;
mod statfs;
mod xattr_get;

pub use open_to_read::Pages;
pub use readdir::{DirectoryEntry, bare_attr};
pub use statfs::Statistics;
