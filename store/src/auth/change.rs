//! The changes of users and roles.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::access::is_valid;
use super::state::Account;
use super::{
    Auth, AuthChange, AuthRefusal, NAME_BYTES_MAX, PasswordHash, Permission, ROOT, Role,
    TokenSecret, User,
};
use crate::names::NewRow;
use crate::schema::{AUTH_ROW, Tree, encode_auth, encode_role, encode_user};

impl Auth {
    /// What becomes of it, and the rows that say so; `None` if nothing changes.
    pub(crate) fn changed(
        &self,
        change: &AuthChange,
        rows: &mut Vec<NewRow>,
    ) -> Result<Option<Self>, AuthRefusal> {
        let mut draft = Draft { auth: self.clone(), rows };
        let changes = match change {
            AuthChange::Enable { token_secret } => return draft.enable(token_secret),
            AuthChange::Disable => draft.auth.token_secret.take().is_some(),
            AuthChange::UserAdd { name, password } => draft.add_user(name, password.as_ref())?,
            AuthChange::UserDelete { name } => draft.delete_user(name)?,
            AuthChange::UserChangePassword { name, password } => {
                let mut user = draft.user(name)?;
                user.password = user.password.map(|_| password.clone());
                draft.put_user(user)
            }
            AuthChange::UserGrantRole { name, role } => draft.grant_role(name, role)?,
            AuthChange::UserRevokeRole { name, role } => draft.revoke_role(name, role)?,
            AuthChange::RoleAdd { name } => draft.add_role(name)?,
            AuthChange::RoleDelete { name } => draft.delete_role(name)?,
            AuthChange::RoleGrantPermission { name, permission } => {
                draft.grant_permission(name, permission)?
            }
            AuthChange::RoleRevokePermission { name, key, range_end } => {
                draft.revoke_permission(name, key, range_end)?
            }
        };
        if !changes {
            return Ok(None);
        }
        draft.auth.revision += 1;
        Ok(Some(draft.finish()))
    }
}

/// A change in the making. Its methods say whether anything changes.
struct Draft<'r> {
    auth: Auth,
    rows: &'r mut Vec<NewRow>,
}

fn check_name(name: &str, empty: AuthRefusal) -> Result<(), AuthRefusal> {
    let (bytes, max) = (name.len(), NAME_BYTES_MAX);
    match bytes {
        0 => Err(empty),
        _ if bytes > max => Err(AuthRefusal::NameTooLong { bytes, max }),
        _ => Ok(()),
    }
}

fn place(permission: &Permission) -> (&[u8], &[u8]) {
    (&permission.key, &permission.range_end)
}

