//! The numbers that tell the kinds apart in an encoded command. One that was written once is never
//! given to anything else.

pub(super) const BODY_TXN: u8 = 1;
pub(super) const BODY_COMPACT: u8 = 2;
pub(super) const BODY_LEASE_GRANT: u8 = 3;
pub(super) const BODY_LEASE_REVOKE: u8 = 4;
pub(super) const BODY_LEASE_EXPIRE: u8 = 5;
pub(super) const BODY_LEASE_CHECKPOINT: u8 = 6;
pub(super) const BODY_ALARM: u8 = 7;
pub(super) const BODY_UPLOAD_PART: u8 = 8;
pub(super) const BODY_UPLOAD_COMMIT: u8 = 9;

pub(super) const OP_PUT: u8 = 1;
pub(super) const OP_DELETE: u8 = 2;
pub(super) const OP_RANGE: u8 = 3;
pub(super) const OP_TXN: u8 = 4;
pub(super) const OP_APPEND: u8 = 5;
pub(super) const OP_MOVE: u8 = 6;
pub(super) const OP_MOVE_KEY: u8 = 7;
pub(super) const OP_RESTORE: u8 = 8;
pub(super) const OP_EXCHANGE: u8 = 9;

pub(super) const RANGE_KEY: u8 = 1;
pub(super) const RANGE_SPAN: u8 = 2;
pub(super) const RANGE_FROM: u8 = 3;

pub(super) const TARGET_VERSION: u8 = 1;
pub(super) const TARGET_CREATE: u8 = 2;
pub(super) const TARGET_MOD: u8 = 3;
pub(super) const TARGET_VALUE: u8 = 4;
pub(super) const TARGET_LEASE: u8 = 5;

pub(super) const RESULT_EQUAL: u8 = 1;
pub(super) const RESULT_NOT_EQUAL: u8 = 2;
pub(super) const RESULT_LESS: u8 = 3;
pub(super) const RESULT_GREATER: u8 = 4;
