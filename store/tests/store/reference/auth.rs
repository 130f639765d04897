//! Users and roles as plain maps, and whether a request is allowed: by asking of each key at which an
//! answer can change whether anything grants it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use revfs_store::types::{KeyRange, LeaseId, Op, Txn};
use revfs_store::{
    Access, Auth, AuthChange, AuthRefusal, Body, Done, Permission, RESERVATION_PREFIX, Refusal,
};

use super::Reference;

type Result<T> = std::result::Result<T, AuthRefusal>;

const DENIED: Result<()> = Err(AuthRefusal::PermissionDenied);

/// What is kept beside a key below one of them is granted with the key.
const COVERED: [&[u8]; 3] = [b"\0revfs/a", b"\0revfs/l", b"\0revfs/r"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) is_enabled: bool,
    /// How often it changed.
    changes: u64,
    /// Password and roles.
    users: BTreeMap<String, (Option<Bytes>, BTreeSet<String>)>,
    roles: BTreeMap<String, BTreeMap<(Bytes, Bytes), Access>>,
}

impl Accounts {
    pub(crate) fn revision(&self) -> u64 {
        self.changes + 1
    }

    /// What the store holds.
    pub(crate) fn of(auth: &Auth) -> Self {
        let user = |user: &revfs_store::User| {
            let password = user.password.as_ref().map(|hash| hash.0.clone());
            (user.name.clone(), (password, user.roles.iter().cloned().collect()))
        };
        let permission = |own: &Permission| ((own.key.clone(), own.range_end.clone()), own.access);
        Self {
            is_enabled: auth.is_enabled(),
            changes: auth.revision() - 1,
            users: auth.users().map(user).collect(),
            roles: auth
                .roles()
                .map(|role| (role.name.clone(), role.permissions.iter().map(permission).collect()))
                .collect(),
        }
    }

    pub(super) fn change(&mut self, change: &AuthChange) -> Result<Done> {
        let before = self.clone();
        match self.changed(change) {
            Ok(true) => self.changes += 1,
            Ok(false) => {}
            Err(refusal) => {
                *self = before;
                return Err(refusal);
            }
        }
        Ok(Done::AuthSet { auth_revision: self.revision() })
    }

    fn roles_of(&mut self, user: &str) -> Result<&mut BTreeSet<String>> {
        Ok(&mut self.users.get_mut(user).ok_or(AuthRefusal::UserNotFound)?.1)
    }

    fn role(&mut self, role: &str) -> Result<&mut BTreeMap<(Bytes, Bytes), Access>> {
        self.roles.get_mut(role).ok_or(AuthRefusal::RoleNotFound)
    }

    /// Whether the auth revision goes up.
    fn changed(&mut self, change: &AuthChange) -> Result<bool> {
        let is_enabled = self.is_enabled;
        let keep_root = |concerned: bool| {
            let kept = concerned && is_enabled;
            if kept { Err(AuthRefusal::InvalidManagement) } else { Ok(()) }
        };
        match change {
            AuthChange::Enable { .. } => {
                let root = self.roles_of("root").map_err(|_| AuthRefusal::RootUserMissing)?;
                if !root.contains("root") {
                    return Err(AuthRefusal::RootRoleMissing);
                }
                self.is_enabled = true;
                return Ok(false);
            }
            AuthChange::Disable => {
                self.is_enabled = false;
                return Ok(is_enabled);
            }
            AuthChange::UserAdd { name, password } => {
                if name.is_empty() {
                    return Err(AuthRefusal::UserNameEmpty);
                }
                let password = password.as_ref().map(|hash| hash.0.clone());
                let own = (password, BTreeSet::new());
                if self.users.insert(name.clone(), own).is_some() {
                    return Err(AuthRefusal::UserExists);
                }
            }
            AuthChange::UserDelete { name } => {
                keep_root(name == "root")?;
                self.users.remove(name).ok_or(AuthRefusal::UserNotFound)?;
            }
            AuthChange::UserChangePassword { name, password } => {
                let user = self.users.get_mut(name).ok_or(AuthRefusal::UserNotFound)?;
                if user.0.is_some() {
                    user.0 = Some(password.0.clone());
                }
            }
            AuthChange::UserGrantRole { name, role } => {
                self.roles_of(name)?;
                if role != "root" {
                    self.role(role)?;
                }
                return Ok(self.roles_of(name)?.insert(role.clone()));
            }
            AuthChange::UserRevokeRole { name, role } => {
                keep_root(name == "root" && role == "root")?;
                if !self.roles_of(name)?.remove(role) {
                    return Err(AuthRefusal::RoleNotGranted);
                }
            }
            other => return self.role_changed(other),
        }
        Ok(true)
    }

