//! Who is no member, or not the one it was, is refused and harms nobody; the log says who, what was expected, what
//! came, and what to do.

use std::path::Path;

use bytes::Bytes;
use revfs_api::client::Tls as ClientTls;
use revfs_api::keyspace::Error;
use revfs_cluster::tls::{Tls, TlsOptions};
use revfs_cluster::{Founding, NodeConfig};
use tempfile::TempDir;

use crate::certificates::{Authority, Pair};
use crate::logged::{keep, logged};
use crate::rig::{Cluster, get, patient, put, wait_for};

async fn is_writable(cluster: &Cluster, node: usize) {
    let space = cluster.space(node);
    wait_for("an acknowledged change", async || put(&space, "k", "v").await.ok()).await;
}

async fn shown(cluster: &Cluster, node: usize, key: &str) -> Option<Bytes> {
    let space = cluster.space(node);
    wait_for("a confirmed read", async || get(&space, key).await.ok()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_disk_was_wiped_is_refused_and_the_others_go_on() {
    keep();
    let mut cluster = Cluster::start_with(3, 0, patient).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let id = cluster.node(follower).member_id();
    is_writable(&cluster, leader).await;
    cluster.stop_member(follower).await;
    cluster.wipe(follower);
    cluster.start_member(follower).await;
    for _ in 0..20 {
        is_writable(&cluster, leader).await;
    }
    let status = cluster.space(follower).status().await.unwrap();
    assert_eq!(status.applied_index, 0, "it was brought nothing, and began no cluster of its own");
    let refused = put(&cluster.space(follower), "from the wiped", "v").await;
    assert!(matches!(refused, Err(Error::NoQuorum { .. })), "{refused:?}");
    assert_eq!(shown(&cluster, leader, "from the wiped").await, None);
    logged(&[
        format!("member {id:x} at {}: ", cluster.url(follower)),
        "it was known with data directory ".to_owned(),
        format!("'revfs member replace {id:x} URL'"),
    ])
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_at_a_members_address_is_refused() {
    keep();
    let mut cluster = Cluster::start_with(3, 0, patient).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let expected = cluster.node(follower).member_id();
    cluster.stop_member(follower).await;
    cluster.wipe(follower);
    cluster.set_token("another");
    cluster.start_member(follower).await;
    is_writable(&cluster, leader).await;
    let refused = put(&cluster.space(follower), "k", "other").await;
    assert!(matches!(refused, Err(Error::NoQuorum { .. })), "{refused:?}");
    assert_eq!(shown(&cluster, leader, "k").await.unwrap(), "v");
    let (own, came) = (cluster.node(leader).cluster_id(), cluster.node(follower));
    // Each of them says whom it found where it looked for a member.
    logged(&[
        format!("member {expected:x} at {}: ", cluster.url(follower)),
        format!("member {:x} of cluster {:016x} answers", came.member_id(), came.cluster_id()),
        format!(
            "not one of {own:016x}: check the peer URLs, and that node's initial-cluster-token"
        ),
    ])
    .await;
    let (leads, foreign) = (cluster.node(leader).member_id(), came.cluster_id());
    logged(&[
        format!(" at {}: ", cluster.url(leader)),
        format!("member {leads:x} of cluster {own:016x} answers there, not one of {foreign:016x}"),
    ])
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_at_each_others_addresses_are_refused_and_take_part_at_their_own() {
    keep();
    let mut cluster = Cluster::start_with(3, 0, patient).await;
    let leader = cluster.leader().await;
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    is_writable(&cluster, leader).await;
    let id = |cluster: &Cluster, node: usize| cluster.node(node).member_id();
    let (one_id, other_id) = (id(&cluster, one), id(&cluster, other));
    cluster.stop_member(one).await;
    cluster.stop_member(other).await;
    for (node, at) in [(one, other), (other, one)] {
        let address = cluster.address(at);
        let swap = |config: &mut NodeConfig| config.peers.listeners[0].address = address;
        cluster.start_member_with(node, swap).await;
    }
    logged(&[
        format!("member {one_id:x} at {}: ", cluster.url(one)),
        format!("member {other_id:x} answers there, not {one_id:x}: check the peer URLs of both"),
        "'revfs member update'".to_owned(),
    ])
    .await;
    cluster.stop_member(one).await;
    cluster.stop_member(other).await;
    cluster.start_member(one).await;
    cluster.start_member(other).await;
    cluster.leader().await;
    is_writable(&cluster, one).await;
    cluster.agree().await;
    cluster.stop().await;
}

/// A node whose peer URLs are encrypted, with what it shows and whom it believes.
fn encrypt(config: &mut NodeConfig, directory: &Path, trusted: &Authority, shown: Option<&Pair>) {
    std::fs::create_dir_all(directory).unwrap();
    let trusted_path = directory.join("trusted.pem");
    std::fs::write(&trusted_path, &trusted.pem).unwrap();
    let https = |url: &mut String| *url = url.replace("http://", "https://");
    config.peers.advertised.iter_mut().for_each(https);
    if let Founding::Together(founders) = &mut config.founding {
        founders.members.iter_mut().flatten().for_each(https);
    }
    let own = trusted.issue("nobody", 99);
    let (certificate, key) = shown.unwrap_or(&own).write(directory);
    let options = TlsOptions {
        trusted_authorities: Some(trusted_path.clone()),
        ..TlsOptions::new(certificate.clone(), key.clone())
    };
    config.peers.listeners[0].tls = Some(Tls::load(options).unwrap());
    let shows = shown.map(|_| (certificate.as_path(), key.as_path()));
    let (certificate, key) = (shows.map(|both| both.0), shows.map(|both| both.1));
    let name = Some("localhost".to_owned());
    config.peers.tls =
        ClientTls::from_files(Some(trusted_path.as_path()), certificate, key, name).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_certificate_of_the_members_authority_is_refused_and_told_so() {
    keep();
    let directory = TempDir::new().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let files = |name: &str| directory.path().join(name);
    let mut cluster = Cluster::unstarted(3, 0, patient);
    let shown = [1, 2, 3].map(|serial| ours.issue(&format!("m{serial}"), serial));
    for (node, own) in shown.iter().enumerate() {
        let place = files(&format!("m{node}"));
        let good = |config: &mut NodeConfig| encrypt(config, &place, &ours, Some(own));
        cluster.start_member_with(node, good).await;
    }
    let (leader, odd) = (cluster.leader().await, cluster.follower().await);
    is_writable(&cluster, odd).await;
    let url = cluster.url(odd).replace("http://", "https://");
    let id = cluster.node(odd).member_id();

    // Of another authority: the others do not believe it, and say why; nor is it let in.
    cluster.stop_member(odd).await;
    let foreign = theirs.issue("odd", 1);
    let place = files("foreign");
    let bad = |config: &mut NodeConfig| encrypt(config, &place, &ours, Some(&foreign));
    cluster.start_member_with(odd, bad).await;
    is_writable(&cluster, leader).await;
    logged(&[
        format!("member {id:x} at {url}: "),
        "was issued by none of the authorities in this member's peer-trusted-ca-file".to_owned(),
    ])
    .await;
    logged(&[
        "another member was refused: its certificate (its peer-cert-file) was issued by none"
            .to_owned(),
    ])
    .await;

    // None at all.
    cluster.stop_member(odd).await;
    let place = files("none");
    let bare = |config: &mut NodeConfig| encrypt(config, &place, &ours, None);
    cluster.start_member_with(odd, bare).await;
    is_writable(&cluster, leader).await;
    put(&cluster.space(odd), "k", "unheard").await.unwrap_err();
    logged(&["another member was refused: it shows no certificate".to_owned()]).await;

    // Not encrypted at all.
    cluster.stop_member(odd).await;
    cluster.start_member(odd).await;
    is_writable(&cluster, leader).await;
    logged(&[format!("member {id:x} at {url}: "), "it does not speak TLS".to_owned()]).await;

    // With its own again it takes part.
    cluster.stop_member(odd).await;
    let place = files("again");
    let good = |config: &mut NodeConfig| encrypt(config, &place, &ours, Some(&shown[odd]));
    cluster.start_member_with(odd, good).await;
    is_writable(&cluster, odd).await;
    cluster.agree().await;
    cluster.stop().await;
}
