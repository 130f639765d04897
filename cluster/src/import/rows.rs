//! What the rows of etcd's buckets say.

use bytes::Bytes;
use prost::Message as _;
use revfs_api::wire::{authpb, mvccpb};
use revfs_store::types::{LeaseId, Revision};
use revfs_store::{Access, ImportedChange, ImportedPut, Permission};

/// etcd's lease, as it is kept.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LeaseRow {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
    #[prost(int64, tag = "2")]
    pub(super) ttl: i64,
    #[prost(int64, tag = "3")]
    pub(super) remaining_ttl: i64,
}

/// etcd's user, as it is kept.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UserRow {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) name: Bytes,
    /// bcrypt's, as ours.
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) password: Bytes,
    #[prost(string, repeated, tag = "3")]
    pub(super) roles: Vec<String>,
    #[prost(message, optional, tag = "4")]
    pub(super) options: Option<authpb::UserAddOptions>,
}

/// etcd's role, as it is kept.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RoleRow {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) name: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub(super) permissions: Vec<authpb::Permission>,
}

/// A row of the bucket `key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyRow {
    pub(super) revision: Revision,
    pub(super) sub: u32,
    /// `None`: a mark of where etcd goes on after a restore.
    pub(super) change: Option<ImportedChange>,
}

const MAIN_BYTES: usize = 8;
const ROW_BYTES: usize = 17;

/// Reads a row of the bucket `key`.
pub(super) fn key_row(row: &[u8], value: &[u8]) -> Result<KeyRow, String> {
    let is_tombstone = match row.get(ROW_BYTES..) {
        Some(b"") => false,
        Some(b"t") => true,
        _ => return Err("its name is no revision".to_owned()),
    };
    let number = |at: usize| row.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    let (Some(main), Some(sub), Some(b'_')) =
        (number(0), number(MAIN_BYTES + 1), row.get(MAIN_BYTES))
    else {
        return Err("its name is no revision".to_owned());
    };
    let (Ok(sub), Ok(_)) = (u32::try_from(sub), i64::try_from(main)) else {
        return Err(format!("revision {main}.{sub} is beyond what etcd counts"));
    };
    let revision = Revision(main);
    if value.is_empty() && !is_tombstone {
        return Ok(KeyRow { revision, sub, change: None });
    }
    let kv = mvccpb::KeyValue::decode(value).map_err(|error| error.to_string())?;
    change_of(&kv, is_tombstone, revision).map(|change| KeyRow {
        revision,
        sub,
        change: Some(change),
    })
}

/// The change that made `kv`.
pub(super) fn change_of(
    kv: &mvccpb::KeyValue,
    is_delete: bool,
    revision: Revision,
) -> Result<ImportedChange, String> {
    if kv.key.is_empty() {
        return Err("it has no key".to_owned());
    }
    let key = Bytes::copy_from_slice(&kv.key);
    if is_delete {
        return Ok(ImportedChange { key, put: None });
    }
    let positive = |number: i64| u64::try_from(number).ok().filter(|&number| number > 0);
    let (Some(create), Some(version), Some(changed)) =
        (positive(kv.create_revision), positive(kv.version), positive(kv.mod_revision))
    else {
        return Err("a number in it is not positive".to_owned());
    };
    if changed != revision.0 || create > changed {
        let reason =
            format!("it says revision {changed}, created at {create}, and stands at {revision}");
        return Err(reason);
    }
    let put = ImportedPut {
        value: Bytes::copy_from_slice(&kv.value),
        create_revision: Revision(create),
        version,
        lease: LeaseId(kv.lease),
    };
    Ok(ImportedChange { key, put: Some(put) })
}

pub(super) fn permission(from: &authpb::Permission) -> Option<Permission> {
    let access = u8::try_from(from.perm_type).ok().and_then(Access::of_number)?;
    let (key, range_end) =
        (Bytes::copy_from_slice(&from.key), Bytes::copy_from_slice(&from.range_end));
    Some(Permission { key, range_end, access })
}

pub(super) fn text(bytes: &[u8]) -> Result<String, String> {
    let shown = || format!("the name \"{}\" is no UTF-8", bytes.escape_ascii());
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| shown())
}
