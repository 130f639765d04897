//! [`Auth`]: whether authentication is enabled, and all users and roles, as of one log entry.
//!
//! It is never changed: a change makes another one, which shares with it whoever is not concerned.
//! What a user may do is put together when it is asked for the first time.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::access::Allowed;
use super::{AuthRefusal, Role, TokenSecret, User};
use crate::env::Environment;
use crate::error::OpenError;
use crate::schema::{AUTH_ROW, RowError, Tree, decode_auth, decode_role, decode_user};

/// See the module.
#[derive(Clone, Debug)]
pub struct Auth {
    /// Authentication is enabled.
    pub(super) token_secret: Option<TokenSecret>,
    pub(super) revision: u64,
    pub(super) users: BTreeMap<String, Arc<Account>>,
    pub(super) roles: BTreeMap<String, Arc<Role>>,
}

#[derive(Debug)]
pub(super) struct Account {
    pub(super) user: User,
    allowed: OnceLock<Allowed>,
}

impl Account {
    pub(super) fn new(user: User) -> Arc<Self> {
        Arc::new(Self { user, allowed: OnceLock::new() })
    }
}

/// On whose behalf something is done.
#[derive(Clone, Copy)]
pub(super) enum Who<'a> {
    /// Nobody is asked, or it is a user who may do everything.
    Anything,
    User(&'a User, &'a Allowed),
}

impl Default for Auth {
    fn default() -> Self {
        Self { token_secret: None, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

impl Auth {
    /// What the last commit says.
    pub(crate) fn load(environment: &Environment) -> Result<Self, OpenError> {
        let path = || environment.path().to_path_buf();
        let lmdb = |e: heed::Error| OpenError::Lmdb { path: path(), reason: e.to_string() };
        let corrupt = |source: RowError| OpenError::CorruptRow { path: path(), source };
        let snapshot = environment.snapshot().map_err(lmdb)?;
        let mut auth = Self::default();
        let counters = environment.rows(Tree::Counters);
        if let Some(value) = counters.get(&snapshot, AUTH_ROW).map_err(lmdb)? {
            (auth.token_secret, auth.revision) = decode_auth(AUTH_ROW, value).map_err(corrupt)?;
        }
        for found in environment.rows(Tree::Users).iter(&snapshot).map_err(lmdb)? {
            let (row, value) = found.map_err(lmdb)?;
            let user = decode_user(row, value).map_err(corrupt)?;
            auth.users.insert(user.name.clone(), Account::new(user));
        }
        for found in environment.rows(Tree::Roles).iter(&snapshot).map_err(lmdb)? {
            let (row, value) = found.map_err(lmdb)?;
            let role = decode_role(row, value).map_err(corrupt)?;
            auth.roles.insert(role.name.clone(), Arc::new(role));
        }
        Ok(auth)
    }

    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.token_secret.is_some()
    }

    /// What tokens are signed with; `None` while authentication is disabled.
    #[must_use]
    pub fn token_secret(&self) -> Option<&TokenSecret> {
        self.token_secret.as_ref()
    }

    /// 1 at first; greater after each change of users and roles, and after authentication is disabled.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(|account| &account.user)
    }

    /// By name.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values().map(|account| &account.user)
    }

    #[must_use]
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name).map(Arc::as_ref)
    }

    /// By name.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.values().map(Arc::as_ref)
    }

    /// Who `name` is, as of the auth revision at which that was found out.
    pub(super) fn who(&self, name: &str, revision: u64) -> Result<Who<'_>, AuthRefusal> {
        if !self.is_enabled() {
            return Ok(Who::Anything);
        }
        if name.is_empty() || revision == 0 {
            return Err(AuthRefusal::UserNameEmpty);
        }
        if revision < self.revision {
            return Err(AuthRefusal::OldRevision);
        }
        let account = self.users.get(name).ok_or(AuthRefusal::PermissionDenied)?;
        if account.user.is_root() {
            return Ok(Who::Anything);
        }
        let allowed = account.allowed.get_or_init(|| {
            let roles = account.user.roles.iter().filter_map(|role| self.roles.get(role));
            Allowed::new(roles.flat_map(|role| &role.permissions))
        });
        Ok(Who::User(&account.user, allowed))
    }
}
