//! One file for each command: its arguments, what it asks of the key space, what it prints.

pub(crate) mod alarm;
pub(crate) mod auth;
pub(crate) mod compact;
pub(crate) mod completion;
pub(crate) mod del;
pub(crate) mod diff;
pub(crate) mod elect;
pub(crate) mod get;
pub(crate) mod inspect;
pub(crate) mod lease;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod ls;
pub(crate) mod member;
pub(crate) mod mount;
pub(crate) mod put;
pub(crate) mod restore;
pub(crate) mod role;
pub(crate) mod serve;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod txn;
pub(crate) mod umount;
pub(crate) mod up;
pub(crate) mod user;
pub(crate) mod watch;
