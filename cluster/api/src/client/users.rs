//! Users, roles and permissions, by etcd's Auth service.

use bytes::Bytes;

use super::{Client, Wire, within};
use crate::keyspace::{KeyRange, Result};
use crate::wire::authpb;
use crate::wire::authpb::permission::Type;
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::auth_client::AuthClient;

/// What the holder of a role may do in a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    pub may_read: bool,
    pub may_write: bool,
    pub range: KeyRange,
}

/// Whether users have to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthStatus {
    pub enabled: bool,
    /// Grows with each change of users and roles; 0 where the server does not tell.
    pub revision: u64,
}

/// One call of the service that changes something.
macro_rules! change {
    ($self:ident, $method:ident, $request:expr) => {{
        let request = $request;
        let sent = $self.once($self.settings().call_timeout, |at, limit| {
            let request = within(request.clone(), limit);
            async move { service(at.wire()).$method(request).await }
        });
        sent.await.map(drop)
    }};
}

/// One call of the service that only reads.
macro_rules! read {
    ($self:ident, $method:ident, $request:expr) => {{
        let request = $request;
        let sent = $self.repeat(|at, limit| {
            let request = within(request.clone(), limit);
            async move { service(at.wire()).$method(request).await }
        });
        sent.await?
    }};
}

fn service(wire: Wire) -> AuthClient<Wire> {
    AuthClient::new(wire)
}

/// Errors of all: what a read or a change meets; [`crate::keyspace::Error::Invalid`] with etcd's words for
/// users and roles that are not there, or there already.
#[expect(clippy::missing_errors_doc, reason = "they are the same for all, and stand above")]
impl Client {
    /// Without a password the user comes by a certificate.
    pub async fn user_add(&self, name: &str, password: Option<&str>) -> Result<()> {
        let options = authpb::UserAddOptions { no_password: password.is_none() };
        let (name, password) = (name.to_owned(), password.unwrap_or_default().to_owned());
        let options = Some(options);
        let request = pb::AuthUserAddRequest { name, password, options, ..Default::default() };
        change!(self, user_add, request)
    }

    pub async fn user_delete(&self, name: &str) -> Result<()> {
        change!(self, user_delete, pb::AuthUserDeleteRequest { name: name.to_owned() })
    }

    pub async fn users(&self) -> Result<Vec<String>> {
        Ok(read!(self, user_list, pb::AuthUserListRequest {}).users)
    }

    /// The roles of a user.
    pub async fn user(&self, name: &str) -> Result<Vec<String>> {
        Ok(read!(self, user_get, pb::AuthUserGetRequest { name: name.to_owned() }).roles)
    }

    pub async fn set_password(&self, name: &str, password: &str) -> Result<()> {
        let (name, password) = (name.to_owned(), password.to_owned());
        let request = pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
        change!(self, user_change_password, request)
    }

    pub async fn user_grant(&self, user: &str, role: &str) -> Result<()> {
        let (user, role) = (user.to_owned(), role.to_owned());
        change!(self, user_grant_role, pb::AuthUserGrantRoleRequest { user, role })
    }

    pub async fn user_revoke(&self, user: &str, role: &str) -> Result<()> {
        let (name, role) = (user.to_owned(), role.to_owned());
        change!(self, user_revoke_role, pb::AuthUserRevokeRoleRequest { name, role })
    }

    pub async fn role_add(&self, name: &str) -> Result<()> {
        change!(self, role_add, pb::AuthRoleAddRequest { name: name.to_owned() })
    }

    pub async fn role_delete(&self, name: &str) -> Result<()> {
        change!(self, role_delete, pb::AuthRoleDeleteRequest { role: name.to_owned() })
    }

    pub async fn roles(&self) -> Result<Vec<String>> {
        Ok(read!(self, role_list, pb::AuthRoleListRequest {}).roles)
    }

    /// The permissions of a role.
    pub async fn role(&self, name: &str) -> Result<Vec<Permission>> {
        let found = read!(self, role_get, pb::AuthRoleGetRequest { role: name.to_owned() });
        Ok(found.perm.into_iter().map(permission).collect())
    }

    /// A permission for the same range is replaced.
    pub async fn role_grant(&self, role: &str, permission: &Permission) -> Result<()> {
        let kind = match (permission.may_read, permission.may_write) {
            (true, true) => Type::Readwrite,
            (false, true) => Type::Write,
            (_, false) => Type::Read,
        };
        let (key, range_end) = interval(&permission.range);
        let perm = Some(authpb::Permission { perm_type: kind.into(), key, range_end });
        let name = role.to_owned();
        change!(self, role_grant_permission, pb::AuthRoleGrantPermissionRequest { name, perm })
    }

    pub async fn role_revoke(&self, role: &str, range: &KeyRange) -> Result<()> {
        let (key, range_end) = interval(range);
        let role = role.to_owned();
        let request = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
        change!(self, role_revoke_permission, request)
    }

    pub async fn auth_enable(&self) -> Result<()> {
        change!(self, auth_enable, pb::AuthEnableRequest {})
    }

    pub async fn auth_disable(&self) -> Result<()> {
        change!(self, auth_disable, pb::AuthDisableRequest {})
    }

    pub async fn auth_status(&self) -> Result<AuthStatus> {
        let found = read!(self, auth_status, pb::AuthStatusRequest {});
        Ok(AuthStatus { enabled: found.enabled, revision: found.auth_revision })
    }
}

/// etcd's `key` and `range_end`; no key is empty, so the empty start is the least key.
fn interval(range: &KeyRange) -> (Bytes, Bytes) {
    let least = Bytes::from_static(b"\0");
    let start = |start: &Bytes| if start.is_empty() { least.clone() } else { start.clone() };
    match range {
        KeyRange::Key(key) => (key.clone(), Bytes::new()),
        KeyRange::Span { start: from, end } => (start(from), end.clone()),
        KeyRange::From(from) => (start(from), least.clone()),
    }
}

fn permission(wire: authpb::Permission) -> Permission {
    let kind = wire.perm_type();
    let range = KeyRange::of_interval(wire.key, wire.range_end);
    Permission { may_read: kind != Type::Write, may_write: kind != Type::Read, range }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_understood_as_they_are_sent() {
        let ranges =
            [KeyRange::Key("/a".into()), KeyRange::prefix(b"/a/"), KeyRange::From("/z".into())];
        for range in ranges {
            let (key, range_end) = interval(&range);
            let wire = authpb::Permission { perm_type: Type::Write.into(), key, range_end };
            let expected = Permission { may_read: false, may_write: true, range };
            assert_eq!(permission(wire), expected);
        }
        assert_eq!(interval(&KeyRange::prefix(b"")), ("\0".into(), "\0".into()));
    }
}
