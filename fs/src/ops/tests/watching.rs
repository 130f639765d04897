//! `@watch`: who reads it is told what changes below its directory, once, in order, and no more than it
//! may know.

use std::sync::Arc;
use std::sync::mpsc::channel;

use bytes::Bytes;
use fuser::Errno;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Error, Op};
use serde_json::Value;

use super::locks::{watching, within};
use super::{ANYBODY, CREATE, Mount, USER, change, delete, put};
use crate::attributes::{Attributes, Kind, record_key};
use crate::filesystem::{Answer, Caller};
use crate::memory::Memory;
use crate::ops::SetAttr;
use crate::watching::{Readiness, WATCHERS_MAX};

async fn open(mount: &Mount, caller: Caller, path: &str) -> Answer<u64> {
    let ino = mount.ino(path).await?;
    let opened = mount.fs.open_made_up(caller, ino, libc::O_RDONLY).await?;
    Ok(opened.expect("it is made up").handle)
}

/// As `read(2)` of a process without signals; `waits` unless it has O_NONBLOCK.
async fn read(mount: &Mount, handle: u64, size: u32, waits: bool) -> Answer<Bytes> {
    within(mount.fs.read_as(std::process::id(), handle, 0, size, waits)).await
}

/// All lines that are there, each as its kind and path.
async fn told(mount: &Mount, handle: u64) -> Vec<String> {
    let mut text = Vec::new();
    loop {
        match read(mount, handle, 7, false).await {
            Ok(bytes) => text.extend_from_slice(&bytes),
            Err(errno) => {
                assert_eq!(errno, Errno::EAGAIN);
                return kinds_and_paths(&text);
            }
        }
    }
}

