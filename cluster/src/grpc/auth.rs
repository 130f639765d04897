//! etcd's Auth service: users, roles, and tokens for those who know a password.
//!
//! What needs root is decided by apply, or by the view that is read; a password is hashed only for who may
//! change it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use revfs_api::keyspace::{Error, Origin, Revision};
use revfs_api::status;
use revfs_api::wire::authpb::{self, permission};
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::auth_server::Auth;
use revfs_store::{
    Access, AuthChange, Body, Done, Need, PasswordHash, Permission, ROOT, TOKEN_SECRET_BYTES,
    TokenSecret,
};
use tonic::{Request, Response, Status};

use super::member::{Member, fail};
use crate::auth::{LoginError, is_hash};
use crate::convert;
use crate::local::Local;

pub(super) struct AuthService {
    pub(super) member: Arc<Member>,
}

type Answer<T> = Result<Response<T>, Status>;

fn refused(text: &str) -> Status {
    fail(Error::Invalid(text.to_owned()))
}

impl AuthService {
    /// Makes a change on behalf of who asks.
    async fn change(
        &self,
        node: &Local,
        change: AuthChange,
    ) -> Result<Option<pb::ResponseHeader>, Status> {
        let outcome = node.propose(Origin::default(), Body::Auth(change)).await.map_err(fail)?;
        match outcome.result.map_err(convert::refusal).map_err(fail)? {
            Done::AuthSet { .. } => {
                Ok(self.header(convert::revision_to_api(outcome.revision)).await)
            }
            other => Err(fail(convert::unexpected(&other))),
        }
    }

    async fn header(&self, revision: Revision) -> Option<pb::ResponseHeader> {
        Some(self.member.header(revision).await)
    }

    /// What is kept of a password, which may have come hashed.
    async fn hash(
        &self,
        node: &Local,
        password: String,
        hashed: String,
    ) -> Result<PasswordHash, Status> {
        node.require(Need::Root).map_err(fail)?;
        if hashed.is_empty() || !password.is_empty() {
            return node.hash_password(password).await.map_err(fail);
        }
        let hash = STANDARD.decode(hashed).ok().filter(|hash| is_hash(hash));
        let hash = hash.ok_or_else(|| {
            refused("hashedPassword is not what bcrypt makes of a password, in base64")
        })?;
        Ok(PasswordHash(Bytes::from(hash)))
    }
}

fn permission(permission: authpb::Permission) -> Result<Permission, Status> {
    let authpb::Permission { perm_type, key, range_end } = permission;
    let access = u8::try_from(perm_type).ok().and_then(Access::of_number);
    let access = access.ok_or_else(|| refused(status::INVALID_AUTH_MANAGEMENT))?;
    Ok(Permission { key, range_end, access })
}

fn shown(permission: &Permission) -> authpb::Permission {
    let Permission { key, range_end, access } = permission;
    let perm_type = i32::from(access.number());
    authpb::Permission { perm_type, key: key.clone(), range_end: range_end.clone() }
}

/// What root's role shows, whatever was granted to it.
fn everything() -> authpb::Permission {
    authpb::Permission {
        perm_type: permission::Type::Readwrite.into(),
        key: Bytes::new(),
        range_end: Bytes::from_static(&[0]),
    }
}

