//! The operations that read, without a kernel: on a key space in memory.

#![expect(clippy::unwrap_used, reason = "what fails here ends its test")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{Errno, FileType};
use revfs_api::KeySpace;
use revfs_api::keyspace::{Error, Op, Origin, Revision, Txn};
use revfs_fs::attributes::{Attributes, Kind, record_key};
use revfs_fs::filesystem::{Caller, Filesystem, Found, MountOptions};
use revfs_fs::memory::Memory;
use revfs_fs::notices::Notices;
use revfs_fs::path::DirectoryKey;

const ROOT: u64 = 1;
const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 0 };

struct Tree {
    memory: Arc<Memory>,
    own: Filesystem,
}

impl Tree {
    fn new() -> Self {
        Self::with(MountOptions::default())
    }

    fn with(options: MountOptions) -> Self {
        let memory = Arc::new(Memory::new());
        let own = Filesystem::new(memory.clone(), options, Notices::default(), 7);
        Self { memory, own }
    }

    async fn put(&self, key: &str, value: &str) -> Revision {
        self.apply(vec![Op::put(key.as_bytes().to_vec(), value.as_bytes().to_vec())]).await
    }

    async fn apply(&self, success: Vec<Op>) -> Revision {
        let txn = Txn { success, ..Txn::default() };
        self.memory.txn(txn, Origin::default()).await.unwrap().revision
    }

    /// Follows a path from the root.
    async fn walk(&self, path: &str) -> Result<Found, Errno> {
        let mut parent = ROOT;
        let mut found = None;
        for name in path.split('/') {
            let child = self.own.lookup(parent, OsStr::new(name)).await?;
            parent = child.node.ino;
            found = Some(child);
        }
        Ok(found.unwrap())
    }