    fn role_changed(&mut self, change: &AuthChange) -> Result<bool> {
        match change {
            AuthChange::RoleAdd { name } => {
                if name.is_empty() {
                    return Err(AuthRefusal::RoleNameEmpty);
                }
                if self.roles.insert(name.clone(), BTreeMap::new()).is_some() {
                    return Err(AuthRefusal::RoleExists);
                }
            }
            AuthChange::RoleDelete { name } => {
                if name == "root" && self.is_enabled {
                    return Err(AuthRefusal::InvalidManagement);
                }
                self.roles.remove(name).ok_or(AuthRefusal::RoleNotFound)?;
                for (_, roles) in self.users.values_mut() {
                    roles.remove(name);
                }
            }
            AuthChange::RoleGrantPermission { name, permission } => {
                let Permission { key, range_end, access } = permission;
                let is_empty = !range_end.is_empty() && *range_end != [0][..] && range_end <= key;
                if key.is_empty() || is_empty {
                    return Err(AuthRefusal::InvalidManagement);
                }
                self.role(name)?.insert((key.clone(), range_end.clone()), *access);
            }
            AuthChange::RoleRevokePermission { name, key, range_end } => {
                let removed = self.role(name)?.remove(&(key.clone(), range_end.clone()));
                removed.ok_or(AuthRefusal::PermissionNotGranted)?;
            }
            other => unreachable!("changed makes {other:?}"),
        }
        Ok(true)
    }

    /// The permissions of a user; `None` if everything is allowed.
    pub(crate) fn permissions(&self, user: &str, revision: u64) -> Result<Option<Vec<Permission>>> {
        if !self.is_enabled {
            return Ok(None);
        }
        if user.is_empty() || revision == 0 {
            return Err(AuthRefusal::UserNameEmpty);
        }
        if revision < self.revision() {
            return Err(AuthRefusal::OldRevision);
        }
        let (_, roles) = self.users.get(user).ok_or(AuthRefusal::PermissionDenied)?;
        if roles.contains("root") {
            return Ok(None);
        }
        let granted = roles.iter().flat_map(|role| self.roles.get(role)).flatten();
        let permission = |(place, access): (&(Bytes, Bytes), &Access)| Permission {
            key: place.0.clone(),
            range_end: place.1.clone(),
            access: *access,
        };
        Ok(Some(granted.map(permission).collect()))
    }
}

fn is_granted(permissions: &[Permission], key: &[u8], writes: bool) -> bool {
    if key == RESERVATION_PREFIX {
        return !writes || permissions.iter().any(|own| own.access != Access::Read);
    }
    let bare = COVERED.iter().find_map(|p| key.strip_prefix(*p));
    let key = match bare {
        Some([]) => &[0][..],
        Some(bare) => bare,
        None => key,
    };
    let other = if writes { Access::Read } else { Access::Write };
    permissions.iter().filter(|own| own.access != other).any(|own| match &own.range_end[..] {
        [] => own.key == key,
        [0] => *own.key <= *key,
        end => *own.key <= *key && key < end,
    })
}

/// Whether all keys of `range`, of which there may be infinitely many, are granted.
fn are_granted(permissions: &[Permission], range: &KeyRange, writes: bool) -> bool {
    let mut borders = vec![range.start().to_vec()];
    let ends = permissions.iter().flat_map(|own| [&own.key[..], &own.range_end[..]]);
    for bare in ends.chain([&[][..], &[0xFF; 8][..]]) {
        for prefix in COVERED.into_iter().chain([&b""[..]]) {
            borders.push([prefix, bare].concat());
            borders.push([prefix, bare, &[0]].concat());
        }
    }
    borders.extend([b"\0revfs/b".to_vec(), b"\0revfs/m".to_vec(), b"\0revfs/s".to_vec()]);
    let within = |key: &&Vec<u8>| range.contains(key) && !key.is_empty();
    borders.iter().filter(within).all(|key| is_granted(permissions, key, writes))
}

