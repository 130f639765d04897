//! Directories under other names: what goes along when they are renamed or exchanged.

use std::time::{Duration, SystemTime};

use fuser::{Errno, TimeOrNow};

use super::super::SetAttr;
use super::{CREATE, Mount, REWRITE, delete, keys, put};

const EXCLUSIVE: i32 = CREATE | libc::O_EXCL;

#[tokio::test]
async fn directories_and_what_is_staged_in_them_are_exchanged_in_one_revision() {
    let mount = Mount::empty();
    let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    put(&mount.memory, "/a/same", "of a").await;
    put(&mount.memory, "/a/s/mine", "1").await;
    put(&mount.memory, "/a", "value").await;
    for path in ["b", "p", "p/b"] {
        mount.mkdir(path).await.unwrap();
    }
    put(&mount.memory, "/p/b/same", "of b").await;
    let [a, b] = [mount.ino("a").await.unwrap(), mount.ino("p/b").await.unwrap()];
    mount.fs.setattr(super::ANYBODY, b, mode(0o700)).await.unwrap();
    let inner = mount.ino("a/same").await.unwrap();
    mount.fs.setattr(super::ANYBODY, inner, mode(0o600)).await.unwrap();
    let staged = mount.open("a/same", libc::O_RDWR).await.unwrap();
    staged.write(0, "OF").await.unwrap();
    let unborn = mount.create("p/b/new", EXCLUSIVE).await.unwrap();
    unborn.write(0, "n").await.unwrap();
    let before = mount.revision();
    mount.rename_with("a", "p/b", libc::RENAME_EXCHANGE).await.unwrap();
    assert_eq!(mount.revision(), before + 1);
    assert_eq!([mount.ino("p/b").await.unwrap(), mount.ino("a").await.unwrap()], [a, b]);
    assert_eq!(mount.ino("p/b/same").await.unwrap(), inner);
    staged.close().await.unwrap();
    unborn.close().await.unwrap();
    let stored = [
        ("/p/b/same", "OF a"),
        ("/p/b/s/mine", "1"),
        ("/p/b", "value"),
        ("/a/same", "of b"),
        ("/a/new", "n"),
    ];
    for (key, value) in stored {
        assert_eq!(mount.stored(key).await.as_deref(), Some(value), "{key}");
    }
    assert_eq!(mount.stored("/a").await, None);
    assert_eq!(mount.stat("a").await.unwrap().perm, 0o700);
    assert_eq!(mount.stat("p/b/same").await.unwrap().perm, 0o600);
    assert_eq!(mount.stat("p/b").await.unwrap().perm, 0o755);
    assert_eq!(mount.stat("a/same").await.unwrap().perm, 0o644);
    let exchange = libc::RENAME_EXCHANGE;
    for (one, other) in [("p", "p/b"), ("p/b", "p"), ("p/b/same", "p"), ("p/b", "p/b/@value")] {
        assert_eq!(mount.rename_with(one, other, exchange).await, Err(Errno::EINVAL), "{one}");
    }
    assert_eq!(mount.rename_with("a", "p/b/@value", exchange).await, Err(Errno::EINVAL));
}

#[tokio::test]
async fn a_file_and_a_directory_are_exchanged() {
    let mount = Mount::empty();
    put(&mount.memory, "/d/x", "1").await;
    put(&mount.memory, "/d", "value").await;
    mount.write("f", "old").await.unwrap();
    let ino = mount.ino("f").await.unwrap();
    let times = SetAttr { mode: Some(0o604), ..SetAttr::default() };
    mount.fs.setattr(super::ANYBODY, ino, times).await.unwrap();
    let staged = mount.open("f", REWRITE).await.unwrap();
    staged.write(0, "new").await.unwrap();
    let before = mount.revision();
    mount.rename_with("f", "d", libc::RENAME_EXCHANGE).await.unwrap();
    assert_eq!(mount.revision(), before + 2, "the content, then both names");
    staged.write(3, "er").await.unwrap();
    staged.close().await.unwrap();
    assert_eq!(keys(&mount.memory).await, ["\\x00revfs/a/d", "/d", "/f", "/f/x"]);
    assert_eq!(mount.read("d").await.unwrap(), "newer");
    let now = mount.stat("d").await.unwrap();
    assert_eq!((now.ino.0, now.perm), (ino, 0o604));
    assert_eq!(mount.read("f/x").await.unwrap(), "1");
    assert_eq!(mount.read("f/@value").await.unwrap(), "value");
    mount.rename_with("f", "d", libc::RENAME_EXCHANGE).await.unwrap();
    assert_eq!(mount.read("f").await.unwrap(), "newer");
    assert_eq!(mount.read("d/x").await.unwrap(), "1");
}

#[tokio::test]
async fn a_renamed_directory_keeps_its_times_and_its_parents_change() {
    let mount = Mount::empty();
    let second = |n| SystemTime::UNIX_EPOCH + Duration::from_secs(n);
    let mtime = async |path: &str| mount.stat(path).await.unwrap().mtime;
    for path in ["p", "q", "p/d", "p/d/s"] {
        mount.memory.advance(Duration::from_secs(1));
        mount.mkdir(path).await.unwrap();
    }
    mount.memory.advance(Duration::from_secs(1));
    mount.write("p/d/s/f", "x").await.unwrap();
    let inner = mount.ino("p/d/s").await.unwrap();
    let times = SetAttr { mtime: Some(TimeOrNow::SpecificTime(second(7))), ..SetAttr::default() };
    mount.fs.setattr(super::ANYBODY, inner, times).await.unwrap();
    let (own, p, q) = (mtime("p/d").await, mtime("p").await, mtime("q").await);
    for (from, to, flags) in
        [("p/d", "q/e", 0), ("q/e", "q/empty", 0), ("q/empty", "p", libc::RENAME_EXCHANGE)]
    {
        mount.memory.advance(Duration::from_secs(1));
        if to == "q/empty" {
            mount.mkdir(to).await.unwrap();
            mount.memory.advance(Duration::from_secs(1));
        }
        mount.rename_with(from, to, flags).await.unwrap();
        assert_eq!(mtime(to).await, own, "{from} {to}");
        assert!(mount.stat(to).await.unwrap().ctime > own);
        assert_eq!(mtime(&format!("{to}/s")).await, second(7));
    }
    assert!(mtime("q").await > q);
    assert!(mtime("q/empty").await > p, "it was p, which lost a name");
    mount.write("p/s/g", "x").await.unwrap();
    assert_ne!(mtime("p/s").await, second(7), "a name came since it was set");
}

#[tokio::test]
async fn records_left_over_at_the_new_name_of_a_directory_are_nobodys() {
    let mount = Mount::empty();
    let chmod = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    put(&mount.memory, "/from/x", "older").await;
    mount.mkdir("to").await.unwrap();
    mount.write("to/x", "gone soon").await.unwrap();
    for path in ["to", "to/x"] {
        let ino = mount.ino(path).await.unwrap();
        mount.fs.setattr(super::ANYBODY, ino, chmod(0o711)).await.unwrap();
    }
    // Its record stays.
    delete(&mount.memory, "/to/x").await;
    let before = mount.revision();
    mount.rename("from", "to").await.unwrap();
    assert_eq!(mount.revision(), before + 1);
    assert_eq!(mount.stat("to/x").await.unwrap().perm, 0o644);
    mount.mkdir("from").await.unwrap();
    mount.write("from/x", "new").await.unwrap();
    assert_eq!(mount.stat("from").await.unwrap().perm, 0o755);
    assert_eq!(mount.stat("from/x").await.unwrap().perm, 0o644);
}
