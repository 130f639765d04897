//! One revision for each thing that a person would call a write.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuser::{Errno, TimeOrNow};
use revfs_api::KeySpace;
use revfs_api::keyspace::Time;

use super::{ANYBODY, CREATE, Mount, REWRITE, USER, delete, name, put};
use crate::commit::TEND_EVERY;
use crate::note::{Note, Operation};
use crate::ops::SetAttr;

const EXCLUSIVE: i32 = CREATE | libc::O_EXCL;

#[tokio::test]
async fn a_new_file_is_one_revision_and_its_note_tells_how() {
    let mount = Mount::empty();
    let before = mount.revision();
    let open = mount.create("f", CREATE | libc::O_TRUNC).await.unwrap();
    assert_eq!(mount.stat("f").await.unwrap().size, 0);
    open.write(0, "hel").await.unwrap();
    open.write(3, "lo").await.unwrap();
    assert_eq!(mount.read("f").await.unwrap(), "hello");
    assert_eq!(mount.revision(), before);
    open.close().await.unwrap();
    assert_eq!(mount.revision(), before + 1);
    assert_eq!(mount.stored("/f").await.unwrap(), "hello");
    assert_eq!(mount.record("/f").await, None);
    let stamp = mount.memory.stamp(mount.memory.current()).await.unwrap();
    let key = || "/f".into();
    let expected = [Operation::Create(key()), Operation::Write(key()), Operation::Close(key())];
    assert_eq!(Note::decode(&stamp.note).unwrap().operations, expected);
    assert!(stamp.author.claimed.starts_with("root@"), "{}", stamp.author.claimed);
}

#[tokio::test]
async fn a_copy_with_all_its_attributes_is_one_revision() {
    let mount = Mount::empty();
    let before = mount.revision();
    let open = mount.create_as(ANYBODY, "f", 0o600, EXCLUSIVE).await.unwrap();
    open.write(0, "x").await.unwrap();
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let times = SetAttr { mtime: Some(TimeOrNow::SpecificTime(long_ago)), ..SetAttr::default() };
    mount.fs.setattr(ANYBODY, open.ino, times).await.unwrap();
    let owner = SetAttr { uid: Some(7), gid: Some(8), ..SetAttr::default() };
    mount.fs.setattr(ANYBODY, open.ino, owner).await.unwrap();
    mount.fs.setxattr(ANYBODY, open.ino, name("user.a"), b"b", 0).await.unwrap();
    let mode = SetAttr { mode: Some(0o4755), ..SetAttr::default() };
    mount.fs.setattr(ANYBODY, open.ino, mode).await.unwrap();
    let staged = mount.stat("f").await.unwrap();
    open.close().await.unwrap();
    assert_eq!(mount.revision(), before + 1);
    let stored = mount.stat("f").await.unwrap();
    for attr in [staged, stored] {
        assert_eq!((attr.perm, attr.uid, attr.gid, attr.mtime), (0o4755, 7, 8, long_ago));
    }
    let xattr = mount.fs.getxattr(open_ino(&mount, "f").await, name("user.a")).await;
    assert_eq!(xattr.unwrap(), "b");
}

async fn open_ino(mount: &Mount, path: &str) -> u64 {
    mount.ino(path).await.unwrap()
}

#[tokio::test]
async fn touch_of_a_new_file_is_one_revision_without_a_record() {
    let mount = Mount::empty();
    let before = mount.revision();
    let open = mount.create("f", CREATE).await.unwrap();
    let now =
        SetAttr { mtime: Some(TimeOrNow::Now), atime: Some(TimeOrNow::Now), ..SetAttr::default() };
    mount.fs.setattr(ANYBODY, open.ino, now).await.unwrap();
    open.close().await.unwrap();
    assert_eq!(mount.revision(), before + 1);
    assert_eq!(mount.record("/f").await, None);
    // Of one that exists, it is one as well, and the time is the caller's.
    let earlier = SystemTime::now();
    let ino = mount.ino("f").await.unwrap();
    mount.fs.setattr(ANYBODY, ino, now).await.unwrap();
    assert_eq!(mount.revision(), before + 2);
    assert!(mount.stat("f").await.unwrap().mtime >= earlier);
}

