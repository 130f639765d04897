//! A member of three whose files are damaged does not start: it says which file, where, and what to do. The
//! others go on, and replace it.

use std::fs;
use std::path::{Path, PathBuf};

use revfs_cluster::log::LogError;
use revfs_cluster::{NewMember, StartError};
use revfs_store::OpenError;

use crate::rig::{Cluster, get, put, wait_for};

/// What is done to a data directory, and the file that must be named.
type Damage = fn(&Path) -> PathBuf;

const DAMAGES: [(&str, Damage); 4] = [
    ("bytes flipped in the middle of the log", |data| {
        let (path, mut bytes, end) = log(data);
        for byte in &mut bytes[end / 2..end / 2 + 8] {
            *byte ^= 0x55;
        }
        fs::write(&path, &bytes).unwrap();
        path
    }),
    ("the log cut below what the store holds", |data| {
        // As after a crash: without the mark, a missing tail looks like a torn one.
        fs::remove_file(data.join("log/clean")).unwrap();
        let (path, mut bytes, end) = log(data);
        bytes[end / 2..].fill(0);
        fs::write(&path, &bytes).unwrap();
        path
    }),
    ("the log cut below the mark of an orderly end", |data| {
        let (path, mut bytes, end) = log(data);
        // The last group holds no more than what is known to be committed.
        bytes[end - 8..].fill(0);
        fs::write(&path, &bytes).unwrap();
        path
    }),
    ("pages of the store zeroed", |data| {
        let path = data.join("store-1/data.mdb");
        let mut bytes = fs::read(&path).unwrap();
        let page = bytes.len() / 4_096 / 2 * 4_096;
        bytes[page..].fill(0);
        fs::write(&path, &bytes).unwrap();
        path
    }),
];

/// The only segment: where it is, its bytes, and where the last that is not zero ends.
fn log(data: &Path) -> (PathBuf, Vec<u8>, usize) {
    let path = data.join("log/0000000001.log");
    let bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    (path, bytes, end)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn check_names(what: &str, refused: &StartError, file: &Path) {
    let said = refused.to_string();
    assert!(said.contains(&file.display().to_string()), "{what}: {said}");
    assert!(said.contains("replace this member"), "{what}: {said}");
    match refused {
        StartError::Log(LogError::Corrupt { offset, .. } | LogError::TooShort { offset, .. }) => {
            assert!(said.contains(&format!("offset {offset}")), "{what}: {said}");
        }
        StartError::Store(OpenError::CorruptPage { offset, .. }) => {
            assert!(said.contains(&format!("byte {offset}")), "{what}: {said}");
        }
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_damaged_files_is_refused_and_replaced_and_the_others_go_on() {
    let mut cluster = Cluster::start(3).await;
    let (leader, damaged) = (cluster.leader().await, cluster.follower().await);
    let id = cluster.node(damaged).member_id();
    for number in 0..40 {
        put(&cluster.space(damaged), &format!("k{number}"), &"v".repeat(2_000)).await.unwrap();
    }
    cluster.stop_member(damaged).await;
    let data = fs::canonicalize(cluster.config(damaged).data_dir).unwrap();
    let whole = data.with_extension("whole");
    copy(&data, &whole);
    for (what, damage) in DAMAGES {
        fs::remove_dir_all(&data).unwrap();
        copy(&whole, &data);
        let file = damage(&data);
        let refused = cluster.refused_start(damaged, |_| ()).await;
        check_names(what, &refused, &file);
        // It is refused as often as it is tried, and nothing is mended in silence.
        check_names(what, &cluster.refused_start(damaged, |_| ()).await, &file);
        put(&cluster.space(leader), "meanwhile", what).await.unwrap();
    }
    cluster.wipe(damaged);
    let new = NewMember { role: None, replaces: Some(id), peer_urls: vec![cluster.url(damaged)] };
    let new = cluster.local(leader).member_add(new).await.unwrap();
    cluster.invite(damaged, new);
    cluster.start_member(damaged).await;
    let is_whole = async || {
        let members = cluster.local(leader).members(true).await.ok()?;
        let votes = members.iter().filter(|listed| listed.votes).count();
        (members.len() == 3 && votes == 3).then_some(())
    };
    wait_for("three voters, and the old one gone", is_whole).await;
    assert_eq!(get(&cluster.space(damaged), "k39").await.unwrap().unwrap(), "v".repeat(2_000));
    cluster.agree().await;
    cluster.stop().await;
}