fn kinds_and_paths(text: &[u8]) -> Vec<String> {
    assert!(text.is_empty() || text.ends_with(b"\n"), "whole lines");
    let line = |line: &[u8]| {
        let value: Value = serde_json::from_slice(line).expect("a line is JSON");
        format!("{} {}", value["kind"].as_str().unwrap(), value["path"].as_str().unwrap())
    };
    text.split_inclusive(|byte| *byte == b'\n').map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_through_a_mount_is_one_line_of_its_kind() {
    let mount = watching(&Arc::new(Memory::new())).await;
    mount.mkdir("d").await.unwrap();
    let handle = open(&mount, ANYBODY, "d/@watch").await.unwrap();
    assert!(told(&mount, handle).await.is_empty());
    mount.write("d/f", "1").await.unwrap();
    mount.write("d/f", "2").await.unwrap();
    assert_eq!(told(&mount, handle).await, ["create f", "write f"]);
    let (ino, mode) = (mount.ino("d/f").await.unwrap(), Some(0o600));
    mount.fs.setattr(ANYBODY, ino, SetAttr { mode, ..SetAttr::default() }).await.unwrap();
    assert_eq!(told(&mount, handle).await, ["attributes f"]);
    // Its record goes along.
    mount.rename("d/f", "d/g").await.unwrap();
    let mut renamed = told(&mount, handle).await;
    renamed.sort();
    assert_eq!(renamed, ["create g", "delete f"]);
    mount.unlink("d/g").await.unwrap();
    assert_eq!(told(&mount, handle).await, ["delete g"]);
    mount.mkdir("d/made").await.unwrap();
    let ino = mount.ino("d/made").await.unwrap();
    mount.fs.setattr(ANYBODY, ino, SetAttr { mode, ..SetAttr::default() }).await.unwrap();
    mount.rmdir("d/made").await.unwrap();
    assert_eq!(told(&mount, handle).await, ["create made/", "attributes made/", "delete made/"]);
    mount.rmdir("d").await.unwrap();
    mount.mkdir("d").await.unwrap();
    mount.mkdir("e").await.unwrap();
    assert_eq!(told(&mount, handle).await, ["delete ./", "create ./"]);
    mount.symlink("d/link", "f").await.unwrap();
    assert_eq!(told(&mount, handle).await, ["create link"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_that_only_keeps_a_directory_is_no_line() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/d/sub/f", "").await;
    let mount = watching(&memory).await;
    let handle = open(&mount, ANYBODY, "@watch").await.unwrap();
    // The first removal puts what keeps the directory.
    mount.unlink("d/sub/f").await.unwrap();
    assert_eq!(told(&mount, handle).await, ["delete d/sub/f"]);
    put(&memory, "/d/sub/g", "").await;
    delete(&memory, "/d/sub/").await;
    put(&memory, "/d/sub/", "").await;
    assert_eq!(told(&mount, handle).await, ["create d/sub/g"]);
    // A value at its prefix is a file in it.
    put(&memory, "/d/sub/", "x").await;
    assert_eq!(told(&mount, handle).await, ["write d/sub/%"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_begin_where_they_are_asked_to_and_each_file_has_its_own_place() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/d/f", "1").await;
    let first = memory.current();
    for number in 0..100 {
        put(&memory, &format!("/other/{number}"), "").await;
    }
    change(&memory, vec![Op::put("/d/f", "2"), Op::put("/d/g", ""), Op::put("/other/0", "")]).await;
    let mount = watching(&memory).await;
    let past = open(&mount, ANYBODY, &format!("d/@watch.{first}")).await.unwrap();
    let all = open(&mount, ANYBODY, "d/@watch.0").await.unwrap();
    let now = open(&mount, ANYBODY, "d/@watch").await.unwrap();
    let coming = memory.current().next().next();
    let later = open(&mount, ANYBODY, &format!("d/@watch.{coming}")).await.unwrap();
    put(&memory, "/d/h", "").await;
    assert!(told(&mount, later).await.is_empty());
    put(&memory, "/d/i", "").await;
    let lines = ["create f", "write f", "create g", "create h", "create i"];
    assert_eq!(told(&mount, past).await, lines);
    assert_eq!(told(&mount, all).await, lines);
    assert_eq!(told(&mount, now).await, lines[3..]);
    assert_eq!(told(&mount, later).await, lines[4..]);
    let missing = format!("@rev/{}/@watch", memory.current());
    assert_eq!(mount.ino(&missing).await, Err(Errno::ENOENT));
    assert_eq!(mount.ino("gone/@watch").await, Err(Errno::ENOENT));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_a_change_below_and_for_no_other() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/d/f", "1").await;
    let mount = watching(&memory).await;
    let handle = open(&mount, ANYBODY, "d/@watch").await.unwrap();
    let (said, hear) = channel();
    let fs = Arc::clone(&mount.fs);
    tokio::spawn(async move {
        let read = fs.read_as(std::process::id(), handle, 0, 4096, true).await;
        said.send(read).expect("somebody listens");
    });
    put(&memory, "/other", "").await;
    within(mount.fs.coherence.reaches(memory.current())).await;
    assert!(hear.try_recv().is_err(), "nothing below has changed");
    // A key space that is out of reach for a moment is no matter of the reader's.
    memory.fail_next_changes(Error::Unavailable { reason: "a test".into() });
    put(&memory, "/d/f", "2").await;
    let bytes = tokio::task::spawn_blocking(move || hear.recv()).await.unwrap().unwrap().unwrap();
    assert_eq!(kinds_and_paths(&bytes), ["write f"]);
    // Of who does not wait it is.
    memory.fail_next_changes(Error::Unavailable { reason: "a test".into() });
    assert_eq!(read(&mount, handle, 4096, false).await, Err(Errno::EIO));
    memory.end_watches();
    put(&memory, "/d/f", "3").await;
    assert_eq!(kinds_and_paths(&read(&mount, handle, 4096, true).await.unwrap()), ["write f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compacted_is_estale_and_the_end_of_the_mount_the_end_of_the_file() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/d/f", "1").await;
    let first = memory.current();
    put(&memory, "/d/f", "2").await;
    put(&memory, "/d/f", "3").await;
    memory.compact(memory.current(), false).await.unwrap();
    let mount = watching(&memory).await;
    let past = open(&mount, ANYBODY, &format!("d/@watch.{first}")).await.unwrap();
    assert_eq!(read(&mount, past, 4096, true).await, Err(Errno::ESTALE));
    let now = open(&mount, ANYBODY, "d/@watch").await.unwrap();
    let waits = tokio::spawn({
        let fs = Arc::clone(&mount.fs);
        async move { fs.read_as(std::process::id(), now, 0, 4096, true).await }
    });
    mount.fs.watchers.end();
    assert_eq!(within(waits).await.unwrap(), Ok(Bytes::new()));
    assert_eq!(mount.fs.poll(now, None).await, Ok(Readiness::End));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_told_of_to_those_who_may_list_it_now_and_could_then() {
    let memory = Arc::new(Memory::new());
    let mount = watching(&memory).await;
    let mode = |directory: &str, mode| {
        let record = Attributes::new(Kind::Directory, mode).encode();
        Op::put(record_key(directory.as_bytes()), record)
    };
    let closed = vec![mode("/d/closed/", 0o700), Op::put("/d/closed/", "")];
    change(&memory, closed).await;
    change(&memory, vec![mode("/d/closing/", 0o755), Op::put("/d/closing/", "")]).await;
    let from = memory.current().next();
    change(&memory, vec![Op::put("/d/closed/secret", ""), Op::put("/d/open/f", "")]).await;
    put(&memory, "/d/closed/deep/er/secret", "").await;
    put(&memory, "/d/closing/f", "").await;
    delete(&memory, "/d/open/f").await;
    let path = format!("d/@watch.{from}");
    let user = open(&mount, USER, &path).await.unwrap();
    assert_eq!(told(&mount, user).await, ["create open/f", "create closing/f", "delete open/f"]);
    change(&memory, vec![mode("/d/closing/", 0o700)]).await;
    let user = open(&mount, USER, &path).await.unwrap();
    // The directory itself is a name in one that may be listed.
    assert_eq!(told(&mount, user).await, ["create open/f", "delete open/f", "attributes closing/"]);
    let root = open(&mount, ANYBODY, &path).await.unwrap();
    assert_eq!(told(&mount, root).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_watch_as_there_is_room_for() {
    let mount = watching(&Arc::new(Memory::new())).await;
    let mut handles = Vec::new();
    for _ in 0..WATCHERS_MAX {
        handles.push(open(&mount, ANYBODY, "@watch").await.unwrap());
    }
    assert_eq!(open(&mount, ANYBODY, "@watch").await, Err(Errno::ENFILE));
    mount.fs.release(ANYBODY, handles.pop().unwrap()).await.unwrap();
    open(&mount, ANYBODY, "@watch").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_polls_is_told_when_to_look_again() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/d/f", "1").await;
    let mount = watching(&memory).await;
    let handle = open(&mount, ANYBODY, "d/@watch").await.unwrap();
    let (woken, waits) = channel();
    let wake = Box::new(move || woken.send(()).expect("somebody waits"));
    assert_eq!(mount.fs.poll(handle, Some(wake)).await, Ok(Readiness::Nothing));
    put(&memory, "/d/f", "2").await;
    tokio::task::spawn_blocking(move || waits.recv()).await.unwrap().unwrap();
    assert_eq!(within(mount.fs.poll(handle, None)).await, Ok(Readiness::Lines));
    assert_eq!(told(&mount, handle).await, ["write f"]);
    assert_eq!(within(mount.fs.poll(handle, None)).await, Ok(Readiness::Nothing));
    let file = mount.create("g", CREATE).await.unwrap();
    assert_eq!(mount.fs.poll(file.handle, None).await, Ok(Readiness::Always));
}
