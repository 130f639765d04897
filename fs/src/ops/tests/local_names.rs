//! Files that stay in their mount because of their names.

use std::sync::Arc;

use fuser::{Errno, FileType};

use super::{ANYBODY, CREATE, Mount, USER, keys, name, put};
use crate::filesystem::{CommitAt, MountOptions};
use crate::locks::table::Kind;
use crate::memory::Memory;
use crate::ops::LockRequest;

const EXCLUSIVE: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;

/// The names of a directory as `ls` shows them.
async fn names(mount: &Mount) -> Vec<String> {
    let handle = mount.fs.opendir(mount.fs.nodes.root().ino).unwrap();
    let (own, listing) = mount.fs.listing_at(handle, 0).await.unwrap();
    let entries = (2..).map_while(|index| mount.fs.entry_at(&own, &listing, index, true));
    let mut names: Vec<String> =
        entries.map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect();
    mount.fs.releasedir(handle);
    names.sort();
    names
}

#[tokio::test]
async fn a_local_file_is_an_ordinary_one_here_and_none_elsewhere() {
    let memory = Arc::new(Memory::new());
    memory.share_no_reservations();
    let (mount, other) = (Mount::new(&memory), Mount::new(&memory));
    let before = mount.revision();
    let swap = mount.create(".f.swp", EXCLUSIVE).await.unwrap();
    swap.write(0, "swap").await.unwrap();
    swap.fsync().await.unwrap();
    swap.close().await.unwrap();
    mount.create("4913", EXCLUSIVE).await.unwrap().close().await.unwrap();
    mount.symlink(".#f", "me@here.7").await.unwrap();
    mount.fs.tend().await;
    assert_eq!(mount.fs.commit_all(std::time::Duration::from_secs(5)).await, 0);
    assert_eq!(mount.read(".f.swp").await.unwrap(), "swap");
    assert_eq!(mount.stat(".f.swp").await.unwrap().size, 4);
    let lock = mount.ino(".#f").await.unwrap();
    assert_eq!(mount.fs.readlink(lock).await.unwrap(), "me@here.7");
    assert_eq!(mount.stat(".#f").await.unwrap().kind, FileType::Symlink);
    assert_eq!(names(&mount).await, [".#f", ".f.swp", "4913"]);
    assert!(names(&other).await.is_empty());
    // Who must be first is.
    assert_eq!(mount.create(".f.swp", EXCLUSIVE).await.err(), Some(Errno::EEXIST));
    mount.write(".f.swp", "longer than before").await.unwrap();
    assert_eq!(mount.read(".f.swp").await.unwrap(), "longer than before");
    assert_eq!(mount.revision(), before);
    // The other mount may have one of its own.
    other.create(".f.swp", EXCLUSIVE).await.unwrap().close().await.unwrap();
    mount.unlink(".f.swp").await.unwrap();
    mount.unlink("4913").await.unwrap();
    mount.unlink(".#f").await.unwrap();
    assert!(names(&mount).await.is_empty());
    assert_eq!(mount.fs.writing.budget.used(), 0);
    assert_eq!(names(&other).await, [".f.swp"]);
    assert_eq!(mount.revision(), before);
}

#[tokio::test]
async fn a_rename_to_an_ordinary_name_makes_one_revision() {
    let mount = Mount::empty();
    mount.write("f", "old").await.unwrap();
    let before = mount.revision();
    let open = mount.create_as(USER, ".f.swp", 0o600, EXCLUSIVE).await.unwrap();
    open.write(0, "new").await.unwrap();
    mount.rename(".f.swp", ".f.swo").await.unwrap();
    mount.write(".f.swn", "gone").await.unwrap();
    mount.rename(".f.swo", ".f.swn").await.unwrap();
    assert_eq!(
        (names(&mount).await, mount.revision()),
        (vec![".f.swn".into(), "f".into()], before)
    );
    mount.rename(".f.swn", "f").await.unwrap();
    assert_eq!(mount.revision(), before + 1);
    assert_eq!(mount.stored("/f").await.as_deref(), Some("new"));
    assert_eq!(mount.record("/f").await.unwrap().mode, 0o600);
    open.write(3, "er").await.unwrap();
    open.close().await.unwrap();
    assert_eq!(mount.stored("/f").await.as_deref(), Some("newer"));
    // The other way it is as any rename: what the store has stays in it.
    mount.rename("f", ".f.swp").await.unwrap();
    assert_eq!(mount.stored("/.f.swp").await.as_deref(), Some("newer"));
    mount.write(".f.swp", "still").await.unwrap();
    assert_eq!(mount.stored("/.f.swp").await.as_deref(), Some("still"));
    mount.symlink(".#f", "target").await.unwrap();
    mount.rename(".#f", "link").await.unwrap();
    assert_eq!(mount.stored("/link").await.as_deref(), Some("target"));
    mount.write("4913", "").await.unwrap();
    let exchange = mount.rename_with("4913", "link", libc::RENAME_EXCHANGE).await;
    assert_eq!(exchange, Err(Errno::EPERM));
}

