//! What is in an etcd's data, and what of it cannot be taken over: known before anything is written.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message as _;
use revfs_store::types::{KEY_BYTES_MAX, LeaseId, Revision, VALUE_BYTES_MAX};
use revfs_store::{NAME_BYTES_MAX, escaped_bytes};

use super::bolt::Bolt;
use super::rows::{KeyRow, LeaseRow, RoleRow, UserRow, key_row, text};
use super::{EtcdImportError, OnProgress, Progress};

/// So many long keys are named; the rest is counted.
const LONG_KEYS_NAMED: usize = 1_000;
const ROWS_PER_PROGRESS: u64 = 10_000;

/// A key that is longer than ours may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongKey {
    pub key: Bytes,
    /// After escaping.
    pub bytes: usize,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// A digest stood behind the file and was compared.
    pub is_verified: bool,
    pub revision: Revision,
    /// Everything before it is forgotten; none if etcd never compacted.
    pub compacted: Revision,
    /// Rows of keys: puts and deletions.
    pub versions: u64,
    pub leases: Vec<(i64, i64)>,
    pub is_auth_enabled: bool,
    /// Keys beyond [`KEY_BYTES_MAX`], the first ones by name.
    pub long_keys: Vec<LongKey>,
    pub long_keys_count: u64,
    /// What is not taken over, in words.
    pub left_out: Vec<String>,
    pub(super) users: Vec<UserRow>,
    pub(super) roles: Vec<RoleRow>,
    /// Leases that keys name.
    pub(super) named_leases: BTreeSet<i64>,
}

impl Survey {
    #[must_use]
    pub fn users_count(&self) -> usize {
        self.users.len()
    }

    #[must_use]
    pub fn roles_count(&self) -> usize {
        self.roles.len()
    }
}

/// A row that cannot be read, by its bucket.
pub(super) fn wrong(bucket: &str, row: &[u8], reason: impl Into<String>) -> EtcdImportError {
    let (bucket, row) = (bucket.to_owned(), row.escape_ascii().to_string());
    EtcdImportError::Row { bucket, row, reason: reason.into() }
}

/// Whether a key is longer than ours may be; its length after escaping.
pub(super) fn too_long(key: &[u8]) -> Option<usize> {
    Some(escaped_bytes(key)).filter(|&bytes| bytes > KEY_BYTES_MAX)
}

/// Looks at everything. Blocks.
///
/// # Errors
/// Damage, or rows that make no sense.
pub fn survey(bolt: &Bolt, progress: OnProgress<'_>) -> Result<Survey, EtcdImportError> {
    let mut survey = Survey { is_verified: bolt.is_verified, ..Survey::default() };
    let compacted = compacted(bolt)?;
    survey.compacted = Revision(compacted);
    let mut long = BTreeMap::new();
    let found = bolt.rows::<EtcdImportError>(b"key", &mut |row, value| {
        let read = key_row(row, value).map_err(|reason| wrong("key", row, reason))?;
        survey.add(&read, &mut long, row)?;
        if survey.versions.is_multiple_of(ROWS_PER_PROGRESS) {
            progress(Progress { stage: "looking", done: survey.versions, total: 0 })?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if !found {
        return Err(wrong("key", b"", "there is no such bucket: this is no data of etcd 3"));
    }
    survey.revision = survey.revision.max(survey.compacted).max(Revision::FIRST);
    survey.long_keys = long.into_iter().map(|(key, bytes)| LongKey { key, bytes }).collect();
    survey.read_leases(bolt)?;
    survey.read_auth(bolt)?;
    survey.read_rest(bolt)?;
    Ok(survey)
}

/// etcd finishes at its next start what it has scheduled.
fn compacted(bolt: &Bolt) -> Result<u64, EtcdImportError> {
    let mut compacted = 0;
    bolt.rows::<EtcdImportError>(b"meta", &mut |row, value| {
        if matches!(row, b"scheduledCompactRev" | b"finishedCompactRev") {
            let main = value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
            let main = main.filter(|&main| i64::try_from(main).is_ok());
            let main = main.ok_or_else(|| wrong("meta", row, "it holds no revision"))?;
            compacted = compacted.max(main);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(compacted)
}

impl Survey {
    fn add(
        &mut self,
        read: &KeyRow,
        long: &mut BTreeMap<Bytes, usize>,
        row: &[u8],
    ) -> Result<(), EtcdImportError> {
        self.revision = self.revision.max(read.revision);
        self.versions += 1;
        let Some(change) = &read.change else { return Ok(()) };
        if let Some(bytes) = too_long(&change.key)
            && !long.contains_key(&change.key)
        {
            self.long_keys_count += 1;
            if long.len() < LONG_KEYS_NAMED {
                long.insert(change.key.clone(), bytes);
            }
        }
        let Some(put) = &change.put else { return Ok(()) };
        if put.lease != LeaseId::NONE {
            self.named_leases.insert(put.lease.0);
        }
        let bytes = put.value.len();
        if bytes > VALUE_BYTES_MAX {
            let reason = format!("its value of {bytes} bytes is larger than {VALUE_BYTES_MAX}");
            return Err(wrong("key", row, reason));
        }
        Ok(())
    }

    fn read_leases(&mut self, bolt: &Bolt) -> Result<(), EtcdImportError> {
        bolt.rows::<EtcdImportError>(b"lease", &mut |row, value| {
            let lease = LeaseRow::decode(value).map_err(|e| wrong("lease", row, e.to_string()))?;
            if lease.id == 0 {
                return Err(wrong("lease", row, "a lease has the number 0"));
            }
            self.leases.push((lease.id, lease.ttl));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(())
    }

    fn read_auth(&mut self, bolt: &Bolt) -> Result<(), EtcdImportError> {
        bolt.rows::<EtcdImportError>(b"auth", &mut |row, value| {
            self.is_auth_enabled |= row == b"authEnabled" && value == [1];
            Ok(ControlFlow::Continue(()))
        })?;
        bolt.rows::<EtcdImportError>(b"authRoles", &mut |row, value| {
            let role = RoleRow::decode(value);
            let role = role.map_err(|e| wrong("authRoles", row, e.to_string()))?;
            match name_fault(&role.name) {
                Some(reason) => self.left_out.push(format!("a role: {reason}")),
                None => self.roles.push(role),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        bolt.rows::<EtcdImportError>(b"authUsers", &mut |row, value| {
            let user = UserRow::decode(value);
            let user = user.map_err(|e| wrong("authUsers", row, e.to_string()))?;
            match name_fault(&user.name) {
                Some(reason) => self.left_out.push(format!("a user: {reason}")),
                None => self.users.push(user),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(())
    }

    fn read_rest(&mut self, bolt: &Bolt) -> Result<(), EtcdImportError> {
        let told = [
            (&b"members"[..], "the members of the etcd cluster: a new cluster begins"),
            (b"alarm", "alarms that etcd has raised"),
        ];
        for (bucket, what) in told {
            let mut rows = 0_u64;
            bolt.rows::<EtcdImportError>(bucket, &mut |_, _| {
                rows += 1;
                Ok(ControlFlow::Continue(()))
            })?;
            if rows > 0 {
                self.left_out.push(what.to_owned());
            }
        }
        Ok(())
    }
}

fn name_fault(name: &[u8]) -> Option<String> {
    let bytes = name.len();
    if bytes > NAME_BYTES_MAX {
        return Some(format!("its name of {bytes} bytes is longer than {NAME_BYTES_MAX}"));
    }
    text(name).err()
}
