//! A data directory that a node of version 1 left is started on for ever: its store, and behind that its log, whose
//! entries are applied.
//!
//! `testdata/version-1/data/` is that directory (README.md there says how it was made), `read.txt` what it holds.
//! While nothing is released, a change of a format makes both anew: `REVFS_WRITE_VERSION_1=1`. After the first
//! release that is not done again.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{ChangesRequest, KeyRange, LeaseId, Op, Origin, Revision, Txn};
use tempfile::TempDir;

use crate::rig::{get, put, shut_down, start};

/// So long a lease lives that nobody sees its end: some thirty years.
const TTL_SECONDS: i64 = 1_000_000_000;

const STORE: &str = "store-1/data.mdb";

const SEGMENT: &str = "log/0000000001.log";

/// What makes the directory, besides the lock.
const FILES: [&str; 6] = ["FORMAT", "identity", "CURRENT", STORE, SEGMENT, "log/clean"];

fn kept(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/version-1").join(name)
}

async fn change(space: &Arc<dyn KeySpace>, ops: Vec<Op>) {
    let txn = Txn { success: ops, ..Txn::default() };
    let origin = Origin { claimed: "test@host".to_owned(), note: Bytes::from_static(b"why") };
    space.txn(txn, origin).await.unwrap();
}

/// What the store is left with.
async fn first_half(space: &Arc<dyn KeySpace>) {
    put(space, "/app/color", "red").await.unwrap();
    put(space, "/app/color", "blue").await.unwrap();
    put(space, "/app/limits", "8").await.unwrap();
    space.lease_grant(LeaseId(77), TTL_SECONDS).await.unwrap();
    let mut leased = Op::put("/app/holder", "host-1");
    if let Op::Put { lease, .. } = &mut leased {
        *lease = LeaseId(77);
    }
    change(space, vec![leased, Op::put("/app/gone", "soon")]).await;
    change(space, vec![Op::delete("/app/gone")]).await;
}

/// What the log alone has.
async fn second_half(space: &Arc<dyn KeySpace>) {
    let pair = |from: &'static str, to: &'static str| (Bytes::from(from), Bytes::from(to));
    let append = Op::Append { key: "/app/list".into(), value: "one\n".into() };
    change(space, vec![append.clone()]).await;
    change(space, vec![append]).await;
    let (from, to) = pair("/app/", "/moved/");
    change(space, vec![Op::Move { from, to }]).await;
    let (from, to) = pair("/moved/limits", "/limits");
    change(space, vec![Op::MoveKey { from, to }]).await;
    let (a, b) = pair("/limits", "/moved/color");
    change(space, vec![Op::Exchange { a, b }]).await;
    let range = KeyRange::prefix(b"/app/");
    change(space, vec![Op::Restore { range, revision: Revision(4) }]).await;
    space.compact(Revision(3), true).await.unwrap();
}

/// All that can be read.
async fn told(space: &Arc<dyn KeySpace>) -> String {
    let status = space.status().await.unwrap();
    let hash = space.hash_kv(Revision::NONE).await.unwrap();
    let mut text = format!(
        "revision {}, compacted {}, hash {:08x}, cluster version {}, leases {:?}\n",
        status.revision,
        status.compacted_revision,
        hash.hash,
        status.cluster_version,
        space.leases().await.unwrap()
    );
    let request = ChangesRequest {
        ranges: vec![KeyRange::From(Bytes::from_static(b"\0"))],
        from: Revision(status.compacted_revision + 1),
        to: Revision::NONE,
        newest_first: false,
        limit: 0,
        scan_limit: 0,
        keys_only: false,
    };
    for revision in space.changes(request).await.unwrap().revisions {
        writeln!(text, "{:?}", revision.stamp).unwrap();
        for event in revision.events {
            writeln!(text, "  {:?} {:?}", event.kind, event.kv).unwrap();
        }
    }
    text
}

/// Makes the directory and what is read from it.
async fn make() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    let node = start(directory.path()).await;
    first_half(&node.key_space()).await;
    shut_down(node).await;
    let store = fs::read(data.join(STORE)).unwrap();
    let node = start(directory.path()).await;
    second_half(&node.key_space()).await;
    fs::write(kept("read.txt"), told(&node.key_space()).await).unwrap();
    shut_down(node).await;
    // The log has what the store lacks, as after a crash.
    fs::write(data.join(STORE), store).unwrap();
    for file in FILES {
        let mut bytes = fs::read(data.join(file)).unwrap();
        if file == SEGMENT {
            let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
            bytes.truncate(end);
        }
        let path = kept("data").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// The directory as it was: a segment has the length that its header says.
fn unpack(directory: &Path) {
    for file in FILES {
        let mut bytes = fs::read(kept("data").join(file)).unwrap();
        if file == SEGMENT {
            let length = u32::from_be_bytes(bytes[28..32].try_into().unwrap());
            bytes.resize(usize::try_from(length).unwrap(), 0);
        }
        let path = directory.join("data").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_on_what_version_1_left() {
    if std::env::var_os("REVFS_WRITE_VERSION_1").is_some() {
        make().await;
    }
    let directory = TempDir::new().unwrap();
    unpack(directory.path());
    let node = start(directory.path()).await;
    let space = node.key_space();
    assert_eq!(told(&space).await, fs::read_to_string(kept("read.txt")).unwrap());
    put(&space, "/new", "v").await.unwrap();
    drop(space);
    shut_down(node).await;
    let node = start(directory.path()).await;
    assert_eq!(get(&node.key_space(), "/new").await.unwrap(), "v");
    assert_eq!(get(&node.key_space(), "/limits").await.unwrap(), "blue");
    shut_down(node).await;
}