#[tokio::test]
async fn a_directory_goes_with_its_local_files_and_is_not_changed_by_them() {
    let mount = Mount::empty();
    mount.mkdir("d").await.unwrap();
    let changed = mount.stat("d").await.unwrap().mtime;
    mount.write("d/.f.swp", "x").await.unwrap();
    assert_eq!(mount.stat("d").await.unwrap().mtime, changed);
    assert_eq!(mount.rmdir("d").await, Err(Errno::ENOTEMPTY));
    mount.rename("d", "e").await.unwrap();
    assert_eq!(mount.read("e/.f.swp").await.unwrap(), "x");
    mount.unlink("e/.f.swp").await.unwrap();
    mount.rmdir("e").await.unwrap();
}

#[tokio::test]
async fn a_local_file_hides_what_the_store_has_of_its_name() {
    let mount = Mount::empty();
    mount.write(".f.swp", "here").await.unwrap();
    put(&mount.memory, "/.f.swp", "there").await;
    assert_eq!(mount.read(".f.swp").await.unwrap(), "here");
    assert_eq!(names(&mount).await, [".f.swp"]);
    mount.unlink(".f.swp").await.unwrap();
    assert_eq!(mount.read(".f.swp").await.unwrap(), "there");
    mount.unlink(".f.swp").await.unwrap();
    assert_eq!(mount.stored("/.f.swp").await, None);
}

#[tokio::test]
async fn the_list_may_be_another_or_empty() {
    let memory = Arc::new(Memory::new());
    let of = |local: &str| {
        Mount::with(&memory, MountOptions { local: local.parse().unwrap(), ..Default::default() })
    };
    let (none, other) = (of(""), of("*.tmp"));
    none.write(".f.swp", "a").await.unwrap();
    other.write("f.tmp", "b").await.unwrap();
    other.write("4913", "c").await.unwrap();
    assert_eq!(keys(&memory).await, ["/.f.swp", "/4913"]);
}

#[tokio::test]
async fn each_write_of_a_local_file_is_no_revision_either() {
    let memory = Arc::new(Memory::new());
    let options = MountOptions { commit: CommitAt::Write, ..Default::default() };
    let mount = Mount::with(&memory, options);
    let before = mount.revision();
    let open = mount.create(".f.swp", CREATE).await.unwrap();
    open.write(0, "one").await.unwrap();
    open.write(3, "two").await.unwrap();
    open.close().await.unwrap();
    assert_eq!(mount.revision(), before);
    assert_eq!(mount.read(".f.swp").await.unwrap(), "onetwo");
}

#[tokio::test]
async fn locks_of_a_local_file_hold_among_the_programs_of_its_mount() {
    let mount = Mount::empty();
    let open = mount.create(".f.swp", EXCLUSIVE).await.unwrap();
    let before = mount.revision();
    let request = |owner| LockRequest {
        handle: open.handle,
        owner,
        start: 0,
        end: u64::MAX,
        kind: Some(Kind::Exclusive),
        pid: 1,
        waits: false,
    };
    let lock = |owner| Arc::clone(&mount.fs).set_lock(ANYBODY, request(owner));
    lock(1).await.unwrap();
    assert_eq!(lock(2).await, Err(Errno::EAGAIN));
    assert!(mount.fs.get_lock(request(2)).await.unwrap().is_some());
    let unlock = LockRequest { kind: None, ..request(1) };
    Arc::clone(&mount.fs).set_lock(ANYBODY, unlock).await.unwrap();
    lock(2).await.unwrap();
    assert_eq!(mount.revision(), before);
}

#[tokio::test]
async fn there_is_a_bound_of_local_files() {
    let mount = Mount::empty();
    let root = mount.fs.nodes.root().ino;
    for index in 0..4_096 {
        let own = format!(".#{index}");
        mount.fs.symlink(ANYBODY, root, name(&own), name("me")).await.unwrap();
    }
    assert_eq!(mount.symlink(".#last", "me").await, Err(Errno::ENOSPC));
    assert_eq!(mount.create("4913", EXCLUSIVE).await.err(), Some(Errno::ENOSPC));
    mount.write("f", "ordinary").await.unwrap();
}
