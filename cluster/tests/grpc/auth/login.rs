//! Names, passwords and tokens.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use revfs_api::wire::etcdserverpb as pb;
use revfs_cluster::auth::{AuthConfig, TokenKind};
use tonic::Code;

use super::{Client, INVALID_TOKEN, NOBODY, config, guarded, refused};
use crate::node::Node;

const FAILED: (Code, &str) =
    (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password");

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_for_who_knows_the_password() {
    let (node, root, user, nobody) = guarded().await;
    refused(nobody.token("u", "wrong").await, FAILED);
    refused(nobody.token("u", "").await, FAILED);
    refused(nobody.token("other", "other").await, FAILED);
    refused(nobody.token("", "").await, FAILED);
    root.add_user("cert", None).await.unwrap();
    let no_password = "auth: authentication failed, password was given for no password user";
    refused(nobody.token("cert", "").await, (Code::Unknown, no_password));
    user.put("a").await.unwrap();
    assert_ne!(user.token, root.token);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_tokens_while_authentication_is_disabled_and_none_is_looked_at() {
    let node = Node::start_guarded(config()).await;
    let nobody = Client::nobody(&node).await;
    let disabled = (Code::FailedPrecondition, "etcdserver: authentication is not enabled");
    refused(nobody.token("root", "root").await, disabled);
    nobody.with("nonsense").put("a").await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_given_as_a_token_opens_nothing() {
    let (node, _root, user, nobody) = guarded().await;
    refused(nobody.put("a").await, NOBODY);
    refused(nobody.with("").put("a").await, INVALID_TOKEN);
    refused(nobody.with("nonsense").put("a").await, INVALID_TOKEN);
    let token = user.token.clone().unwrap();
    // Each letter counts, but for the bits that are over at the end.
    for at in 0..token.len() - 1 {
        let mut forged = token.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = nobody.with(std::str::from_utf8(&forged).unwrap());
        refused(forged.get("a", "").await, INVALID_TOKEN);
    }
    // Of another cluster, whose user has the same name and password.
    let (other, _, foreign, _) = guarded().await;
    refused(nobody.with(&foreign.token.unwrap()).put("a").await, INVALID_TOKEN);
    other.stop().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_with_the_password_the_user_and_authentication() {
    let (node, root, user, nobody) = guarded().await;
    // Not with any change.
    root.add_role("new").await.unwrap();
    user.put("a").await.unwrap();

    root.change_password("u", "changed").await.unwrap();
    refused(user.put("a").await, INVALID_TOKEN);
    refused(nobody.token("u", "u").await, FAILED);
    let user = user.with(&nobody.token("u", "changed").await.unwrap());
    user.put("a").await.unwrap();

    root.delete_user("u").await.unwrap();
    refused(user.put("a").await, INVALID_TOKEN);
    root.add_user("u", Some("changed")).await.unwrap();
    root.grant_role("u", "r").await.unwrap();
    refused(user.put("a").await, INVALID_TOKEN);
    let user = user.with(&nobody.token("u", "changed").await.unwrap());
    user.put("a").await.unwrap();

    root.disable().await.unwrap();
    nobody.enable().await.unwrap();
    refused(user.put("a").await, INVALID_TOKEN);
    refused(root.get("a", "").await, INVALID_TOKEN);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_used_ends_and_one_that_is_used_lives_on() {
    let ttl = Duration::from_secs(2);
    let node =
        Node::start_guarded(AuthConfig { token: TokenKind::Simple { ttl }, ..config() }).await;
    let nobody = Client::nobody(&node).await;
    nobody.add_user("root", Some("root")).await.unwrap();
    nobody.grant_role("root", "root").await.unwrap();
    nobody.enable().await.unwrap();
    let (used, idle) = (nobody.user("root").await, nobody.user("root").await);
    let begun = Instant::now();
    // Twice as long as it says.
    while begun.elapsed() < 2 * ttl {
        used.get("a", "").await.unwrap();
        tokio::task::yield_now().await;
    }
    refused(idle.get("a", "").await, INVALID_TOKEN);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_holds_after_a_restart_of_the_member() {
    let (node, _root, user, _nobody) = guarded().await;
    let node = node.restart().await;
    let again = Client { token: user.token, ..Client::nobody(&node).await };
    again.put("a").await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_in_the_data_directory_is_trusted_unless_a_token_says_who_comes() {
    let (node, _root, user, _nobody) = guarded().await;
    let own = Client { channel: node.own_channel().await, token: None };
    own.put("z").await.unwrap();
    own.add_role("own").await.unwrap();
    let user = Client { token: user.token, ..own.clone() };
    user.put("a").await.unwrap();
    refused(user.put("z").await, super::DENIED);
    refused(own.with("nonsense").put("a").await, INVALID_TOKEN);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_may_come_hashed_and_none_is_cut() {
    let (node, root, _user, nobody) = guarded().await;
    let add = async |password: &str, hashed_password: String| {
        let request = pb::AuthUserAddRequest {
            name: "new".to_owned(),
            password: password.to_owned(),
            options: None,
            hashed_password,
        };
        root.auth().user_add(root.ask(request)).await
    };
    let not_a_hash =
        (Code::InvalidArgument, "hashedPassword is not what bcrypt makes of a password, in base64");
    refused(add("", "$$$".to_owned()).await, not_a_hash);
    refused(add("", STANDARD.encode("secret")).await, not_a_hash);
    let long = "p".repeat(73);
    let too_long = (Code::InvalidArgument, "password length exceeds 72 bytes");
    refused(add(&long, String::new()).await, too_long);
    // Of the empty password.
    let hash = "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.";
    add("", STANDARD.encode(hash)).await.unwrap();
    nobody.token("new", "").await.unwrap();
    refused(nobody.token("new", "other").await, FAILED);
    node.stop().await;
}
