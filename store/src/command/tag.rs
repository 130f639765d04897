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
pub(super) const BODY_AUTH: u8 = 10;
pub(super) const BODY_REQUEST: u8 = 11;
pub(super) const BODY_MEMBER: u8 = 12;
pub(super) const BODY_CHECK: u8 = 13;

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

pub(super) const AUTH_ENABLE: u8 = 1;
pub(super) const AUTH_DISABLE: u8 = 2;
pub(super) const USER_ADD: u8 = 3;
pub(super) const USER_DELETE: u8 = 4;
pub(super) const USER_CHANGE_PASSWORD: u8 = 5;
pub(super) const USER_GRANT_ROLE: u8 = 6;
pub(super) const USER_REVOKE_ROLE: u8 = 7;
pub(super) const ROLE_ADD: u8 = 8;
pub(super) const ROLE_DELETE: u8 = 9;
pub(super) const ROLE_GRANT_PERMISSION: u8 = 10;
pub(super) const ROLE_REVOKE_PERMISSION: u8 = 11;

pub(super) const MEMBER_ADD: u8 = 1;
pub(super) const MEMBER_ADOPT: u8 = 2;
pub(super) const MEMBER_REMOVE: u8 = 3;
pub(super) const MEMBER_SET_URLS: u8 = 4;
pub(super) const MEMBER_SET_ROLE: u8 = 5;
pub(super) const MEMBER_IDENTIFY: u8 = 6;
pub(super) const MEMBER_PUBLISH: u8 = 7;
pub(super) const MEMBER_RAISE_VERSION: u8 = 8;
pub(super) const MEMBER_REMOVE_BY_FORCE: u8 = 9;
