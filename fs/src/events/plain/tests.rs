//! Revisions of a key space in memory, taken apart without a kernel.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fuser::FileType;
use revfs_api::KeySpace;
use revfs_api::keyspace::{KeyRange, Op, Origin, Txn};

use crate::events::poke::{Action, Poke, Touch};
use crate::filesystem::{Filesystem, MountOptions};
use crate::memory::Memory;
use crate::node_table::ROOT;
use crate::note::{Note, Operation};
use crate::notices::Notices;

struct Mounted {
    memory: Arc<Memory>,
    own: Filesystem,
}

impl Mounted {
    /// With a directory `/d` and a file `/d/f` that the kernel knows, and `/d/sub/f`, of which it only
    /// knows the directory above.
    async fn new() -> Self {
        let memory = Arc::new(Memory::new());
        let options = MountOptions::default();
        let own = Filesystem::new(memory.clone(), options, Notices::default(), 1);
        own.events.is_on.store(true, Ordering::Release);
        let mounted = Self { memory, own };
        mounted.apply(vec![Op::put("/d/f", "1"), Op::put("/d/sub/f", "1")], Bytes::new()).await;
        let directory = mounted.know(ROOT, "d").await;
        mounted.know(directory, "f").await;
        mounted
    }

    /// The kernel looks a name up.
    async fn know(&self, parent: u64, name: &str) -> u64 {
        let found = self.own.lookup(parent, OsStr::new(name)).await.unwrap();
        self.own.nodes.count_lookup(&found.node);
        found.node.ino
    }

    /// The pokes of a revision, each as a line.
    async fn apply(&self, success: Vec<Op>, note: Bytes) -> Vec<String> {
        let (all, from) = (KeyRange::From(Bytes::new()), self.memory.current().next());
        let mut watch = self.memory.watch(vec![all], from).await.unwrap();
        let origin = Origin { note, ..Origin::default() };
        self.memory.txn(Txn { success, ..Txn::default() }, origin).await.unwrap();
        let events = watch.next().await.unwrap();
        self.own.pokes_of(&events).await.iter().map(shown).collect()
    }

    async fn plain(&self, success: Vec<Op>) -> Vec<String> {
        self.apply(success, Bytes::new()).await
    }

    /// As another mount would make it.
    async fn noted(&self, success: Vec<Op>, operations: Vec<Operation>) -> Vec<String> {
        let note = Note { mount_id: 2, sequence: 1, operations, is_cut: false };
        self.apply(success, note.encode()).await
    }
}

fn shown(poke: &Poke) -> String {
    let directory = poke.at.directory.as_bytes().escape_ascii();
    let place = format!("{directory}{}", poke.at.name.escape_ascii());
    let known = if poke.subject.is_some() { " known" } else { "" };
    let action = match &poke.action {
        Action::Write { is_new, touches } => {
            let touches: Vec<_> = touches
                .iter()
                .map(|touch| match touch {
                    Touch::Content => " content".to_owned(),
                    Touch::Attributes => " attributes".to_owned(),
                })
                .collect();
            format!("{}{}", if *is_new { "create" } else { "write" }, touches.concat())
        }
        Action::Symlink => "symlink".to_owned(),
        Action::MakeDirectory => "mkdir".to_owned(),
        Action::Attributes(FileType::Directory) => "attributes of directory".to_owned(),
        Action::Attributes(_) => "attributes".to_owned(),
        Action::Remove(_) => "unlink".to_owned(),
        Action::RemoveDirectory(_) => "rmdir".to_owned(),
        Action::Rename { to, replaced, .. } => {
            let over = if replaced.is_some() { " over" } else { "" };
            let directory = to.directory.as_bytes().escape_ascii();
            format!("to{over} {directory}{}:", to.name.escape_ascii())
        }
    };
    format!("{action} {place}{known}")
}

fn delete_below(prefix: &[u8]) -> Op {
    Op::Delete { range: KeyRange::prefix(prefix), prev_kv: false }
}

