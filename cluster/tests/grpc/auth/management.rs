//! Users and roles: who may change them, and what is refused.

use revfs_api::wire::authpb::permission::Type;
use revfs_api::wire::etcdserverpb as pb;
use tonic::{Code, Status};

use super::{Client, DENIED, NOBODY, config, guarded, refused};
use crate::node::Node;

const INVALID: (Code, &str) = (Code::InvalidArgument, "etcdserver: invalid auth management");
const NO_USER: (Code, &str) = (Code::FailedPrecondition, "etcdserver: user name not found");
const NO_ROLE: (Code, &str) = (Code::FailedPrecondition, "etcdserver: role name not found");

impl Client {
    async fn get_user(&self, name: &str) -> Result<Vec<String>, Status> {
        let request = pb::AuthUserGetRequest { name: name.to_owned() };
        Ok(self.auth().user_get(self.ask(request)).await?.into_inner().roles)
    }

    async fn get_role(&self, name: &str) -> Result<Vec<(i32, String, String)>, Status> {
        let request = pb::AuthRoleGetRequest { role: name.to_owned() };
        let role = self.auth().role_get(self.ask(request)).await?.into_inner();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let shown = role.perm.iter();
        Ok(shown.map(|own| (own.perm_type, text(&own.key), text(&own.range_end))).collect())
    }

    async fn users(&self) -> Result<Vec<String>, Status> {
        let users = self.auth().user_list(self.ask(pb::AuthUserListRequest {})).await?;
        Ok(users.into_inner().users)
    }

