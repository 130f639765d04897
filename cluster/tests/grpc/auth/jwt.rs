//! Signed tokens on a node.

use revfs_cluster::auth::{AuthConfig, BCRYPT_COSTS};
use tonic::Code;

use super::{Client, INVALID_TOKEN, NOBODY, refused};
use crate::node::Node;

const OLD: (Code, &str) = (Code::InvalidArgument, "etcdserver: revision of auth store is old");

fn config(key: &str) -> AuthConfig {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/jwt");
    let spec = format!("jwt,sign-method=ES256,{}", key.replace("DIR", directory));
    AuthConfig::parse(&spec, 300, *BCRYPT_COSTS.start()).expect("the keys are there")
}

/// The user `root` and authentication.
async fn prepared(node: &Node) -> Client {
    let nobody = Client::nobody(node).await;
    nobody.add_user("root", Some("root")).await.expect("nobody is asked");
    nobody.grant_role("root", "root").await.expect("nobody is asked");
    nobody.enable().await.expect("there is root");
    nobody
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_an_old_revision_is_refused_until_its_user_comes_again() {
    let node = Node::start_guarded(config("priv-key=DIR/p256.pem")).await;
    let nobody = prepared(&node).await;
    let root = nobody.user("root").await;
    root.put("a").await.unwrap();
    root.add_role("new").await.unwrap();
    refused(root.put("a").await, OLD);
    refused(root.get("a", "").await, OLD);
    refused(root.add_role("newer").await, OLD);
    let root = nobody.user("root").await;
    root.put("a").await.unwrap();
    refused(nobody.with("nonsense").put("a").await, INVALID_TOKEN);
    refused(nobody.put("a").await, NOBODY);
    // It is nobody's business what it says while authentication is disabled.
    root.disable().await.unwrap();
    nobody.with("nonsense").put("a").await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_the_public_key_takes_tokens_and_gives_none() {
    let gives = Node::start_guarded(config("priv-key=DIR/p256.pem")).await;
    let takes = Node::start_guarded(config("pub-key=DIR/p256.pub.pem")).await;
    let token = prepared(&gives).await.user("root").await.token.unwrap();
    let nobody = prepared(&takes).await;
    let verify_only = "auth: token signing attempted with verify-only key";
    refused(nobody.token("root", "root").await, (Code::Unknown, verify_only));
    nobody.with(&token).put("a").await.unwrap();
    gives.stop().await;
    takes.stop().await;
}
