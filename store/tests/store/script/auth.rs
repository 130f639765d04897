//! The words of users and roles: `auth enable|disable`, `user add NAME [HASH]`, `user delete NAME`,
//! `user password NAME HASH`, `user grant|revoke NAME ROLE`, `role add|delete NAME`,
//! `role grant NAME read|write|both RANGE`, `role revoke NAME RANGE`. `auth` shows all of them, and
//! `as NAME[@AUTH REVISION]` before a command makes it a request of that user, or of `nobody`.

use bytes::Bytes;
use revfs_store::types::KeyRange;
use revfs_store::{
    Access, Auth, AuthChange, Need, PasswordHash, Permission, ReadError, ReadView, TokenSecret,
};

use super::parse::{Action, range};

fn hash(word: &str) -> PasswordHash {
    PasswordHash(Bytes::copy_from_slice(word.as_bytes()))
}

fn ends(word: &str) -> (Bytes, Bytes) {
    match range(word) {
        KeyRange::Key(key) => (key, Bytes::new()),
        KeyRange::Span { start, end } => (start, end),
        KeyRange::From(start) => (start, Bytes::from_static(&[0])),
    }
}

fn name(word: &str) -> String {
    if word == "\"\"" { String::new() } else { word.to_owned() }
}

pub(super) fn change(words: &[&str]) -> AuthChange {
    let text = |at: usize| name(words[at]);
    match (words[0], words[1]) {
        ("auth", "enable") => AuthChange::Enable { token_secret: TokenSecret([5; 32]) },
        ("auth", "disable") => AuthChange::Disable,
        ("user", "add") => {
            let password = words.get(3).map(|word| hash(word));
            AuthChange::UserAdd { name: text(2), password }
        }
        ("user", "delete") => AuthChange::UserDelete { name: text(2) },
        ("user", "password") => {
            AuthChange::UserChangePassword { name: text(2), password: hash(words[3]) }
        }
        ("user", "grant") => AuthChange::UserGrantRole { name: text(2), role: text(3) },
        ("user", "revoke") => AuthChange::UserRevokeRole { name: text(2), role: text(3) },
        ("role", "add") => AuthChange::RoleAdd { name: text(2) },
        ("role", "delete") => AuthChange::RoleDelete { name: text(2) },
        ("role", "grant") => {
            let access = match words[3] {
                "read" => Access::Read,
                "write" => Access::Write,
                "both" => Access::ReadWrite,
                other => panic!("unknown access {other}"),
            };
            let (key, range_end) = ends(words[4]);
            let permission = Permission { key, range_end, access };
            AuthChange::RoleGrantPermission { name: text(2), permission }
        }
        ("role", "revoke") => {
            let (key, range_end) = ends(words[3]);
            AuthChange::RoleRevokePermission { name: text(2), key, range_end }
        }
        other => panic!("unknown command {other:?}"),
    }
}

pub(super) fn show(auth: &Auth) -> String {
    let state = if auth.is_enabled() { "enabled" } else { "disabled" };
    let mut text = format!("{state}, auth revision {}", auth.revision());
    for user in auth.users() {
        let password = match &user.password {
            Some(PasswordHash(hash)) => format!("password {}", hash.escape_ascii()),
            None => "no password".to_owned(),
        };
        text += &format!("\nuser {} ({password}): {}", user.name, user.roles.join(" "));
    }
    for role in auth.roles() {
        let permissions = role.permissions.iter().map(|permission| {
            let Permission { key, range_end, access } = permission;
            format!("{access:?} {}..{}", key.escape_ascii(), range_end.escape_ascii())
        });
        let permissions: Vec<_> = permissions.collect();
        text += &format!("\nrole {}: {}", role.name, permissions.join(", "));
    }
    text
}

/// Whether the user may have the answer to a read.
pub(super) fn authorise(
    view: &ReadView,
    user: &str,
    at: Option<u64>,
    read: &Action,
) -> Result<(), ReadError> {
    let at = at.unwrap_or(view.auth().revision());
    match read {
        Action::Get(_, query) => view.authorise(user, at, Need::Read(&query.range)),
        Action::History(key) => view.authorise(user, at, Need::Read(&KeyRange::Key(key.clone()))),
        Action::Changes(_, _, range) => view.authorise(user, at, Need::Read(range)),
        Action::List(_, query) => {
            view.authorise(user, at, Need::Read(&KeyRange::prefix(&query.directory)))
        }
        Action::Lease(id) => view.authorise(user, at, Need::ReadLease(*id)),
        Action::Auth => view.authorise(user, at, Need::Root),
        _ => view.authorise(user, at, Need::User),
    }
}