impl Draft<'_> {
    fn finish(self) -> Auth {
        let value = encode_auth(self.auth.token_secret.as_ref(), self.auth.revision);
        self.rows.push((Tree::Counters, Bytes::from_static(AUTH_ROW), Some(value.into())));
        self.auth
    }

    /// The only change that leaves the auth revision as it is: whoever was known stays known.
    fn enable(mut self, token_secret: &TokenSecret) -> Result<Option<Auth>, AuthRefusal> {
        if self.auth.is_enabled() {
            return Ok(None);
        }
        let root = self.auth.user(ROOT).ok_or(AuthRefusal::RootUserMissing)?;
        if !root.is_root() {
            return Err(AuthRefusal::RootRoleMissing);
        }
        self.auth.token_secret = Some(token_secret.clone());
        Ok(Some(self.finish()))
    }

    fn user(&self, name: &str) -> Result<User, AuthRefusal> {
        self.auth.user(name).cloned().ok_or(AuthRefusal::UserNotFound)
    }

    fn put_user(&mut self, user: User) -> bool {
        let row = Bytes::copy_from_slice(user.name.as_bytes());
        let value = encode_user(&row, &user);
        self.rows.push((Tree::Users, row, Some(value.into())));
        self.auth.users.insert(user.name.clone(), Account::new(user));
        true
    }

    fn add_user(
        &mut self,
        name: &str,
        password: Option<&PasswordHash>,
    ) -> Result<bool, AuthRefusal> {
        check_name(name, AuthRefusal::UserNameEmpty)?;
        if self.auth.users.contains_key(name) {
            return Err(AuthRefusal::UserExists);
        }
        let (name, password) = (name.to_owned(), password.cloned());
        Ok(self.put_user(User { name, password, roles: Vec::new() }))
    }

    fn delete_user(&mut self, name: &str) -> Result<bool, AuthRefusal> {
        self.check_root(name == ROOT)?;
        self.auth.users.remove(name).ok_or(AuthRefusal::UserNotFound)?;
        self.rows.push((Tree::Users, Bytes::copy_from_slice(name.as_bytes()), None));
        Ok(true)
    }

    /// Refuses what would lock root out.
    fn check_root(&self, is_of_root: bool) -> Result<(), AuthRefusal> {
        let refused = is_of_root && self.auth.is_enabled();
        if refused { Err(AuthRefusal::InvalidManagement) } else { Ok(()) }
    }

    fn grant_role(&mut self, name: &str, role: &str) -> Result<bool, AuthRefusal> {
        let mut user = self.user(name)?;
        if role != ROOT && !self.auth.roles.contains_key(role) {
            return Err(AuthRefusal::RoleNotFound);
        }
        let Err(at) = user.roles.binary_search_by(|own| own.as_str().cmp(role)) else {
            return Ok(false);
        };
        user.roles.insert(at, role.to_owned());
        Ok(self.put_user(user))
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Result<bool, AuthRefusal> {
        self.check_root(name == ROOT && role == ROOT)?;
        let mut user = self.user(name)?;
        let at = user.roles.binary_search_by(|own| own.as_str().cmp(role));
        user.roles.remove(at.map_err(|_| AuthRefusal::RoleNotGranted)?);
        Ok(self.put_user(user))
    }

    fn add_role(&mut self, name: &str) -> Result<bool, AuthRefusal> {
        check_name(name, AuthRefusal::RoleNameEmpty)?;
        if self.auth.roles.contains_key(name) {
            return Err(AuthRefusal::RoleExists);
        }
        Ok(self.put_role(Role { name: name.to_owned(), permissions: Vec::new() }))
    }

    fn role(&self, name: &str) -> Result<Role, AuthRefusal> {
        self.auth.role(name).cloned().ok_or(AuthRefusal::RoleNotFound)
    }

    fn put_role(&mut self, role: Role) -> bool {
        let row = Bytes::copy_from_slice(role.name.as_bytes());
        let value = encode_role(&row, &role);
        self.rows.push((Tree::Roles, row, Some(value.into())));
        // What those who have it may do is put together anew.
        for user in having(&self.auth.users, &role.name) {
            self.auth.users.insert(user.name.clone(), Account::new(user));
        }
        self.auth.roles.insert(role.name.clone(), Arc::new(role));
        true
    }

    fn delete_role(&mut self, name: &str) -> Result<bool, AuthRefusal> {
        self.check_root(name == ROOT)?;
        self.auth.roles.remove(name).ok_or(AuthRefusal::RoleNotFound)?;
        self.rows.push((Tree::Roles, Bytes::copy_from_slice(name.as_bytes()), None));
        for mut user in having(&self.auth.users, name) {
            user.roles.retain(|own| own != name);
            self.put_user(user);
        }
        Ok(true)
    }

    fn grant_permission(&mut self, name: &str, new: &Permission) -> Result<bool, AuthRefusal> {
        if !is_valid(&new.key, &new.range_end) {
            return Err(AuthRefusal::InvalidManagement);
        }
        let mut role = self.role(name)?;
        match role.permissions.binary_search_by(|own| place(own).cmp(&place(new))) {
            Ok(at) => role.permissions[at] = new.clone(),
            Err(at) => role.permissions.insert(at, new.clone()),
        }
        Ok(self.put_role(role))
    }

    fn revoke_permission(
        &mut self,
        name: &str,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<bool, AuthRefusal> {
        let mut role = self.role(name)?;
        let at = role.permissions.binary_search_by(|own| place(own).cmp(&(key, range_end)));
        role.permissions.remove(at.map_err(|_| AuthRefusal::PermissionNotGranted)?);
        Ok(self.put_role(role))
    }
}

fn having(users: &BTreeMap<String, Arc<Account>>, role: &str) -> Vec<User> {
    let all = users.values().map(|account| &account.user);
    all.filter(|user| user.has_role(role)).cloned().collect()
}