#[tokio::test]
async fn keys_are_files_and_directories_that_come_and_go() {
    let mounted = Mounted::new().await;
    assert_eq!(mounted.plain(vec![Op::put("/d/g", "four")]).await, ["create content /d/g"]);
    assert_eq!(mounted.plain(vec![Op::put("/d/empty", "")]).await, ["create /d/empty"]);
    assert_eq!(mounted.plain(vec![Op::put("/d/f", "22")]).await, ["write content /d/f known"]);
    assert_eq!(mounted.plain(vec![Op::delete("/d/g")]).await, ["unlink /d/g"]);
    assert_eq!(mounted.plain(vec![Op::delete("/d/f")]).await, ["unlink /d/f known"]);
    // Nobody can watch what the kernel does not know; `sub` was there, `new` was not.
    assert!(mounted.plain(vec![Op::put("/d/sub/g", "")]).await.is_empty());
    assert_eq!(mounted.plain(vec![Op::put("/d/new/deep/f", "")]).await, ["mkdir /d/new"]);
    assert!(mounted.plain(vec![Op::put("/d/new/", "")]).await.is_empty());
    assert_eq!(mounted.plain(vec![Op::put("/d/kept/", "")]).await, ["mkdir /d/kept"]);
    assert_eq!(mounted.plain(vec![delete_below(b"/d/new/")]).await, ["rmdir /d/new"]);
    let gone = mounted.plain(vec![delete_below(b"/d/")]).await;
    assert_eq!(gone, ["unlink /d/empty", "rmdir /d/sub", "rmdir /d/kept", "rmdir /d known"]);
}

#[tokio::test]
async fn a_value_of_a_directory_is_a_file_in_it() {
    let mounted = Mounted::new().await;
    assert_eq!(mounted.plain(vec![Op::put("/d", "x")]).await, ["create content /d/@value"]);
}

#[tokio::test]
async fn a_note_says_what_was_done() {
    let mounted = Mounted::new().await;
    let key = || Bytes::from_static(b"/d/g");
    let made = vec![Operation::Create(key()), Operation::Write(key()), Operation::Close(key())];
    assert_eq!(mounted.noted(vec![Op::put("/d/g", "1")], made).await, ["create content /d/g"]);
    let copied = vec![
        Operation::Truncate(key()),
        Operation::Write(key()),
        Operation::Attributes(key()),
        Operation::Close(key()),
    ];
    let pokes = mounted.noted(vec![Op::put("/d/g", "22")], copied).await;
    assert_eq!(pokes, ["write content attributes /d/g"]);
    let file = || Bytes::from_static(b"/d/f");
    let moved = Op::MoveKey { from: file(), to: key() };
    let renamed = vec![Operation::Rename { from: file(), to: key() }];
    assert_eq!(mounted.noted(vec![moved], renamed).await, ["to /d/g: /d/f known"]);
    // The node is the same file under its new name.
    let pokes = mounted.noted(vec![Op::delete("/d/g")], vec![Operation::Unlink(key())]).await;
    assert_eq!(pokes, ["unlink /d/g known"]);
}

#[tokio::test]
async fn a_directory_is_renamed_as_one() {
    let mounted = Mounted::new().await;
    let (from, to) = (Bytes::from_static(b"/d/"), Bytes::from_static(b"/e/"));
    let moved = Op::Move { from: from.clone(), to: to.clone() };
    let pokes = mounted.noted(vec![moved], vec![Operation::Rename { from, to }]).await;
    assert_eq!(pokes, ["to /e: /d known"]);
    assert_eq!(mounted.plain(vec![Op::put("/e/f", "22")]).await, ["write content /e/f known"]);
}

#[tokio::test]
async fn what_only_reserves_a_name_is_no_event() {
    let mounted = Mounted::new().await;
    let reserved = crate::path::reservation_key(b"/d/g");
    let create = vec![Operation::Create("/d/g".into())];
    assert!(mounted.noted(vec![Op::put(reserved, "")], create).await.is_empty());
}
