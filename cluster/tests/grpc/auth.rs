//! Authentication on a real node, as its clients see it: who gets a token, what it opens, and when it ends.

mod etcdctl;
mod jwt;
mod login;
mod management;
mod permissions;
mod services;
mod watches;

use revfs_api::wire::authpb::{Permission, UserAddOptions, permission};
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::auth_client::AuthClient;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_api::wire::etcdserverpb::lease_client::LeaseClient;
use revfs_api::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use revfs_api::wire::revfs::revfs_client::RevfsClient;
use revfs_cluster::auth::{AuthConfig, BCRYPT_COSTS};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::node::Node;

pub(crate) const DENIED: (Code, &str) = (Code::PermissionDenied, "etcdserver: permission denied");
const NOBODY: (Code, &str) = (Code::InvalidArgument, "etcdserver: user name is empty");
const INVALID_TOKEN: (Code, &str) = (Code::Unauthenticated, "etcdserver: invalid auth token");

/// Cheap passwords.
fn config() -> AuthConfig {
    AuthConfig { bcrypt_cost: *BCRYPT_COSTS.start(), ..AuthConfig::default() }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, (code, text): (Code, &str)) {
    let status = answer.expect_err(text);
    assert_eq!((status.code(), status.message()), (code, text));
}

/// A client, and who it says it is.
#[derive(Clone)]
struct Client {
    channel: Channel,
    token: Option<String>,
}

impl Client {
    async fn nobody(node: &Node) -> Self {
        Self { channel: node.channel().await, token: None }
    }

    fn with(&self, token: &str) -> Self {
        Self { channel: self.channel.clone(), token: Some(token.to_owned()) }
    }

    async fn token(&self, name: &str, password: &str) -> Result<String, Status> {
        let request =
            pb::AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
        Ok(self.auth().authenticate(request).await?.into_inner().token)
    }

    /// The same client as a user whose password is its name.
    async fn user(&self, name: &str) -> Self {
        self.with(&self.token(name, name).await.expect("its password is its name"))
    }

    fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            let token = MetadataValue::try_from(token).expect("tokens are ASCII");
            request.metadata_mut().insert("token", token);
        }
        request
    }

    fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    fn revfs(&self) -> RevfsClient<Channel> {
        RevfsClient::new(self.channel.clone())
    }

    async fn put(&self, key: &'static str) -> Result<(), Status> {
        let request = pb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() };
        self.kv().put(self.ask(request)).await.map(drop)
    }

    /// How many keys there are.
    async fn get(&self, key: &'static str, range_end: &'static str) -> Result<i64, Status> {
        let request = pb::RangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            count_only: true,
            ..Default::default()
        };
        Ok(self.kv().range(self.ask(request)).await?.into_inner().count)
    }

    async fn txn(&self, txn: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        self.kv().txn(self.ask(txn)).await.map(Response::into_inner)
    }

    async fn enable(&self) -> Result<(), Status> {
        self.auth().auth_enable(self.ask(pb::AuthEnableRequest {})).await.map(drop)
    }

    async fn disable(&self) -> Result<(), Status> {
        self.auth().auth_disable(self.ask(pb::AuthDisableRequest {})).await.map(drop)
    }

    async fn status(&self) -> Result<(bool, u64), Status> {
        let status = self.auth().auth_status(self.ask(pb::AuthStatusRequest {})).await?;
        let pb::AuthStatusResponse { enabled, auth_revision, .. } = status.into_inner();
        Ok((enabled, auth_revision))
    }

    async fn add_user(&self, name: &str, password: Option<&str>) -> Result<(), Status> {
        let request = pb::AuthUserAddRequest {
            name: name.to_owned(),
            password: password.unwrap_or_default().to_owned(),
            options: Some(UserAddOptions { no_password: password.is_none() }),
            hashed_password: String::new(),
        };
        self.auth().user_add(self.ask(request)).await.map(drop)
    }

    async fn delete_user(&self, name: &str) -> Result<(), Status> {
        let request = pb::AuthUserDeleteRequest { name: name.to_owned() };
        self.auth().user_delete(self.ask(request)).await.map(drop)
    }

    async fn change_password(&self, name: &str, password: &str) -> Result<(), Status> {
        let request = pb::AuthUserChangePasswordRequest {
            name: name.to_owned(),
            password: password.to_owned(),
            hashed_password: String::new(),
        };
        self.auth().user_change_password(self.ask(request)).await.map(drop)
    }

    async fn grant_role(&self, user: &str, role: &str) -> Result<(), Status> {
        let request = pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
        self.auth().user_grant_role(self.ask(request)).await.map(drop)
    }

    async fn revoke_role(&self, user: &str, role: &str) -> Result<(), Status> {
        let request =
            pb::AuthUserRevokeRoleRequest { name: user.to_owned(), role: role.to_owned() };
        self.auth().user_revoke_role(self.ask(request)).await.map(drop)
    }

    async fn add_role(&self, name: &str) -> Result<(), Status> {
        let request = pb::AuthRoleAddRequest { name: name.to_owned() };
        self.auth().role_add(self.ask(request)).await.map(drop)
    }

    async fn delete_role(&self, name: &str) -> Result<(), Status> {
        let request = pb::AuthRoleDeleteRequest { role: name.to_owned() };
        self.auth().role_delete(self.ask(request)).await.map(drop)
    }

    async fn grant(
        &self,
        role: &str,
        kind: permission::Type,
        key: &'static str,
        range_end: &'static str,
    ) -> Result<(), Status> {
        let perm =
            Permission { perm_type: kind.into(), key: key.into(), range_end: range_end.into() };
        let request =
            pb::AuthRoleGrantPermissionRequest { name: role.to_owned(), perm: Some(perm) };
        self.auth().role_grant_permission(self.ask(request)).await.map(drop)
    }

    async fn revoke(
        &self,
        role: &str,
        key: &'static str,
        range_end: &'static str,
    ) -> Result<(), Status> {
        let request = pb::AuthRoleRevokePermissionRequest {
            role: role.to_owned(),
            key: key.into(),
            range_end: range_end.into(),
        };
        self.auth().role_revoke_permission(self.ask(request)).await.map(drop)
    }
}

/// A node with the user `root`, and `u` that may read and write `[a, b)` by its role `r`, passwords as the
/// names, authentication enabled; root, the user, and nobody.
async fn guarded() -> (Node, Client, Client, Client) {
    let node = Node::start_guarded(config()).await;
    let nobody = Client::nobody(&node).await;
    nobody.add_user("root", Some("root")).await.expect("nobody is asked who they are");
    nobody.grant_role("root", "root").await.expect("nobody is asked who they are");
    nobody.add_user("u", Some("u")).await.expect("nobody is asked who they are");
    nobody.add_role("r").await.expect("nobody is asked who they are");
    nobody
        .grant("r", permission::Type::Readwrite, "a", "b")
        .await
        .expect("nobody is asked who they are");
    nobody.grant_role("u", "r").await.expect("nobody is asked who they are");
    nobody.enable().await.expect("nobody is asked who they are");
    let (root, user) = (nobody.user("root").await, nobody.user("u").await);
    (node, root, user, nobody)
}
