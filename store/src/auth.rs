//! Users, roles and permissions: who may read and write which keys, as state of the whole cluster.
//!
//! A member finds out outside apply who asks (a password, a token, a certificate) and proposes the
//! request with the user's name and the *auth revision* at which it did so; whether that user may do
//! it is decided by apply, from replicated state alone (`check.rs`). The auth revision goes up with
//! every change of users and roles and when authentication is disabled, so that nothing that was
//! found out before a change outlasts it. It is no revision of the keys.
//!
//! What is in *users*, *roles* and the row `auth` of *counters* is also kept whole in memory
//! ([`Auth`]), behind one `Arc` that each view holds: a read is authorised by the users and roles of
//! the very state that it is answered from.
//!
//! The rules are etcd's: `root` is the user and the role that may do everything, permissions are
//! intervals of keys, and what spans several is allowed if they cover it together.

use std::fmt;

use bytes::Bytes;

mod access;
mod change;
mod check;
mod state;

pub use check::Need;
pub(crate) use check::admit;
pub use state::Auth;

/// The user that must exist, and the role that it must have, before authentication is enabled.
pub const ROOT: &str = "root";

/// As long as the hash that tokens are signed with.
pub const TOKEN_SECRET_BYTES: usize = 32;

/// The longest name of a user or role: it is the key of a row.
pub const NAME_BYTES_MAX: usize = 1_000;

/// Below this lie the side records of keys; each needs the permission of its key.
pub const RECORD_PREFIX: &[u8] = b"\0revfs/a";

/// Below this lie the reservations of keys, which need the permission of their key. The prefix itself
/// is a key too: it says that mounts reserve in the store. Whoever is logged in may read it, and
/// whoever may write anything may write it.
pub const RESERVATION_PREFIX: &[u8] = b"\0revfs/r";

/// Below this lie the locks that mounts hold of files; each needs the permission of its file's key.
pub(crate) const LOCK_PREFIX: &[u8] = b"\0revfs/l";

/// Beside each key may lie keys with these prefixes, for which the permission of that key counts.
const COVERED_PREFIXES: [&[u8]; 3] = [RECORD_PREFIX, LOCK_PREFIX, RESERVATION_PREFIX];

/// What a permission allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

impl Access {
    const ALL: [Self; 3] = [Self::Read, Self::Write, Self::ReadWrite];

    /// etcd's number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::ReadWrite => 2,
        }
    }

    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|access| access.number() == number)
    }

    #[must_use]
    pub fn reads(self) -> bool {
        self != Self::Write
    }

    #[must_use]
    pub fn writes(self) -> bool {
        self != Self::Read
    }
}

/// An interval of keys as etcd writes it: one key if `range_end` is empty, everything from `key` on if
/// it is one zero byte, otherwise `[key, range_end)`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    pub key: Bytes,
    pub range_end: Bytes,
    pub access: Access,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    pub name: String,
    /// In the order of key and range end, each pair once.
    pub permissions: Vec<Permission>,
}

/// What a password is compared with; the store does not look at it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub Bytes);

impl fmt::Debug for PasswordHash {
    /// Commands are printed where something goes wrong with them; this is nobody's business there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({} bytes)", self.0.len())
    }
}

/// What the members sign tokens with, so that one that any of them gave holds on all. It is chosen by who
/// proposes to enable authentication, and forgotten when that is disabled: no token outlasts it. The
/// store does not look at it.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret(pub [u8; TOKEN_SECRET_BYTES]);

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret")
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// `None`: the user has no password, and is known by a certificate alone.
    pub password: Option<PasswordHash>,
    /// In ascending order, each once. All exist, but for `root`, which may be granted before it does.
    pub roles: Vec<String>,
}

impl User {
    /// Whether the user may do everything.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.has_role(ROOT)
    }

    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.binary_search_by(|own| own.as_str().cmp(role)).is_ok()
    }
}

/// A change of users, roles, or of whether they matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthChange {
    /// Needs the user `root` with the role `root`. Nothing changes if it is so already.
    Enable {
        token_secret: TokenSecret,
    },
    /// Nothing changes if it is so already.
    Disable,
    UserAdd {
        name: String,
        password: Option<PasswordHash>,
    },
    UserDelete {
        name: String,
    },
    /// A user without a password stays without.
    UserChangePassword {
        name: String,
        password: PasswordHash,
    },
    /// Nothing changes if the user has the role already.
    UserGrantRole {
        name: String,
        role: String,
    },
    UserRevokeRole {
        name: String,
        role: String,
    },
    RoleAdd {
        name: String,
    },
    /// Takes the role from all users.
    RoleDelete {
        name: String,
    },
    /// In place of the role's permission of the same key and range end, if it has one.
    RoleGrantPermission {
        name: String,
        permission: Permission,
    },
    RoleRevokePermission {
        name: String,
        key: Bytes,
        range_end: Bytes,
    },
}

/// Why a request is not allowed, or a change of users and roles not made; the words are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthRefusal {
    /// Also of a request without a user, while authentication is enabled.
    #[error("user name is empty")]
    UserNameEmpty,
    #[error("user name already exists")]
    UserExists,
    #[error("user name not found")]
    UserNotFound,
    #[error("role name is empty")]
    RoleNameEmpty,
    #[error("role name already exists")]
    RoleExists,
    #[error("role name not found")]
    RoleNotFound,
    #[error("role is not granted to the user")]
    RoleNotGranted,
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    /// Of what would lock out root while authentication is enabled, and of an interval without keys.
    #[error("invalid auth management")]
    InvalidManagement,
    #[error("root user does not exist")]
    RootUserMissing,
    #[error("root user does not have root role")]
    RootRoleMissing,
    #[error("permission denied")]
    PermissionDenied,
    /// Users or roles changed since the request was let in: find out again who asks.
    #[error("revision of auth store is old")]
    OldRevision,
    #[error("name of {bytes} bytes is longer than {max}")]
    NameTooLong { bytes: usize, max: usize },
}