pub(crate) fn read(permissions: &[Permission], range: &KeyRange) -> Result<()> {
    if are_granted(permissions, range, false) { Ok(()) } else { DENIED }
}

fn write(permissions: &[Permission], range: &KeyRange) -> Result<()> {
    if are_granted(permissions, range, true) { Ok(()) } else { DENIED }
}

impl Reference {
    pub(super) fn admit(
        &self,
        user: &str,
        revision: u64,
        body: &Body,
    ) -> std::result::Result<(), Refusal> {
        let Some(own) = self.accounts.permissions(user, revision)? else { return Ok(()) };
        match body {
            Body::Txn(txn) => self.txn_is_allowed(&own, txn)?,
            Body::LeaseGrant { .. } => {}
            Body::LeaseRevoke { id } => self.may_write_lease(&own, *id)?,
            Body::UploadPart { upload, ops, .. } => {
                self.may_write_lease(&own, *upload)?;
                ops.iter().try_for_each(|op| self.op_is_allowed(&own, op))?;
            }
            Body::UploadCommit(commit) => {
                self.may_write_lease(&own, commit.upload)?;
                let txn = Txn {
                    compares: commit.compares.clone(),
                    success: self.uploaded(commit).unwrap_or_default(),
                    failure: commit.failure.clone(),
                };
                self.txn_is_allowed(&own, &txn)?;
            }
            _ => DENIED?,
        }
        Ok(())
    }

    fn keys_on(&self, lease: LeaseId) -> impl Iterator<Item = Bytes> {
        let keys = if lease.0 == 0 { Vec::new() } else { self.lease_keys(lease) };
        keys.into_iter()
    }

    pub(crate) fn may_read_lease(&self, own: &[Permission], lease: LeaseId) -> Result<()> {
        self.keys_on(lease).try_for_each(|key| read(own, &KeyRange::Key(key)))
    }

    fn may_write_lease(&self, own: &[Permission], lease: LeaseId) -> Result<()> {
        self.keys_on(lease).try_for_each(|key| write(own, &KeyRange::Key(key)))
    }

    fn txn_is_allowed(&self, own: &[Permission], txn: &Txn) -> Result<()> {
        txn.compares.iter().try_for_each(|compare| read(own, &compare.range))?;
        txn.success.iter().chain(&txn.failure).try_for_each(|op| self.op_is_allowed(own, op))
    }

    fn op_is_allowed(&self, own: &[Permission], op: &Op) -> Result<()> {
        let both = |range: &KeyRange| read(own, range).and_then(|()| write(own, range));
        match op {
            Op::Put { key, lease, prev_kv, ignore_lease, .. } => {
                let key = KeyRange::Key(key.clone());
                write(own, &key)?;
                if *prev_kv {
                    read(own, &key)?;
                }
                if lease.0 == 0 || *ignore_lease {
                    Ok(())
                } else {
                    self.may_write_lease(own, *lease)
                }
            }
            Op::Delete { range, prev_kv: false } => write(own, range),
            Op::Delete { range, prev_kv: true } => both(range),
            Op::Range(query) => read(own, &query.range),
            Op::Txn(nested) => self.txn_is_allowed(own, nested),
            Op::Append { key, .. } => both(&KeyRange::Key(key.clone())),
            Op::Move { from, to } => {
                both(&KeyRange::prefix(from))?;
                write(own, &KeyRange::prefix(to))
            }
            Op::MoveKey { from, to } => {
                both(&KeyRange::Key(from.clone()))?;
                write(own, &KeyRange::Key(to.clone()))
            }
            Op::Exchange { a, b } => [a, b].into_iter().try_for_each(|side| {
                let is_directory = side.last() == Some(&b'/');
                both(&if is_directory {
                    KeyRange::prefix(side)
                } else {
                    KeyRange::Key(side.clone())
                })
            }),
            Op::Restore { range, revision } => {
                both(range)?;
                let Ok(then) = self.moment(*revision) else { return Ok(()) };
                let restored = then.keys.values().filter(|kv| range.contains(&kv.key));
                let leased = restored.filter(|kv| kv.lease.0 != 0);
                leased.map(|kv| kv.lease).try_for_each(|lease| self.may_write_lease(own, lease))
            }
        }
    }
}
