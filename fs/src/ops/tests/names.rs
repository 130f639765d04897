//! Names: what may be made, removed and renamed, and the errno of what may not.

use fuser::Errno;

use super::super::SetAttr;
use super::{CREATE, Mount, REWRITE, USER, delete, keys, put};
use crate::commit::key_value;
use crate::path::DirectoryKey;

const EXCLUSIVE: i32 = CREATE | libc::O_EXCL;

#[tokio::test]
async fn a_creation_opens_nothing_that_was_made_meanwhile() {
    let mount = Mount::empty();
    put(&mount.memory, "/theirs", "x").await;
    let _unborn = mount.create("unborn", CREATE).await.unwrap();
    let flags = CREATE | libc::O_TRUNC;
    for taken in ["theirs", "unborn"] {
        let (parent, file) = mount.parent(taken).await.unwrap();
        let opened = mount.fs.create(USER, parent, file, 0o600, flags).await;
        assert_eq!(opened.map(|_| ()), Err(Errno::ESTALE), "{}", file.display());
    }
    assert_eq!(mount.read("theirs").await.unwrap(), "x");
}

#[tokio::test]
async fn what_is_in_the_way_of_a_new_name_is_told() {
    let mount = Mount::empty();
    put(&mount.memory, "/file", "x").await;
    put(&mount.memory, "/dir/f", "x").await;
    let before = mount.revision();
    assert_eq!(mount.create("file", EXCLUSIVE).await.map(|_| ()), Err(Errno::EEXIST));
    assert_eq!(mount.create("dir", EXCLUSIVE).await.map(|_| ()), Err(Errno::EEXIST));
    assert_eq!(mount.create("dir", CREATE).await.map(|_| ()), Err(Errno::EISDIR));
    assert_eq!(mount.create("no/f", CREATE).await.map(|_| ()), Err(Errno::ENOENT));
    assert_eq!(mount.create("file/f", CREATE).await.map(|_| ()), Err(Errno::ENOTDIR));
    assert_eq!(mount.mkdir("file").await, Err(Errno::EEXIST));
    assert_eq!(mount.mkdir("dir").await, Err(Errno::EEXIST));
    assert_eq!(mount.symlink("dir", "x").await, Err(Errno::EEXIST));
    for hidden in ["@rev", "@value", "@history", "@@later", "%"] {
        assert_eq!(mount.create(hidden, CREATE).await.map(|_| ()), Err(Errno::EPERM), "{hidden}");
        assert_eq!(mount.mkdir(hidden).await, Err(Errno::EPERM), "{hidden}");
    }
    let long = "x".repeat(256);
    assert_eq!(mount.create(&long, CREATE).await.map(|_| ()), Err(Errno::ENAMETOOLONG));
    let open = mount.create("file", CREATE).await.unwrap();
    open.close().await.unwrap();
    assert_eq!(mount.revision(), before);
    let unborn = mount.create("new", EXCLUSIVE).await.unwrap();
    assert_eq!(mount.create("new", EXCLUSIVE).await.map(|_| ()), Err(Errno::EEXIST));
    assert_eq!(mount.mkdir("new").await, Err(Errno::EEXIST));
    unborn.close().await.unwrap();
}

#[tokio::test]
async fn a_key_that_would_be_too_long_is_refused_before_anything() {
    let mount = Mount::empty();
    let name = "n".repeat(250);
    let mut path = String::new();
    for _ in 0..7 {
        path += &name;
        mount.mkdir(&path).await.unwrap();
        path += "/";
    }
    let before = mount.revision();
    let too_long = format!("{path}{name}");
    assert_eq!(mount.create(&too_long, CREATE).await.map(|_| ()), Err(Errno::ENAMETOOLONG));
    assert_eq!(mount.mkdir(&too_long).await, Err(Errno::ENAMETOOLONG));
    mount.write("f", "x").await.unwrap();
    assert_eq!(mount.rename("f", &too_long).await, Err(Errno::ENAMETOOLONG));
    assert_eq!(mount.revision(), before + 1);
}