#[tokio::test]
async fn a_time_set_by_hand_lasts_until_the_content_changes() {
    let mount = Mount::empty();
    mount.write("f", "1").await.unwrap();
    let long_ago = UNIX_EPOCH + Duration::from_secs(5);
    let times = SetAttr {
        mtime: Some(TimeOrNow::SpecificTime(long_ago)),
        mode: Some(0o600),
        ..SetAttr::default()
    };
    let ino = mount.ino("f").await.unwrap();
    mount.fs.setattr(ANYBODY, ino, times).await.unwrap();
    assert_eq!(mount.stat("f").await.unwrap().mtime, long_ago);
    mount.rename("f", "g").await.unwrap();
    assert_eq!(mount.stat("g").await.unwrap().mtime, long_ago);
    put(&mount.memory, "/g", "2").await;
    let attr = mount.stat("g").await.unwrap();
    assert_ne!(attr.mtime, long_ago);
    assert_eq!(attr.perm, 0o600);
}

#[tokio::test]
async fn a_rewrite_wins_over_what_came_meanwhile() {
    let mount = Mount::empty();
    put(&mount.memory, "/f", "old and long").await;
    let before = mount.revision();
    let open = mount.open("f", REWRITE).await.unwrap();
    assert_eq!(mount.stat("f").await.unwrap().size, 0);
    put(&mount.memory, "/f", "theirs").await;
    open.write(0, "ours").await.unwrap();
    open.close().await.unwrap();
    assert_eq!(mount.stored("/f").await.unwrap(), "ours");
    assert_eq!(mount.revision(), before + 2);
    // An emptied file is a change too.
    mount.open("f", REWRITE).await.unwrap().close().await.unwrap();
    assert_eq!(mount.stored("/f").await.unwrap(), "");
    assert_eq!(mount.revision(), before + 3);
}

#[tokio::test]
async fn bytes_appended_on_two_mounts_are_all_there() {
    let one = Mount::empty();
    let other = Mount::new(&one.memory);
    let flags = libc::O_WRONLY | libc::O_APPEND;
    // Neither finds the file; both create it.
    let first = one.create("log", flags | libc::O_CREAT).await.unwrap();
    let second = other.create("log", flags | libc::O_CREAT).await.unwrap();
    first.write(0, "a\n").await.unwrap();
    second.write(0, "b\n").await.unwrap();
    first.flush().await.unwrap();
    second.flush().await.unwrap();
    assert_eq!(one.stored("/log").await.unwrap(), "a\nb\n");
    assert_eq!(second.read().await.unwrap(), "a\nb\n");
    // The offset says nothing: the kernel knows an old length.
    first.write(0, "c\n").await.unwrap();
    second.write(2, "d\n").await.unwrap();
    second.close().await.unwrap();
    first.close().await.unwrap();
    assert_eq!(one.read("log").await.unwrap(), "a\nb\nd\nc\n");
    assert_eq!(one.revision(), 5);
}

#[tokio::test]
async fn what_is_written_while_a_commit_runs_is_the_next_one() {
    let mount = Mount::empty();
    let open = mount.create("f", CREATE | libc::O_TRUNC).await.unwrap();
    open.write(0, "one").await.unwrap();
    let node = mount.fs.nodes.get(open.ino).unwrap();
    let draft = node.file.lock().draft().unwrap();
    open.fsync().await.unwrap();
    open.write(3, " two").await.unwrap();
    // The commit of the first draft is settled only now.
    let kv = super::get(&mount.memory, b"/f").await.unwrap();
    let committed = crate::staged::Committed { kv, has_foreign_bytes: false };
    assert!(node.file.lock().settle(&draft, &committed));
    open.close().await.unwrap();
    assert_eq!(mount.stored("/f").await.unwrap(), "one two");
}

