//! The rows of *users* (name -> password hash, roles) and *roles* (name -> permissions), and the row
//! `auth` of *counters* (-> enabled, auth revision, token secret).

use bytes::Bytes;

use super::{
    RowError, Tree, check_held_length, check_length, opened, row_error, sealed, sealed_with_length,
};
use crate::auth::{Access, PasswordHash, Permission, Role, TOKEN_SECRET_BYTES, TokenSecret, User};
use crate::codec::{DecodeError, Problem, Reader, Writer};

pub const AUTH_ROW: &[u8] = b"auth";

/// In place of the secret while authentication is disabled.
const NO_SECRET: [u8; TOKEN_SECRET_BYTES] = [0; TOKEN_SECRET_BYTES];

#[must_use]
pub fn encode_auth(token_secret: Option<&TokenSecret>, revision: u64) -> Vec<u8> {
    let mut body = Writer::with_capacity(9 + TOKEN_SECRET_BYTES);
    body.u8(u8::from(token_secret.is_some()));
    body.u64(revision);
    body.raw(token_secret.map_or(&NO_SECRET, |TokenSecret(secret)| secret));
    sealed(Tree::Counters, AUTH_ROW, body.as_slice())
}

/// Returns what tokens are signed with if authentication is enabled, and the auth revision.
///
/// # Errors
/// A row of another name, or whose checksum, length or state is wrong.
pub fn decode_auth(row: &[u8], value: &[u8]) -> Result<(Option<TokenSecret>, u64), RowError> {
    let read = || {
        check_length(value, 13 + TOKEN_SECRET_BYTES)?;
        let mut reader = Reader::new(opened(Tree::Counters, row, value)?);
        if row != AUTH_ROW {
            let problem = Problem::UnknownTag { tag: row.first().map_or(0, |&byte| byte.into()) };
            return Err(reader.error("counter", problem));
        }
        let is_enabled = reader.u8("enabled")?;
        if is_enabled > 1 {
            let problem = Problem::UnknownTag { tag: u32::from(is_enabled) };
            return Err(reader.error("enabled", problem));
        }
        let revision = reader.u64("auth revision")?;
        let mut secret = NO_SECRET;
        secret.copy_from_slice(reader.raw("token secret", TOKEN_SECRET_BYTES)?);
        match (is_enabled, secret) {
            (0, NO_SECRET) => Ok((None, revision)),
            (0, _) => Err(reader.error("token secret", Problem::OutOfBounds { value: 1 })),
            _ => Ok((Some(TokenSecret(secret)), revision)),
        }
    };
    read().map_err(row_error(Tree::Counters, row))
}

fn name_of(row: &[u8]) -> Result<String, DecodeError> {
    let error = |problem| DecodeError { field: "name", offset: 0, problem };
    if row.is_empty() {
        return Err(error(Problem::Truncated { wanted: 1, left: 0 }));
    }
    std::str::from_utf8(row).map(str::to_owned).map_err(|_| error(Problem::NotUtf8))
}

fn not_in_order(reader: &Reader<'_>, field: &'static str, at: usize) -> DecodeError {
    let value = u64::try_from(at).unwrap_or(u64::MAX);
    reader.error(field, Problem::OutOfBounds { value })
}

const FITS: &str = "the fields come from commands, whose lengths have four bytes";

fn count(length: usize) -> u32 {
    u32::try_from(length).expect(FITS)
}

#[must_use]
pub fn encode_user(row: &[u8], user: &User) -> Vec<u8> {
    let mut body = Writer::with_capacity(96);
    body.u8(u8::from(user.password.is_none()));
    if let Some(PasswordHash(hash)) = &user.password {
        body.bytes(hash).expect(FITS);
    }
    body.u32(count(user.roles.len()));
    for role in &user.roles {
        body.bytes(role.as_bytes()).expect(FITS);
    }
    sealed_with_length(Tree::Users, row, &body)
}

/// # Errors
/// A row whose checksum, length or name is wrong, or whose roles are not in ascending order.
pub fn decode_user(row: &[u8], value: &[u8]) -> Result<User, RowError> {
    let read = || {
        let name = name_of(row)?;
        check_held_length(value, 4)?;
        let mut reader = Reader::new(opened(Tree::Users, row, value)?);
        reader.raw("length", 4)?;
        let password = match reader.u8("no password")? {
            0 => Some(PasswordHash(Bytes::copy_from_slice(reader.bytes("password hash")?))),
            1 => None,
            other => {
                let problem = Problem::UnknownTag { tag: u32::from(other) };
                return Err(reader.error("no password", problem));
            }
        };
        let mut roles: Vec<String> = Vec::new();
        for at in 0..reader.count("roles")? {
            let role = reader.text("role")?;
            if roles.last().is_some_and(|last| *last >= role) {
                return Err(not_in_order(&reader, "role", at));
            }
            roles.push(role);
        }
        reader.end("roles")?;
        Ok(User { name, password, roles })
    };
    read().map_err(row_error(Tree::Users, row))
}

#[must_use]
pub fn encode_role(row: &[u8], role: &Role) -> Vec<u8> {
    let mut body = Writer::with_capacity(96);
    body.u32(count(role.permissions.len()));
    for Permission { key, range_end, access } in &role.permissions {
        body.u8(access.number());
        body.bytes(key).expect(FITS);
        body.bytes(range_end).expect(FITS);
    }
    sealed_with_length(Tree::Roles, row, &body)
}

/// # Errors
/// A row whose checksum, length or name is wrong, or whose permissions are not in ascending order.
pub fn decode_role(row: &[u8], value: &[u8]) -> Result<Role, RowError> {
    let read = || {
        let name = name_of(row)?;
        check_held_length(value, 4)?;
        let mut reader = Reader::new(opened(Tree::Roles, row, value)?);
        reader.raw("length", 4)?;
        let mut permissions: Vec<Permission> = Vec::new();
        for at in 0..reader.count("permissions")? {
            let number = reader.u8("access")?;
            let unknown = Problem::UnknownTag { tag: u32::from(number) };
            let access =
                Access::of_number(number).ok_or_else(|| reader.error("access", unknown))?;
            let key = Bytes::copy_from_slice(reader.bytes("key")?);
            let range_end = Bytes::copy_from_slice(reader.bytes("range end")?);
            let place = (&key, &range_end);
            if permissions.last().is_some_and(|last| (&last.key, &last.range_end) >= place) {
                return Err(not_in_order(&reader, "permission", at));
            }
            permissions.push(Permission { key, range_end, access });
        }
        reader.end("permissions")?;
        Ok(Role { name, permissions })
    };
    read().map_err(row_error(Tree::Roles, row))
}