fn login_refused(error: LoginError) -> Status {
    match error {
        LoginError::NotEnabled | LoginError::Failed => refused(&error.to_string()),
        // etcd has no code for these.
        LoginError::NoPassword | LoginError::VerifyOnly => {
            Status::unknown(format!("auth: {error}"))
        }
        LoginError::Other(error) => fail(error),
    }
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Answer<pb::AuthEnableResponse> {
        let node = self.member.node(&request)?;
        let mut secret = [0; TOKEN_SECRET_BYTES];
        getrandom::fill(&mut secret)
            .map_err(|error| fail(Error::Unavailable { reason: error.to_string() }))?;
        let change = AuthChange::Enable { token_secret: TokenSecret(secret) };
        let header = self.change(&node, change).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Answer<pb::AuthDisableResponse> {
        let header = self.change(&*self.member.node(&request)?, AuthChange::Disable).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        _request: Request<pb::AuthStatusRequest>,
    ) -> Answer<pb::AuthStatusResponse> {
        let node = self.member.own_node()?;
        let look = |auth: &revfs_store::Auth| (auth.is_enabled(), auth.revision());
        let ((enabled, auth_revision), revision) =
            node.look_at_auth(Need::User, look).map_err(fail)?;
        let header = self.header(revision).await;
        Ok(Response::new(pb::AuthStatusResponse { header, enabled, auth_revision }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Answer<pb::AuthenticateResponse> {
        let node = self.member.own_node()?;
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        let token = node.login(&name, &password).await;
        let token = token
            .inspect_err(|error| tracing::info!(user = name, %error, "somebody was not let in"))
            .map_err(login_refused)?;
        let revision = node.current_revision().map_err(fail)?;
        let header = self.header(convert::revision_to_api(revision)).await;
        Ok(Response::new(pb::AuthenticateResponse { header, token }))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Answer<pb::AuthUserAddResponse> {
        let node = self.member.node(&request)?;
        let pb::AuthUserAddRequest { name, password, options, hashed_password } =
            request.into_inner();
        let password = match options {
            Some(authpb::UserAddOptions { no_password: true }) => None,
            _ => Some(self.hash(&node, password, hashed_password).await?),
        };
        let header = self.change(&node, AuthChange::UserAdd { name, password }).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Answer<pb::AuthUserGetResponse> {
        let node = self.member.node(&request)?;
        let name = request.into_inner().name;
        let look = |auth: &revfs_store::Auth| auth.user(&name).map(|user| user.roles.clone());
        let (roles, revision) = node.look_at_auth(Need::UserOf(&name), look).map_err(fail)?;
        let roles = roles.ok_or_else(|| refused(status::USER_NOT_FOUND))?;
        let header = self.header(revision).await;
        Ok(Response::new(pb::AuthUserGetResponse { header, roles }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Answer<pb::AuthUserListResponse> {
        let node = self.member.node(&request)?;
        let look = |auth: &revfs_store::Auth| auth.users().map(|user| user.name.clone()).collect();
        let (users, revision) = node.look_at_auth(Need::Root, look).map_err(fail)?;
        let header = self.header(revision).await;
        Ok(Response::new(pb::AuthUserListResponse { header, users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Answer<pb::AuthUserDeleteResponse> {
        let node = self.member.node(&request)?;
        let change = AuthChange::UserDelete { name: request.into_inner().name };
        let header = self.change(&node, change).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Answer<pb::AuthUserChangePasswordResponse> {
        let node = self.member.node(&request)?;
        let pb::AuthUserChangePasswordRequest { name, password, hashed_password } =
            request.into_inner();
        let password = self.hash(&node, password, hashed_password).await?;
        let header = self.change(&node, AuthChange::UserChangePassword { name, password }).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Answer<pb::AuthUserGrantRoleResponse> {
        let node = self.member.node(&request)?;
        let pb::AuthUserGrantRoleRequest { user, role } = request.into_inner();
        let header = self.change(&node, AuthChange::UserGrantRole { name: user, role }).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Answer<pb::AuthUserRevokeRoleResponse> {
        let node = self.member.node(&request)?;
        let pb::AuthUserRevokeRoleRequest { name, role } = request.into_inner();
        let header = self.change(&node, AuthChange::UserRevokeRole { name, role }).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Answer<pb::AuthRoleAddResponse> {
        let node = self.member.node(&request)?;
        let change = AuthChange::RoleAdd { name: request.into_inner().name };
        let header = self.change(&node, change).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Answer<pb::AuthRoleGetResponse> {
        let node = self.member.node(&request)?;
        let name = request.into_inner().role;
        let look = |auth: &revfs_store::Auth| {
            auth.role(&name).map(|role| match role.name.as_str() {
                ROOT => vec![everything()],
                _ => role.permissions.iter().map(shown).collect(),
            })
        };
        let (perm, revision) = node.look_at_auth(Need::RoleOf(&name), look).map_err(fail)?;
        let perm = perm.ok_or_else(|| refused(status::ROLE_NOT_FOUND))?;
        let header = self.header(revision).await;
        Ok(Response::new(pb::AuthRoleGetResponse { header, perm }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Answer<pb::AuthRoleListResponse> {
        let node = self.member.node(&request)?;
        let look = |auth: &revfs_store::Auth| auth.roles().map(|role| role.name.clone()).collect();
        let (roles, revision) = node.look_at_auth(Need::Root, look).map_err(fail)?;
        let header = self.header(revision).await;
        Ok(Response::new(pb::AuthRoleListResponse { header, roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Answer<pb::AuthRoleDeleteResponse> {
        let node = self.member.node(&request)?;
        let change = AuthChange::RoleDelete { name: request.into_inner().role };
        let header = self.change(&node, change).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Answer<pb::AuthRoleGrantPermissionResponse> {
        let node = self.member.node(&request)?;
        let pb::AuthRoleGrantPermissionRequest { name, perm } = request.into_inner();
        let given = perm.ok_or_else(|| refused(status::PERMISSION_NOT_GIVEN))?;
        let permission = permission(given)?;
        let change = AuthChange::RoleGrantPermission { name, permission };
        let header = self.change(&node, change).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Answer<pb::AuthRoleRevokePermissionResponse> {
        let node = self.member.node(&request)?;
        let pb::AuthRoleRevokePermissionRequest { role, key, range_end } = request.into_inner();
        let change = AuthChange::RoleRevokePermission { name: role, key, range_end };
        let header = self.change(&node, change).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}