#[tokio::test]
async fn fsync_commits_and_a_close_without_news_does_not() {
    let mount = Mount::empty();
    let open = mount.create("f", CREATE | libc::O_TRUNC).await.unwrap();
    open.write(0, "x").await.unwrap();
    let before = mount.revision();
    open.fsync().await.unwrap();
    assert_eq!(mount.revision(), before + 1);
    open.fsync().await.unwrap();
    open.close().await.unwrap();
    assert_eq!(mount.revision(), before + 1);
}

#[tokio::test]
async fn a_release_commits_what_no_flush_has() {
    let mount = Mount::empty();
    let open = mount.create("f", CREATE | libc::O_TRUNC).await.unwrap();
    open.write(0, "mapped").await.unwrap();
    open.release().await.unwrap();
    assert_eq!(mount.stored("/f").await.unwrap(), "mapped");
}

#[tokio::test]
async fn a_flush_is_a_close_when_the_opener_has_no_descriptor_or_cannot_be_asked() {
    let mount = Mount::empty();
    let own = super::Caller { pid: std::process::id(), ..ANYBODY };
    let open = mount.create_as(own, "f", 0o644, CREATE | libc::O_TRUNC).await.unwrap();
    open.write(0, "x").await.unwrap();
    // This process has no descriptor of the file: a FLUSH by it is a close.
    open.flush().await.unwrap();
    assert_eq!(mount.stored("/f").await.unwrap(), "x");
    assert_eq!(mount.fs.writing.blind_flushes(), 0);
    let anybody = mount.open("f", REWRITE).await.unwrap();
    anybody.flush().await.unwrap();
    assert_eq!(mount.fs.writing.blind_flushes(), 1);
}

#[tokio::test]
async fn appended_bytes_are_committed_when_the_file_is_idle() {
    let mount = Mount::empty();
    put(&mount.memory, "/log", "1").await;
    let open = mount.open("log", libc::O_WRONLY | libc::O_APPEND).await.unwrap();
    open.write(0, "2").await.unwrap();
    let changed = mount.create("f", CREATE | libc::O_TRUNC).await.unwrap();
    changed.write(0, "x").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut tick = tokio::time::interval(TEND_EVERY);
    while mount.stored("/log").await.unwrap() != "12" {
        assert!(Instant::now() < deadline, "not committed when idle");
        mount.fs.tend().await;
        tick.tick().await;
    }
    assert_eq!(mount.stored("/f").await, None, "only appended bytes are");
    open.close().await.unwrap();
    assert_eq!(mount.stored("/log").await.unwrap(), "12");
    changed.close().await.unwrap();
}

#[tokio::test]
async fn truncating_is_one_revision_with_and_without_a_handle() {
    let mount = Mount::empty();
    put(&mount.memory, "/f", "12345").await;
    let ino = mount.ino("f").await.unwrap();
    let before = mount.revision();
    let shorter = SetAttr { size: Some(3), ..SetAttr::default() };
    assert_eq!(mount.fs.setattr(ANYBODY, ino, shorter).await.unwrap().attr.size, 3);
    assert_eq!(mount.stored("/f").await.unwrap(), "123");
    assert_eq!(mount.revision(), before + 1);
    let open = mount.open("f", libc::O_RDWR).await.unwrap();
    let longer = SetAttr { size: Some(5), handle: Some(open.handle), ..SetAttr::default() };
    mount.fs.setattr(ANYBODY, ino, longer).await.unwrap();
    assert_eq!(open.read().await.unwrap(), "123\0\0");
    assert_eq!(mount.revision(), before + 1);
    open.close().await.unwrap();
    assert_eq!(mount.stored("/f").await.unwrap(), "123\0\0");
    assert_eq!(mount.revision(), before + 2);
}

