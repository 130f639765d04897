//! A backup of a running node, restored into a data directory of its own, goes on as a new cluster.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use revfs_api::KeySpace;
use revfs_api::backup::BackupPart;
use revfs_api::keyspace::{Answer, Error, Read, Revision};
use revfs_cluster::Node;
use revfs_cluster::restore::{Progress, RestoreError, RestoreOptions, Restored, restore, verify};

use crate::rig::{all, config, get, put, shut_down, start};

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Receives a whole backup into a file.
async fn save(space: &Arc<dyn KeySpace>, path: &Path) -> Vec<BackupPart> {
    let mut backup = space.backup().await.unwrap();
    let mut file = std::fs::File::create(path).unwrap();
    let mut parts = Vec::new();
    while let Some(part) = backup.next().await.unwrap() {
        file.write_all(&part.chunk).unwrap();
        parts.push(BackupPart { chunk: bytes::Bytes::new(), ..part });
    }
    parts
}

fn restored(from: &Path, data_dir: &Path) -> Result<Restored, RestoreError> {
    restore(from, data_dir, &RestoreOptions::default(), &mut go_on)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_is_a_new_cluster_with_the_same_history() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space = node.key_space();
    for round in 0..40 {
        put(&space, &format!("/dir{}/f", round % 3), format!("value {round}")).await.unwrap();
    }
    let file: PathBuf = directory.path().join("backup");
    let parts = save(&space, &file).await;
    let last = parts.last().unwrap();
    assert_eq!(last.done_bytes, last.total_bytes);
    assert_eq!(last.total_bytes, std::fs::metadata(&file).unwrap().len());
    put(&space, "/later", "not in it").await.unwrap();
    let old = (node.cluster_id(), node.member_id());
    drop(space);
    shut_down(node).await;
    assert!(!directory.path().join("data/backup.tmp").exists());

    let other = directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let made = restored(&file, &other.join("data")).unwrap();
    assert_eq!(made.summary, verify(&file, &mut go_on).unwrap());
    let node = start(&other).await;
    let new = (node.cluster_id(), node.member_id());
    assert_eq!(new, (made.cluster_id, made.member_id));
    assert!(old.0 != new.0 && old.1 != new.1, "{old:?} {new:?}");
    let space = node.key_space();
    assert_eq!(get(&space, "/dir0/f").await.unwrap(), "value 39");
    assert_eq!(get(&space, "/later").await, None);
    let then = space.read(Revision(5), vec![Read::key("/dir0/f")]).await.unwrap();
    let [Answer::Range(then)] = &then.answers[..] else { panic!("{then:?}") };
    assert_eq!(then.kvs[0].value, "value 3");
    put(&space, "/new", "1").await.unwrap();
    let status = space.status().await.unwrap();
    assert!(status.raft_index > made.summary.position.index, "{status:?}");
    assert_eq!(status.revision, made.summary.revision.0 + 1);
    drop(space);
    shut_down(node).await;
    // And once more, from its own log.
    let node = start(&other).await;
    assert_eq!(all(&node.key_space(), "/").await.len(), 4);
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_an_empty_node_restores_to_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let file = directory.path().join("backup");
    save(&node.key_space(), &file).await;
    shut_down(node).await;
    let other = directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    restored(&file, &other.join("data")).unwrap();
    let node = start(&other).await;
    assert_eq!(node.key_space().status().await.unwrap().revision, 1);
    put(&node.key_space(), "/k", "1").await.unwrap();
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_restored_over_something_or_from_something_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    put(&node.key_space(), "/k", "1").await.unwrap();
    let file = directory.path().join("backup");
    save(&node.key_space(), &file).await;
    shut_down(node).await;
    let error = restored(&file, &directory.path().join("data")).unwrap_err();
    assert!(error.is_taken(), "{error}");

    let mut damaged = std::fs::read(&file).unwrap();
    damaged[20_000] ^= 4;
    std::fs::write(&file, &damaged).unwrap();
    let target = directory.path().join("other");
    let error = restored(&file, &target).unwrap_err().to_string();
    assert!(error.contains("backup") && error.contains("damaged between byte"), "{error}");
    assert!(!target.exists());
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 2, "the data directory and the backup");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_the_disk_has_no_room_for_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    shut_down(start(directory.path()).await).await;
    let mut config = config(directory.path());
    config.disk_free_min_bytes = 1 << 60;
    let node = Node::start(config).await.unwrap();
    let error = node.key_space().backup().await.err().unwrap();
    assert!(matches!(&error, Error::NoSpace { reason } if reason.contains("backup")), "{error}");
    shut_down(node).await;
}

/// What a restore leaves that was killed is no data directory, and the next one takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_killed_leaves_no_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    put(&node.key_space(), "/k", "1").await.unwrap();
    let file = directory.path().join("backup");
    save(&node.key_space(), &file).await;
    shut_down(node).await;
    let other = directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let target = other.join("data");
    let mut seen = Vec::new();
    restore(&file, &target, &RestoreOptions::default(), &mut |_| {
        // Whatever a kill right here would leave.
        seen.push((target.exists(), other.join("data.restoring/CREATING").exists()));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(seen, [(false, true)]);
    std::fs::rename(&target, other.join("data.restoring")).unwrap();
    std::fs::write(other.join("data.restoring/CREATING"), "").unwrap();
    restored(&file, &target).unwrap();
    let node = start(&other).await;
    assert_eq!(get(&node.key_space(), "/k").await.unwrap(), "1");
    shut_down(node).await;
}
