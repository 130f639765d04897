//! Changes of users and roles, and who asks for a request, in an encoded command.

use super::{Body, Decoder, EncodeError, Encoder, tag};
use crate::auth::{Access, AuthChange, PasswordHash, Permission, TOKEN_SECRET_BYTES, TokenSecret};
use crate::codec::DecodeError;

impl Encoder {
    pub(super) fn request(
        &mut self,
        user: &str,
        auth_revision: u64,
        body: &Body,
    ) -> Result<(), EncodeError> {
        if matches!(body, Body::Request { .. }) {
            return Err(EncodeError::RequestInRequest);
        }
        self.0.u8(tag::BODY_REQUEST);
        self.bytes(user.as_bytes())?;
        self.0.u64(auth_revision);
        self.body(body)
    }

    pub(super) fn auth(&mut self, change: &AuthChange) -> Result<(), EncodeError> {
        self.0.u8(tag::BODY_AUTH);
        match change {
            AuthChange::Enable { token_secret: TokenSecret(secret) } => {
                self.0.u8(tag::AUTH_ENABLE);
                self.0.raw(secret);
                Ok(())
            }
            AuthChange::Disable => {
                self.0.u8(tag::AUTH_DISABLE);
                Ok(())
            }
            AuthChange::UserAdd { name, password } => {
                self.0.u8(tag::USER_ADD);
                self.bytes(name.as_bytes())?;
                self.0.u8(u8::from(password.is_none()));
                password.as_ref().map_or(Ok(()), |PasswordHash(hash)| self.bytes(hash))
            }
            AuthChange::UserDelete { name } => self.names(tag::USER_DELETE, &[name]),
            AuthChange::UserChangePassword { name, password: PasswordHash(hash) } => {
                self.pair(tag::USER_CHANGE_PASSWORD, name.as_bytes(), hash)
            }
            AuthChange::UserGrantRole { name, role } => {
                self.names(tag::USER_GRANT_ROLE, &[name, role])
            }
            AuthChange::UserRevokeRole { name, role } => {
                self.names(tag::USER_REVOKE_ROLE, &[name, role])
            }
            AuthChange::RoleAdd { name } => self.names(tag::ROLE_ADD, &[name]),
            AuthChange::RoleDelete { name } => self.names(tag::ROLE_DELETE, &[name]),
            AuthChange::RoleGrantPermission { name, permission } => {
                self.names(tag::ROLE_GRANT_PERMISSION, &[name])?;
                self.pair(permission.access.number(), &permission.key, &permission.range_end)
            }
            AuthChange::RoleRevokePermission { name, key, range_end } => {
                self.names(tag::ROLE_REVOKE_PERMISSION, &[name])?;
                self.bytes(key)?;
                self.bytes(range_end)
            }
        }
    }

    fn names(&mut self, tag: u8, names: &[&String]) -> Result<(), EncodeError> {
        self.0.u8(tag);
        names.iter().try_for_each(|name| self.bytes(name.as_bytes()))
    }
}

impl Decoder<'_> {
    pub(super) fn request(&mut self) -> Result<Body, DecodeError> {
        let user = self.reader.text("user")?;
        let auth_revision = self.reader.u64("auth revision")?;
        let tag = self.reader.u8("requested body")?;
        if tag == tag::BODY_REQUEST {
            return Err(self.unknown("requested body", tag));
        }
        Ok(Body::Request { user, auth_revision, body: Box::new(self.body(tag)?) })
    }

    pub(super) fn auth(&mut self) -> Result<AuthChange, DecodeError> {
        Ok(match self.reader.u8("auth change")? {
            tag::AUTH_ENABLE => {
                let mut secret = [0; TOKEN_SECRET_BYTES];
                secret.copy_from_slice(self.reader.raw("token secret", TOKEN_SECRET_BYTES)?);
                AuthChange::Enable { token_secret: TokenSecret(secret) }
            }
            tag::AUTH_DISABLE => AuthChange::Disable,
            tag::USER_ADD => {
                let name = self.reader.text("user")?;
                let password = match self.reader.u8("no password")? {
                    0 => Some(PasswordHash(self.bytes("password hash")?)),
                    1 => None,
                    other => return Err(self.unknown("no password", other)),
                };
                AuthChange::UserAdd { name, password }
            }
            tag::USER_DELETE => AuthChange::UserDelete { name: self.reader.text("user")? },
            tag::USER_CHANGE_PASSWORD => AuthChange::UserChangePassword {
                name: self.reader.text("user")?,
                password: PasswordHash(self.bytes("password hash")?),
            },
            tag::USER_GRANT_ROLE => {
                let (name, role) = (self.reader.text("user")?, self.reader.text("role")?);
                AuthChange::UserGrantRole { name, role }
            }
            tag::USER_REVOKE_ROLE => {
                let (name, role) = (self.reader.text("user")?, self.reader.text("role")?);
                AuthChange::UserRevokeRole { name, role }
            }
            tag::ROLE_ADD => AuthChange::RoleAdd { name: self.reader.text("role")? },
            tag::ROLE_DELETE => AuthChange::RoleDelete { name: self.reader.text("role")? },
            tag::ROLE_GRANT_PERMISSION => {
                let name = self.reader.text("role")?;
                let number = self.reader.u8("access")?;
                let Some(access) = Access::of_number(number) else {
                    return Err(self.unknown("access", number));
                };
                let (key, range_end) = (self.bytes("key")?, self.bytes("range end")?);
                let permission = Permission { key, range_end, access };
                AuthChange::RoleGrantPermission { name, permission }
            }
            tag::ROLE_REVOKE_PERMISSION => AuthChange::RoleRevokePermission {
                name: self.reader.text("role")?,
                key: self.bytes("key")?,
                range_end: self.bytes("range end")?,
            },
            other => return Err(self.unknown("auth change", other)),
        })
    }
}