#[tokio::test]
async fn an_attribute_of_an_unopened_file_is_one_revision_of_its_record() {
    let mount = Mount::empty();
    put(&mount.memory, "/f", "x").await;
    let ino = mount.ino("f").await.unwrap();
    let before = mount.revision();
    let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    mount.fs.setattr(ANYBODY, ino, mode(0o600)).await.unwrap();
    assert_eq!(mount.revision(), before + 1);
    assert_eq!(mount.record("/f").await.unwrap().mode, 0o600);
    mount.fs.setattr(ANYBODY, ino, mode(0o644)).await.unwrap();
    assert_eq!(mount.record("/f").await, None, "default again");
    let atime = SetAttr { atime: Some(TimeOrNow::Now), ..SetAttr::default() };
    let refused = mount.fs.setattr(ANYBODY, ino, atime).await.map(drop);
    assert_eq!(refused, Err(Errno::EOPNOTSUPP));
    // Gone, and made anew by another: the record does not go to the new one.
    delete(&mount.memory, "/f").await;
    put(&mount.memory, "/f", "y").await;
    let refused = mount.fs.setattr(ANYBODY, ino, mode(0o666)).await.map(drop);
    assert_eq!(refused, Err(Errno::ESTALE));
    assert_eq!(mount.record("/f").await, None);
}

#[tokio::test]
async fn a_users_write_takes_the_set_id_bits_away() {
    let mount = Mount::empty();
    let open = mount.create_as(USER, "f", 0o6755, CREATE | libc::O_TRUNC).await.unwrap();
    assert_eq!(mount.stat("f").await.unwrap().perm, 0o6755);
    open.write(0, "x").await.unwrap();
    assert_eq!(mount.stat("f").await.unwrap().perm, 0o755);
    open.close().await.unwrap();
    let attributes = mount.record("/f").await.unwrap();
    assert_eq!((attributes.mode, attributes.uid, attributes.gid), (0o755, Some(1000), Some(1000)));
    let ino = mount.ino("f").await.unwrap();
    let set = SetAttr { mode: Some(0o6711), ..SetAttr::default() };
    mount.fs.setattr(ANYBODY, ino, set).await.unwrap();
    let owner = SetAttr { uid: Some(0), ..SetAttr::default() };
    assert_eq!(mount.fs.setattr(ANYBODY, ino, owner).await.unwrap().attr.perm, 0o711);
}

#[tokio::test]
async fn a_set_group_directory_gives_its_group_to_what_is_made_in_it() {
    let mount = Mount::empty();
    mount.mkdir("d").await.unwrap();
    let ino = mount.ino("d").await.unwrap();
    let set = SetAttr { mode: Some(0o2775), gid: Some(50), ..SetAttr::default() };
    mount.fs.setattr(ANYBODY, ino, set).await.unwrap();
    mount.create_as(USER, "d/f", 0o644, CREATE).await.unwrap().close().await.unwrap();
    assert_eq!(mount.stat("d/f").await.unwrap().gid, 50);
    mount.mkdir("d/e").await.unwrap();
    let attr = mount.stat("d/e").await.unwrap();
    assert_eq!((attr.gid, attr.perm), (50, 0o2755));
}

#[tokio::test]
async fn commit_all_leaves_nothing_behind() {
    let mount = Mount::empty();
    let first = mount.create("f", CREATE | libc::O_TRUNC).await.unwrap();
    let second = mount.create("g", CREATE | libc::O_TRUNC).await.unwrap();
    first.write(0, "1").await.unwrap();
    second.write(0, "2").await.unwrap();
    assert_eq!(mount.fs.commit_all(Duration::from_secs(10)).await, 0);
    assert_eq!(mount.stored("/f").await.unwrap(), "1");
    assert_eq!(mount.stored("/g").await.unwrap(), "2");
    assert_eq!(mount.fs.writing.budget.used(), 0);
    first.release().await.unwrap();
    second.release().await.unwrap();
}

#[tokio::test]
async fn the_time_of_a_commit_is_the_stores() {
    let mount = Mount::empty();
    mount.memory.set_time(Time(1_900_000_000_000_000_000));
    mount.write("f", "x").await.unwrap();
    let mtime = UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    assert_eq!(mount.stat("f").await.unwrap().mtime, mtime);
}