#[tokio::test]
async fn a_directory_keeps_its_marker_when_its_last_file_goes() {
    let mount = Mount::empty();
    put(&mount.memory, "/d/f", "x").await;
    let before = mount.revision();
    mount.unlink("d/f").await.unwrap();
    assert_eq!(mount.revision(), before + 1);
    assert_eq!(keys(&mount.memory).await, ["/d/"]);
    assert_eq!(mount.unlink("d/f").await, Err(Errno::ENOENT));
    assert_eq!(mount.unlink("d").await, Err(Errno::EISDIR));
    mount.rmdir("d").await.unwrap();
    assert!(keys(&mount.memory).await.is_empty());
    put(&mount.memory, "/f", "x").await;
    assert_eq!(mount.rmdir("f").await, Err(Errno::ENOTDIR));
    mount.unlink("f").await.unwrap();
    assert!(keys(&mount.memory).await.is_empty(), "the root needs no marker");
}

#[tokio::test]
async fn a_directory_is_empty_when_only_its_marker_is_left() {
    let mount = Mount::empty();
    mount.mkdir("d").await.unwrap();
    assert_eq!(keys(&mount.memory).await, ["/d/"]);
    let unborn = mount.create("d/f", CREATE).await.unwrap();
    assert_eq!(mount.rmdir("d").await, Err(Errno::ENOTEMPTY));
    mount.unlink("d/f").await.unwrap();
    unborn.close().await.unwrap();
    assert_eq!(keys(&mount.memory).await, ["/d/"]);
    put(&mount.memory, "/d/f", "x").await;
    assert_eq!(mount.rmdir("d").await, Err(Errno::ENOTEMPTY));
    mount.unlink("d/f").await.unwrap();
    put(&mount.memory, "/d", "value").await;
    assert_eq!(mount.rmdir("d").await, Err(Errno::ENOTEMPTY));
    mount.unlink("d/@value").await.unwrap();
    put(&mount.memory, "/d/", "of its own").await;
    assert_eq!(mount.rmdir("d").await, Err(Errno::ENOTEMPTY));
    mount.unlink("d/%").await.unwrap();
    assert_eq!(keys(&mount.memory).await, ["/d/"]);
    mount.rmdir("d").await.unwrap();
    assert_eq!(mount.rmdir("d").await, Err(Errno::ENOENT));
}

#[tokio::test]
async fn an_unlinked_file_lives_on_for_its_handles_only() {
    let mount = Mount::empty();
    mount.write("f", "old").await.unwrap();
    let reader = mount.open("f", libc::O_RDONLY).await.unwrap();
    let writer = mount.open("f", libc::O_RDWR).await.unwrap();
    mount.unlink("f").await.unwrap();
    assert_eq!(reader.read().await.unwrap(), "old");
    let before = mount.revision();
    writer.write(3, "er").await.unwrap();
    assert_eq!(reader.read().await.unwrap(), "older");
    writer.fsync().await.unwrap();
    writer.close().await.unwrap();
    reader.close().await.unwrap();
    assert_eq!(mount.revision(), before);
    let never = mount.create("tmp", EXCLUSIVE).await.unwrap();
    never.write(0, "x").await.unwrap();
    mount.unlink("tmp").await.unwrap();
    never.close().await.unwrap();
    assert_eq!(mount.revision(), before);
    assert!(keys(&mount.memory).await.is_empty());
    assert_eq!(mount.fs.writing.budget.used(), 0);
}

#[tokio::test]
async fn a_file_of_a_moved_directory_can_be_read_when_it_is_unlinked() {
    let mount = Mount::empty();
    mount.mkdir("a").await.unwrap();
    mount.write("a/f", "x").await.unwrap();
    let open = mount.open("a/f", libc::O_RDWR).await.unwrap();
    mount.rename("a", "b").await.unwrap();
    let ino = mount.ino("b/f").await.unwrap();
    let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    mount.fs.setattr(super::ANYBODY, ino, private).await.unwrap();
    mount.unlink("b/f").await.unwrap();
    assert_eq!(open.read().await.unwrap(), "x");
    let attr = mount.fs.getattr(ino).await.unwrap().attr;
    assert_eq!((attr.nlink, attr.perm, attr.size), (0, 0o600, 1));
    open.write(1, "y").await.unwrap();
    assert_eq!(open.read().await.unwrap(), "xy");
    open.close().await.unwrap();
    assert_eq!(mount.fs.writing.budget.used(), 0);
}