    async fn roles(&self) -> Result<Vec<String>, Status> {
        let roles = self.auth().role_list(self.ask(pb::AuthRoleListRequest {})).await?;
        Ok(roles.into_inner().roles)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn enabling_needs_root() {
    let node = Node::start_guarded(config()).await;
    let nobody = Client::nobody(&node).await;
    let no_user = (Code::FailedPrecondition, "etcdserver: root user does not exist");
    refused(nobody.enable().await, no_user);
    nobody.add_user("root", Some("root")).await.unwrap();
    let no_role = (Code::FailedPrecondition, "etcdserver: root user does not have root role");
    refused(nobody.enable().await, no_role);
    nobody.grant_role("root", "root").await.unwrap();
    assert_eq!(nobody.status().await.unwrap(), (false, 3));
    nobody.enable().await.unwrap();
    // Who does not say who they are may ask this.
    assert_eq!(nobody.status().await.unwrap(), (true, 3));
    refused(nobody.enable().await, NOBODY);
    refused(nobody.disable().await, NOBODY);
    let root = nobody.user("root").await;
    root.enable().await.unwrap();
    root.disable().await.unwrap();
    assert_eq!(nobody.status().await.unwrap(), (false, 4));
    nobody.disable().await.unwrap();
    assert_eq!(nobody.status().await.unwrap(), (false, 4));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_changes_are_for_root() {
    let (node, _root, user, nobody) = guarded().await;
    for (who, refusal) in [(&user, DENIED), (&nobody, NOBODY)] {
        refused(who.enable().await, refusal);
        refused(who.disable().await, refusal);
        refused(who.add_user("new", Some("p")).await, refusal);
        refused(who.add_user("new", None).await, refusal);
        refused(who.delete_user("u").await, refusal);
        // Not even its own.
        refused(who.change_password("u", "p").await, refusal);
        refused(who.grant_role("u", "root").await, refusal);
        refused(who.revoke_role("u", "r").await, refusal);
        refused(who.add_role("new").await, refusal);
        refused(who.delete_role("r").await, refusal);
        refused(who.grant("r", Type::Readwrite, "\0", "\0").await, refusal);
        refused(who.revoke("r", "a", "b").await, refusal);
        refused(who.users().await, refusal);
        refused(who.roles().await, refusal);
        refused(who.get_user("root").await, refusal);
        refused(who.get_role("root").await, refusal);
    }
    assert_eq!(user.get_user("u").await.unwrap(), ["r"]);
    assert_eq!(user.get_role("r").await.unwrap(), [(2, "a".to_owned(), "b".to_owned())]);
    refused(nobody.get_user("u").await, NOBODY);
    refused(nobody.get_user("").await, NOBODY);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_cannot_be_locked_out() {
    let (node, root, _user, _nobody) = guarded().await;
    refused(root.delete_user("root").await, INVALID);
    refused(root.revoke_role("root", "root").await, INVALID);
    refused(root.delete_role("root").await, INVALID);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_change_is_said_in_etcds_words() {
    let (node, root, _user, _nobody) = guarded().await;
    let exists = |what: &'static str| (Code::FailedPrecondition, what);
    refused(root.add_user("u", Some("p")).await, exists("etcdserver: user name already exists"));
    refused(root.add_role("r").await, exists("etcdserver: role name already exists"));
    let empty = (Code::InvalidArgument, "etcdserver: role name is empty");
    refused(root.add_user("", Some("p")).await, NOBODY);
    refused(root.add_role("").await, empty);
    refused(root.delete_user("new").await, NO_USER);
    refused(root.change_password("new", "p").await, NO_USER);
    refused(root.grant_role("new", "r").await, NO_USER);
    refused(root.revoke_role("new", "r").await, NO_USER);
    refused(root.get_user("new").await, NO_USER);
    refused(root.delete_role("new").await, NO_ROLE);
    refused(root.get_role("new").await, NO_ROLE);
    refused(root.grant_role("u", "new").await, NO_ROLE);
    refused(root.grant("new", Type::Read, "a", "").await, NO_ROLE);
    refused(root.revoke("new", "a", "").await, NO_ROLE);
    let not_granted = exists("etcdserver: role is not granted to the user");
    refused(root.revoke_role("u", "new").await, not_granted);
    let no_permission = exists("etcdserver: permission is not granted to the role");
    refused(root.revoke("r", "a", "").await, no_permission);
    refused(root.grant("r", Type::Read, "", "").await, INVALID);
    refused(root.grant("r", Type::Read, "b", "a").await, INVALID);
    let request = pb::AuthRoleGrantPermissionRequest { name: "r".to_owned(), perm: None };
    let none = root.auth().role_grant_permission(root.ask(request)).await;
    refused(none, (Code::InvalidArgument, "etcdserver: permission not given"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_descriptions_say_what_was_changed() {
    let (node, root, user, _nobody) = guarded().await;
    root.add_role("root").await.unwrap();
    root.add_role("also").await.unwrap();
    root.grant_role("u", "also").await.unwrap();
    let (_, before) = root.status().await.unwrap();
    root.grant_role("u", "also").await.unwrap();
    assert_eq!(root.status().await.unwrap().1, before, "it had the role");
    root.grant("r", Type::Read, "k", "").await.unwrap();
    root.grant("r", Type::Write, "k", "").await.unwrap();
    root.grant("r", Type::Read, "k", "\0").await.unwrap();
    let text = |kind, key: &str, end: &str| (kind, key.to_owned(), end.to_owned());
    let expected = [text(2, "a", "b"), text(1, "k", ""), text(0, "k", "\0")];
    assert_eq!(root.get_role("r").await.unwrap(), expected);
    assert_eq!(root.get_role("root").await.unwrap(), [text(2, "", "\0")]);
    assert_eq!(root.users().await.unwrap(), ["root", "u"]);
    assert_eq!(root.roles().await.unwrap(), ["also", "r", "root"]);
    assert_eq!(user.get_user("u").await.unwrap(), ["also", "r"]);
    root.revoke("r", "k", "").await.unwrap();
    root.revoke_role("u", "also").await.unwrap();
    root.delete_role("also").await.unwrap();
    assert_eq!(root.get_role("r").await.unwrap().len(), 2);
    assert_eq!(root.get_user("u").await.unwrap(), ["r"]);
    node.stop().await;
}