    async fn content(&self, path: &str) -> Result<String, Errno> {
        let found = self.walk(path).await?;
        let opened = self.own.open(CALLER, found.node.ino, libc::O_RDONLY).await?;
        let bytes = self.own.read(opened.handle, 0, 1 << 20).await?;
        self.own.release(CALLER, opened.handle).await?;
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// The names of a directory without `.` and `..`.
    async fn names(&self, path: &str) -> Result<Vec<String>, Errno> {
        let ino = if path.is_empty() { ROOT } else { self.walk(path).await?.node.ino };
        let handle = self.own.opendir(ino)?;
        let mut names = Vec::new();
        let mut position = 0;
        loop {
            let (open, listing) = self.own.listing_at(handle, position).await?;
            let Some(entry) = self.own.entry_at(&open, &listing, position, true) else { break };
            position += 1;
            names.push(entry.name.escape_ascii().to_string());
        }
        self.own.releasedir(handle);
        assert_eq!(names[..2], [".", ".."]);
        Ok(names.split_off(2))
    }
}

#[tokio::test]
async fn one_name_stands_for_one_thing() {
    let tree = Tree::new();
    tree.put("/a", "value").await;
    tree.put("/a/b", "below").await;
    tree.put("/c//d", "empty component").await;
    tree.put("/marked/", "").await;
    tree.put("/filled/", "not a marker").await;
    assert_eq!(tree.names("").await.unwrap(), ["a", "c", "filled", "marked"]);
    assert_eq!(tree.names("a").await.unwrap(), ["@value", "b"]);
    assert_eq!(tree.content("a/@value").await.unwrap(), "value");
    assert_eq!(tree.names("c").await.unwrap(), ["%"]);
    assert_eq!(tree.content("c/%/d").await.unwrap(), "empty component");
    assert_eq!(tree.names("marked").await.unwrap(), Vec::<String>::new());
    assert_eq!(tree.names("filled").await.unwrap(), ["%"]);
    assert_eq!(tree.content("filled/%").await.unwrap(), "not a marker");
    assert_eq!(tree.walk("marked/%").await.unwrap_err(), Errno::ENOENT);
    assert_eq!(tree.walk("@value").await.unwrap_err(), Errno::ENOENT);
    assert_eq!(tree.walk("a/@@later").await.unwrap_err(), Errno::ENOENT);
    assert_eq!(tree.walk("a/b/c").await.unwrap_err(), Errno::ENOTDIR);
}

#[tokio::test]
async fn a_mount_of_a_part_shows_only_that() {
    let root = DirectoryKey::new("/registry/").unwrap();
    let tree = Tree::with(MountOptions { root, uid: 5, gid: 6, ..MountOptions::default() });
    tree.put("/registry/pods/a", "1").await;
    tree.put("/registry", "outside").await;
    tree.put("/other", "outside").await;
    assert_eq!(tree.names("").await.unwrap(), ["pods"]);
    assert_eq!(tree.walk("@value").await.unwrap_err(), Errno::ENOENT);
    let attr = tree.walk("pods/a").await.unwrap().attr;
    assert_eq!((attr.uid, attr.gid, attr.perm), (5, 6, 0o644));
    assert_eq!(tree.names("@keys").await.unwrap().len(), 3);
    assert_eq!(tree.content("@keys/%2Fother").await.unwrap(), "outside");
}

#[tokio::test]
async fn an_empty_key_space_has_an_empty_root() {
    let empty = DirectoryKey::new("").unwrap();
    for options in
        [MountOptions::default(), MountOptions { root: empty, ..MountOptions::default() }]
    {
        let tree = Tree::with(options);
        assert_eq!(tree.names("").await.unwrap(), Vec::<String>::new());
        assert_eq!(tree.own.getattr(ROOT).await.unwrap().attr.kind, FileType::Directory);
        assert_eq!(tree.names("@rev").await.unwrap(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_root_without_a_slash_shows_records_too() {
    let root = DirectoryKey::new("").unwrap();
    let tree = Tree::with(MountOptions { root, ..MountOptions::default() });
    let private = Attributes::new(Kind::File, 0o600).encode();
    tree.apply(vec![Op::put("plain", "1"), Op::put(record_key(b"plain"), private)]).await;
    tree.put("/slash", "2").await;
    let names = tree.names("").await.unwrap();
    assert!(names.contains(&"plain".to_owned()) && names.contains(&"%".to_owned()), "{names:?}");
    assert_eq!(tree.walk("plain").await.unwrap().attr.perm, 0o600);
    let handle = tree.own.opendir(ROOT).unwrap();
    let (open, listing) = tree.own.listing_at(handle, 0).await.unwrap();
    let mut entries =
        (2..).map_while(|position| tree.own.entry_at(&open, &listing, position, true));
    let plain = entries.find(|entry| entry.name == "plain").unwrap();
    assert_eq!(plain.found.unwrap().attr.perm, 0o600);
    assert_eq!(tree.content("%/slash").await.unwrap(), "2");
}

#[tokio::test]
async fn the_past_shows_what_the_present_allows() {
    let tree = Tree::new();
    let open = tree.put("/d/f", "old").await;
    let mut attributes = Attributes::new(Kind::File, 0o640);
    attributes.uid = Some(1000);
    tree.apply(vec![Op::put(record_key(b"/d/f"), attributes.encode())]).await;
    let past = format!("@rev/{open}/d/f");
    let attr = tree.walk(&past).await.unwrap().attr;
    assert_eq!((attr.perm, attr.uid), (0o640, 1000), "the present owner, both modes");
    tree.apply(vec![Op::delete("/d/f"), Op::delete(record_key(b"/d/f"))]).await;
    let attr = tree.walk(&past).await.unwrap().attr;
    assert_eq!((attr.perm, attr.uid), (0o600, 0), "gone: the old owner only");

    let as_it_was = MountOptions { history_as_is: true, ..MountOptions::default() };
    let other = Filesystem::new(tree.memory.clone(), as_it_was, Notices::default(), 8);
    let tree = Tree { memory: tree.memory, own: other };
    assert_eq!(tree.walk(&past).await.unwrap().attr.perm, 0o644);
}

#[tokio::test]
async fn equal_content_of_two_revisions_is_one_inode_and_no_live_one() {
    let tree = Tree::new();
    let first = tree.put("/f", "same").await;
    let second = tree.put("/g", "other").await;
    let third = tree.put("/f", "changed").await;
    let number = |path: String| {
        let tree = &tree;
        async move { tree.walk(&path).await.unwrap().node.ino }
    };
    let past = number(format!("@rev/{first}/f")).await;
    assert_eq!(number(format!("@rev/{second}/f")).await, past);
    assert_ne!(number(format!("@rev/{third}/f")).await, past);
    assert_ne!(number("f".to_owned()).await, past);
    assert_ne!(number(format!("@rev/{third}/f")).await, number("f".to_owned()).await);
}

#[tokio::test]
async fn a_revision_read_before_stays_readable_as_long_as_any_that_shows_the_same() {
    let tree = Tree::new();
    let first = tree.put("/f", "kept").await;
    tree.put("/g", "").await;
    let later = tree.put("/h", "").await;
    let old = tree.walk(&format!("@rev/{first}/f")).await.unwrap();
    let new = tree.walk(&format!("@rev/{later}/f")).await.unwrap();
    assert_eq!(old.node.ino, new.node.ino);
    tree.memory.compact(later, true).await.unwrap();
    assert_eq!(tree.own.getattr(old.node.ino).await.unwrap().attr.size, 4);
    assert_eq!(tree.walk(&format!("@rev/{first}/f")).await.unwrap_err(), Errno::ESTALE);
}

#[tokio::test]
async fn a_new_life_of_a_name_is_a_new_node() {
    let tree = Tree::new();
    tree.put("/f", "first").await;
    let first = tree.walk("f").await.unwrap();
    let opened = tree.own.open(CALLER, first.node.ino, libc::O_RDONLY).await.unwrap();
    tree.apply(vec![Op::delete("/f")]).await;
    tree.put("/f", "second life").await;
    let second = tree.walk("f").await.unwrap();
    assert_ne!(first.node.ino, second.node.ino);
    assert_eq!(tree.content("f").await.unwrap(), "second life");
    assert_eq!(tree.own.read(opened.handle, 0, 100).await.unwrap(), "first");
    assert_eq!(tree.own.getattr(first.node.ino).await.unwrap().attr.nlink, 0);
}

#[tokio::test]
async fn a_failed_question_is_an_errno_and_the_next_one_is_answered() {
    let tree = Tree::new();
    tree.put("/f", "1").await;
    tree.memory.fail_next_read(Error::Unavailable { reason: "restarting".to_owned() });
    assert_eq!(tree.walk("f").await.unwrap_err(), Errno::EIO);
    tree.walk("f").await.unwrap();
    assert_eq!(tree.own.floor(), tree.memory.current());
}

#[tokio::test]
async fn hidden_names_are_where_they_belong() {
    let tree = Tree::new();
    let revision = tree.put("/d/f", "1").await;
    for hidden in ["@rev", "@time", "@history", "@watch", "@watch.1", "@status", "@keys", "@txn"] {
        tree.walk(hidden).await.unwrap();
    }
    for hidden in ["d/@rev", "d/@time", "d/@history", "d/@watch"] {
        tree.walk(hidden).await.unwrap();
    }
    for nothing in
        ["d/@status", "d/@keys", "d/@txn", "@commit", "@rev/x", "@rev/0", "@rev/-1", "@watch.x"]
    {
        assert_eq!(tree.walk(nothing).await.unwrap_err(), Errno::ENOENT, "{nothing}");
    }
    let past = format!("@rev/{revision}/@history");
    assert_eq!(tree.walk(&past).await.unwrap_err(), Errno::ENOENT, "nothing is hidden in the past");
    let future = format!("@rev/{}", revision.0 + 1);
    assert_eq!(tree.walk(&future).await.unwrap_err(), Errno::ENOENT);
    let ino = tree.walk(&format!("@rev/{revision}/d/f")).await.unwrap().node.ino;
    let refused = tree.own.open(CALLER, ino, libc::O_WRONLY).await.unwrap_err();
    assert_eq!(refused, Errno::EROFS);
}

#[tokio::test]
async fn a_listing_is_dated_by_commits() {
    let tree = Tree::new();
    let early = tree.put("/d/f", "1").await;
    tree.memory.advance(Duration::from_secs(100));
    let late = tree.put("/d/f", "2").await;
    let date = |path: String| {
        let tree = &tree;
        async move { tree.walk(&path).await.unwrap().attr.mtime }
    };
    let (first, second) =
        (date(format!("d/@rev/{early}")).await, date(format!("d/@rev/{late}")).await);
    assert_eq!(second.duration_since(first).unwrap(), Duration::from_secs(100));
    // The directory itself did not change with the second put.
    assert_eq!(date(format!("@rev/{late}/d")).await, first);
    let versions = tree.names("d/@history/f").await.unwrap();
    assert_eq!(versions, [late.to_string(), early.to_string()]);
}

#[tokio::test]
async fn long_names_are_found_by_their_digest() {
    let tree = Tree::new();
    let long = "x".repeat(300);
    tree.put(&format!("/{long}"), "file").await;
    tree.put(&format!("/{long}y/below"), "directory").await;
    for number in 0..2_500 {
        tree.put(&format!("/{}{number:04}", "x".repeat(250)), "").await;
    }
    let names = tree.names("").await.unwrap();
    let short: Vec<_> = names.iter().filter(|name| name.contains("%~")).collect();
    assert_eq!(short.len(), 2);
    assert!(short.iter().all(|name| OsStr::from_bytes(name.as_bytes()).len() == 255));
    let kinds: Vec<FileType> = vec![
        tree.walk(short[0]).await.unwrap().attr.kind,
        tree.walk(short[1]).await.unwrap().attr.kind,
    ];
    assert!(kinds.contains(&FileType::RegularFile) && kinds.contains(&FileType::Directory));
    let nothing = format!("{}%~{}", "x".repeat(213), "0".repeat(40));
    assert_eq!(tree.walk(&nothing).await.unwrap_err(), Errno::ENOENT);
}