#[tokio::test]
async fn a_directory_made_where_one_was_removed_is_another_node() {
    let mount = Mount::empty();
    mount.mkdir("d").await.unwrap();
    let removed = mount.ino("d").await.unwrap();
    mount.rmdir("d").await.unwrap();
    mount.mkdir("d").await.unwrap();
    let made = mount.ino("d").await.unwrap();
    assert_ne!(made, removed);
    mount.mkdir("e").await.unwrap();
    let moved = mount.ino("e").await.unwrap();
    mount.rename("e", "d").await.unwrap();
    assert_eq!(mount.ino("d").await.unwrap(), moved);
    mount.mkdir("e").await.unwrap();
    assert_ne!(mount.ino("e").await.unwrap(), moved);
    assert_eq!(mount.fs.getattr(removed).await.unwrap().attr.kind, fuser::FileType::Directory);
}

#[tokio::test]
async fn an_attribute_of_a_file_that_lost_its_name_is_for_its_handles() {
    let mount = Mount::empty();
    mount.write("f", "x").await.unwrap();
    let ino = mount.ino("f").await.unwrap();
    let open = mount.open("f", libc::O_RDONLY).await.unwrap();
    mount.unlink("f").await.unwrap();
    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    mount.fs.setattr(super::ANYBODY, ino, mode).await.unwrap();
    assert_eq!(mount.fs.getattr(ino).await.unwrap().attr.perm, 0o600);
    open.close().await.unwrap();
    assert_eq!(mount.fs.writing.budget.used(), 0);
    // Without one, nobody would ever drop the copy.
    let size = SetAttr { size: Some(9), ..SetAttr::default() };
    for set in [mode, size] {
        let refused = mount.fs.setattr(super::ANYBODY, ino, set).await.map(|_| ());
        assert_eq!(refused, Err(Errno::ESTALE));
    }
    assert_eq!(mount.fs.writing.budget.used(), 0);
}

#[tokio::test]
async fn a_rename_keeps_content_time_and_attributes() {
    let mount = Mount::empty();
    let open = mount.create_as(super::USER, "f", 0o600, EXCLUSIVE).await.unwrap();
    open.write(0, "x").await.unwrap();
    open.close().await.unwrap();
    let (ino, mtime) = {
        let attr = mount.stat("f").await.unwrap();
        (attr.ino, attr.mtime)
    };
    mount.memory.advance(std::time::Duration::from_secs(60));
    mount.write("g", "other").await.unwrap();
    let before = mount.revision();
    mount.rename("f", "g").await.unwrap();
    assert_eq!(mount.revision(), before + 1);
    let attr = mount.stat("g").await.unwrap();
    assert_eq!((attr.ino, attr.mtime, attr.perm, attr.uid), (ino, mtime, 0o600, 1000));
    assert_eq!(mount.read("g").await.unwrap(), "x");
    assert_eq!(mount.stat("f").await.map(|_| ()), Err(Errno::ENOENT));
    // A plain file over one with a record: the record goes.
    mount.write("plain", "p").await.unwrap();
    mount.rename("plain", "g").await.unwrap();
    assert_eq!(mount.stat("g").await.unwrap().perm, 0o644);
    assert_eq!(keys(&mount.memory).await, ["/g"]);
}

#[tokio::test]
async fn a_rename_of_what_is_staged_is_one_revision_of_everything() {
    let mount = Mount::empty();
    mount.write("f", "old").await.unwrap();
    let before = mount.revision();
    let unborn = mount.create_as(super::USER, "tmp", 0o600, EXCLUSIVE).await.unwrap();
    unborn.write(0, "new").await.unwrap();
    mount.rename("tmp", "f").await.unwrap();
    assert_eq!(mount.revision(), before + 1);
    assert_eq!(mount.stored("/f").await.unwrap(), "new");
    assert_eq!(mount.record("/f").await.unwrap().mode, 0o600);
    unborn.write(3, "er").await.unwrap();
    unborn.close().await.unwrap();
    assert_eq!(mount.stored("/f").await.unwrap(), "newer");
    assert_eq!(mount.revision(), before + 2);
    for flags in [REWRITE, libc::O_WRONLY | libc::O_APPEND, libc::O_WRONLY] {
        mount.write("a", "a").await.unwrap();
        let before = mount.revision();
        let open = mount.open("a", flags).await.unwrap();
        open.write(0, "b").await.unwrap();
        mount.rename("a", "b").await.unwrap();
        assert_eq!(mount.revision(), before + 1);
        open.close().await.unwrap();
        assert_eq!(mount.revision(), before + 1);
        let appended = if flags & libc::O_APPEND != 0 { "ab" } else { "b" };
        assert_eq!(mount.stored("/b").await.unwrap(), appended);
        assert_eq!(mount.stored("/a").await, None);
        assert_eq!(mount.stat("b").await.unwrap().size, appended.len() as u64);
    }
}

