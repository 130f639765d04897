//! Random changes of users and roles, and users who ask for what would have been done anyway.

use bytes::Bytes;
use revfs_store::types::KeyRange;
use revfs_store::{Access, AuthChange, Body, Command, PasswordHash, Permission, TokenSecret};

use super::{Random, members, range};

const USERS: [&str; 4] = ["root", "alice", "bob", ""];
const ROLES: [&str; 5] = ["root", "app", "reader", "other", ""];

fn user(r: &mut Random) -> String {
    let some = if r.one_in(30) { &USERS[..] } else { &USERS[..3] };
    r.pick(some).to_owned()
}

fn role(r: &mut Random) -> String {
    let some = if r.one_in(30) { &ROLES[..] } else { &ROLES[..4] };
    r.pick(some).to_owned()
}

fn ends(r: &mut Random) -> (Bytes, Bytes) {
    match range(r) {
        KeyRange::Key(key) => (key, Bytes::new()),
        KeyRange::Span { start, end } => (start, end),
        KeyRange::From(start) => (start, Bytes::from_static(&[0])),
    }
}

fn hash(r: &mut Random) -> PasswordHash {
    PasswordHash(Bytes::from(vec![7; r.index(4)]))
}

pub(crate) fn change(r: &mut Random) -> AuthChange {
    match r.below(40) {
        0..6 => AuthChange::Enable { token_secret: TokenSecret([5; 32]) },
        6 => AuthChange::Disable,
        7..11 => {
            let password = if r.one_in(3) { None } else { Some(hash(r)) };
            AuthChange::UserAdd { name: user(r), password }
        }
        11 => AuthChange::UserDelete { name: user(r) },
        12..14 => AuthChange::UserChangePassword { name: user(r), password: hash(r) },
        14..20 => AuthChange::UserGrantRole { name: user(r), role: role(r) },
        20..22 => AuthChange::UserRevokeRole { name: user(r), role: role(r) },
        22..26 => AuthChange::RoleAdd { name: role(r) },
        26 => AuthChange::RoleDelete { name: role(r) },
        27..38 => {
            let access = r.pick(&[Access::Read, Access::Write, Access::ReadWrite]);
            let (key, range_end) = ends(r);
            let permission = Permission { key, range_end, access };
            AuthChange::RoleGrantPermission { name: role(r), permission }
        }
        _ => {
            let (key, range_end) = ends(r);
            AuthChange::RoleRevokePermission { name: role(r), key, range_end }
        }
    }
}

/// The user who asks, and the auth revision at which that was found out.
pub(crate) fn asker(r: &mut Random, auth_revision: u64) -> (String, u64) {
    let revision = if r.one_in(12) { r.below(auth_revision + 2) } else { auth_revision };
    (if r.one_in(4) { "root".to_owned() } else { user(r) }, revision)
}

/// Now and then a change of users, roles or members instead of `command`, and a user who asks for it.
pub(crate) fn asked(r: &mut Random, auth_revision: u64, mut command: Command) -> Command {
    if r.one_in(25) {
        command.body = Body::Auth(change(r));
    } else if r.one_in(25) {
        command.body = Body::Member(members::change(r));
    }
    if r.one_in(3) {
        let (user, auth_revision) = asker(r, auth_revision);
        command.body = Body::Request { user, auth_revision, body: Box::new(command.body) };
    }
    command
}
