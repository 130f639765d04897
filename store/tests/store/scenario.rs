//! Commands for tests, in few words.

use bytes::Bytes;
use revfs_store::types::{Author, Op, Time, Txn};
use revfs_store::{Body, Command};

/// A transaction without conditions.
pub(crate) fn command(ops: Vec<Op>, time: Time) -> Command {
    let author = Author { principal: String::new(), claimed: "test@here".to_owned() };
    let body = Body::Txn(Txn { success: ops, ..Txn::default() });
    Command { time, author, note: Bytes::new(), body }
}