#[tokio::test]
async fn what_is_staged_in_a_renamed_directory_goes_along() {
    let mount = Mount::empty();
    put(&mount.memory, "/a/changed", "1").await;
    put(&mount.memory, "/a", "value").await;
    let unborn = mount.create("a/new", EXCLUSIVE).await.unwrap();
    unborn.write(0, "n").await.unwrap();
    let changed = mount.open("a/changed", libc::O_RDWR).await.unwrap();
    assert_eq!(changed.read().await.unwrap(), "1");
    changed.write(1, "2").await.unwrap();
    let rewritten = mount.open("a/@value", REWRITE).await.unwrap();
    let before = mount.revision();
    mount.mkdir("b").await.unwrap();
    mount.rename("a", "b").await.unwrap();
    assert_eq!(mount.revision(), before + 2);
    assert_eq!(mount.stat("b/new").await.unwrap().size, 1);
    assert_eq!(mount.stat("a").await.map(|_| ()), Err(Errno::ENOENT));
    rewritten.write(0, "V").await.unwrap();
    for open in [unborn, changed, rewritten] {
        open.close().await.unwrap();
    }
    assert_eq!(mount.revision(), before + 5);
    for (key, value) in [("/b/new", "n"), ("/b/changed", "12"), ("/b", "V")] {
        assert_eq!(mount.stored(key).await.unwrap(), value);
    }
}

#[tokio::test]
async fn a_directory_brings_its_attributes_and_takes_the_place_of_an_empty_one_only() {
    let mount = Mount::empty();
    let chmod = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    for path in ["a", "a/sub", "b", "full", "full/x"] {
        mount.mkdir(path).await.unwrap();
    }
    let sub = mount.ino("a/sub").await.unwrap();
    mount.fs.setattr(super::ANYBODY, sub, chmod(0o700)).await.unwrap();
    let replaced = mount.ino("b").await.unwrap();
    mount.fs.setattr(super::ANYBODY, replaced, chmod(0o711)).await.unwrap();
    assert_eq!(mount.rename("a", "full").await, Err(Errno::ENOTEMPTY));
    assert_eq!(mount.rename("a", "a/sub/x").await, Err(Errno::EINVAL));
    assert_eq!(mount.rename("full/x", "full").await, Err(Errno::ENOTEMPTY));
    mount.write("f", "x").await.unwrap();
    assert_eq!(mount.rename("a", "f").await, Err(Errno::ENOTDIR));
    assert_eq!(mount.rename("f", "a").await, Err(Errno::EISDIR));
    assert_eq!(mount.rename("a", "nowhere/a").await, Err(Errno::ENOENT));
    mount.rename("a", "b").await.unwrap();
    assert_eq!(mount.stat("b").await.unwrap().perm, 0o755);
    assert_eq!(mount.stat("b/sub").await.unwrap().perm, 0o700);
    assert_eq!(mount.stat("b/sub").await.unwrap().ino.0, sub);
}

#[tokio::test]
async fn flags_of_rename_are_kept() {
    let mount = Mount::empty();
    mount.write("a", "1").await.unwrap();
    mount.write("b", "2").await.unwrap();
    let no_replace = libc::RENAME_NOREPLACE;
    assert_eq!(mount.rename_with("a", "b", no_replace).await, Err(Errno::EEXIST));
    mount.rename_with("a", "c", no_replace).await.unwrap();
    let before = mount.revision();
    let (one, other) = (mount.stat("b").await.unwrap(), mount.stat("c").await.unwrap());
    mount.rename_with("b", "c", libc::RENAME_EXCHANGE).await.unwrap();
    assert_eq!(mount.revision(), before + 1);
    assert_eq!(mount.read("b").await.unwrap(), "1");
    assert_eq!(mount.read("c").await.unwrap(), "2");
    let now = mount.stat("c").await.unwrap();
    assert_eq!((now.ino, now.mtime), (one.ino, one.mtime));
    assert_eq!(mount.stat("b").await.unwrap().ino, other.ino);
    assert_eq!(mount.rename_with("b", "none", libc::RENAME_EXCHANGE).await, Err(Errno::ENOENT));
    assert_eq!(mount.rename_with("b", "c", libc::RENAME_WHITEOUT).await, Err(Errno::EINVAL));
    mount.rename("b", "b").await.unwrap();
    assert_eq!(mount.revision(), before + 1);
}

