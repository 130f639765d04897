//! The revisioned store of revfs: etcd's data model on LMDB.
//!
//! [`Store::apply`] takes commands in the order of the log and answers with an [`Outcome`], the same
//! on every member; [`Store::read_view`] reads at any revision that is not compacted. Changes are
//! visible as soon as they are applied and durable when the committer has written them to LMDB,
//! together with the log position: after a crash the log is replayed from [`Store::committed`].
//!
//! What holds always:
//! - one revision for each command that changes keys, none for the others; it never goes back;
//! - a command's changes become visible all at once, and reach LMDB all at once;
//! - each change is in the overlay, in LMDB, or in both, where both say the same;
//! - apply reads no clock, no random numbers and no environment; it waits only for the committer,
//!   when the overlay is full;
//! - a row whose checksum is wrong is an error, and closes the store.
//!
//! [`types`] is the vocabulary, [`schema`] the disk boundary (docs/FORMAT.md), `env.rs` the only
//! place that opens LMDB and the only unsafe.

mod alarm;
mod apply;
mod auth;
mod backup;
mod barrier;
mod check;
mod codec;
mod command;
mod committer;
mod compaction;
mod compare;
mod copies;
mod counts;
mod cursor;
mod durations;
mod env;
mod error;
mod escape;
mod fault;
mod hash;
mod history;
mod import;
mod in_place;
mod inspect;
mod install;
mod interval;
mod lease;
mod member;
mod moved;
mod names;
mod options;
mod overlay;
mod page;
mod part;
mod range;
pub mod schema;
mod seen;
mod store;
mod successor;
mod touch;
mod txn;
pub mod types;
mod upload;
mod validate;
mod verify;
mod view;
mod watch;

pub use alarm::{Alarm, AlarmKind, takes_space};
pub use auth::{
    Access, Auth, AuthChange, AuthRefusal, NAME_BYTES_MAX, Need, PasswordHash, Permission,
    RECORD_PREFIX, RESERVATION_PREFIX, ROOT, Role, TOKEN_SECRET_BYTES, TokenSecret, User,
};
pub use backup::{
    BACKUP_VERSION, BackupError, BackupOptions, BackupSummary, Bump, OnProgress, Progress,
    RestoreError, VerifyError, adopt_backup, backup_summary, restore_backup, verify_backup,
};
pub use barrier::{LogBarrier, Reached};
pub use check::check_file;
pub use codec::{DecodeError, Problem};
pub use command::{
    Body, COMMAND_FORMAT, Command, Done, EncodeError, Outcome, Refusal, UploadCommit,
};
pub use durations::{BOUNDED_CLASSES, Durations, Measured};
pub use error::{OpenError, ReadError, StoreError};
pub use escape::escaped_bytes;
pub use fault::StopPoint;
pub use hash::{Frozen, KvHash, OwnHash, PointHash};
pub use import::{ImportError, ImportedChange, ImportedPut, ImportedRevision};
pub use in_place::RangeEnd;
pub use inspect::{Facts, Inspector, PrefixFacts, TreeFacts, Violation};
pub use install::InstallError;
pub use member::{
    FIRST_VERSION, MEMBER_TEXT_BYTES_MAX, MEMBER_URLS_MAX, MEMBERS_MAX, Member, MemberChange,
    MemberRefusal, MemberRole, MemberRow,
};
pub use options::StoreOptions;
pub use part::RangePart;
pub use store::{Health, Position, Size, Store};
pub use upload::{
    UPLOAD_BYTES_MAX, UPLOAD_PART_BYTES_MAX, UPLOAD_PARTS_MAX, UPLOADS_BYTES_MAX, UPLOADS_MAX,
};
pub use view::ReadView;
pub use watch::{WatchOptions, WatchRequest, WatchStats, WatchedEvent, WatchedRevision, Watcher};