#[tokio::test]
async fn nothing_is_changed_outside_the_live_tree() {
    let mount = Mount::empty();
    put(&mount.memory, "/d/f", "x").await;
    let revision = mount.revision();
    let past = format!("d/@rev/{revision}/f");
    assert_eq!(mount.open(&past, libc::O_WRONLY).await.map(|_| ()), Err(Errno::EROFS));
    assert_eq!(mount.unlink(&past).await, Err(Errno::EROFS));
    let made = format!("d/@rev/{revision}/new");
    assert_eq!(mount.create(&made, CREATE).await.map(|_| ()), Err(Errno::EROFS));
    assert_eq!(mount.mkdir(&made).await, Err(Errno::EROFS));
    assert_eq!(mount.rename(&past, "f").await, Err(Errno::EXDEV));
    assert_eq!(mount.rename("d/f", &made).await, Err(Errno::EXDEV));
    assert_eq!(mount.rename(&past, &made).await, Err(Errno::EROFS));
    assert_eq!(mount.unlink("d/@rev").await, Err(Errno::EPERM));
    assert_eq!(mount.revision(), revision);
}

#[tokio::test]
async fn a_symlink_is_its_target_and_a_record() {
    let mount = Mount::empty();
    let before = mount.revision();
    mount.symlink("l", "to/where").await.unwrap();
    assert_eq!(mount.revision(), before + 1);
    assert_eq!(mount.stored("/l").await.unwrap(), "to/where");
    let attr = mount.stat("l").await.unwrap();
    assert_eq!((attr.kind, attr.size), (fuser::FileType::Symlink, 8));
    mount.rename("l", "m").await.unwrap();
    let ino = mount.ino("m").await.unwrap();
    assert_eq!(mount.fs.readlink(ino).await.unwrap(), "to/where");
    mount.unlink("m").await.unwrap();
    assert!(keys(&mount.memory).await.is_empty());
}

#[tokio::test]
async fn a_name_that_was_gone_meanwhile_is_another_file() {
    let mount = Mount::empty();
    mount.write("f", "1").await.unwrap();
    let first = mount.ino("f").await.unwrap();
    delete(&mount.memory, "/f").await;
    put(&mount.memory, "/f", "2").await;
    assert_ne!(mount.ino("f").await.unwrap(), first);
    mount.unlink("f").await.unwrap();
    mount.mkdir("f").await.unwrap();
    mount.write("f/x", "3").await.unwrap();
    assert_eq!(mount.read("f/x").await.unwrap(), "3");
}

#[tokio::test]
async fn a_directory_whose_parent_vanished_is_not_made_in_thin_air() {
    let mount = Mount::empty();
    mount.mkdir("d").await.unwrap();
    let open = mount.create("d/f", CREATE | libc::O_TRUNC).await.unwrap();
    open.write(0, "x").await.unwrap();
    delete(&mount.memory, "/d/").await;
    assert_eq!(open.flush().await, Err(Errno::ENOENT));
    assert!(keys(&mount.memory).await.is_empty());
    open.release().await.ok();
    // A directory that became one by a child needs no marker.
    mount.mkdir("e").await.unwrap();
    let open = mount.create("e/f", CREATE | libc::O_TRUNC).await.unwrap();
    put(&mount.memory, "/e/g", "x").await;
    delete(&mount.memory, "/e/").await;
    put(&mount.memory, "/e", "value").await;
    open.close().await.unwrap();
    assert_eq!(keys(&mount.memory).await, ["/e", "/e/f", "/e/g"]);
}

#[tokio::test]
async fn too_large_a_directory_is_refused_whole() {
    let mount = Mount::empty();
    for index in 0..20 {
        put(&mount.memory, &format!("/d/{index}"), "x").await;
    }
    mount.memory.limit_txn_keys(10);
    let before = mount.revision();
    assert_eq!(mount.rename("d", "e").await, Err(Errno::E2BIG));
    assert_eq!(mount.revision(), before);
    let directory = DirectoryKey::new("/d/").unwrap();
    let list = revfs_api::keyspace::Read::key(directory.child_key(b"7"));
    let answer = mount.fs.ask(revfs_api::keyspace::Revision::NONE, vec![list]).await.unwrap();
    assert!(key_value(&answer, 0).is_some());
}
