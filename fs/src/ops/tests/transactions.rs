//! `@txn/NAME`: what is private, what a commit makes of it, and what another's change spoils.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, TimeOrNow};
use revfs_api::keyspace::Error;

use super::{ANYBODY, CREATE, Mount, USER, delete, put};
use crate::filesystem::{Answer, MountOptions};
use crate::locks::table::Kind;
use crate::memory::{FailureMoment, Memory};
use crate::ops::{LockRequest, SetAttr};

/// A mount with a few files.
async fn mount() -> Mount {
    let mount = Mount::empty();
    mount.mkdir("app").await.unwrap();
    mount.mkdir("app/deep").await.unwrap();
    mount.mkdir("other").await.unwrap();
    for file in ["app/a", "app/b", "app/deep/c", "other/d"] {
        mount.write(file, file).await.unwrap();
    }
    mount
}

async fn list(mount: &Mount, path: &str) -> Vec<String> {
    let ino = if path.is_empty() {
        mount.fs.nodes.root().ino
    } else {
        mount.ino(path).await.expect("it is there")
    };
    let handle = mount.fs.opendir(ino).expect("a directory");
    let (open, listing) = mount.fs.listing_at(handle, 0).await.expect("it can be listed");
    let entries = (2..).map_while(|index| mount.fs.entry_at(&open, &listing, index, true));
    let names = entries.map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect();
    mount.fs.releasedir(handle);
    names
}

async fn status(mount: &Mount) -> serde_json::Value {
    let text = mount.fs.status_text().await.expect("a transaction has a status");
    serde_json::from_slice(&text).expect("it is JSON")
}

async fn conflicts(mount: &Mount) -> Vec<String> {
    let status = status(mount).await;
    assert_eq!(status["state"], "conflict");
    let names = status["conflicts"].as_array().expect("a list").iter();
    names.map(|name| name.as_str().expect("a name").to_owned()).collect()
}

async fn set(mount: &Mount, path: &str, set: SetAttr) -> Answer<()> {
    let ino = mount.ino(path).await?;
    mount.fs.setattr(ANYBODY, ino, set).await.map(drop)
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn mtime(seconds: u64) -> SetAttr {
    SetAttr { mtime: Some(TimeOrNow::SpecificTime(at(seconds))), ..SetAttr::default() }
}

#[tokio::test]
async fn what_is_done_in_a_transaction_is_seen_there_alone_until_it_is_one_revision() {
    let live = mount().await;
    let revision = live.revision();
    let own = live.begin("t").await.unwrap();
    own.write("app/a", "new").await.unwrap();
    own.write("app/n", "n").await.unwrap();
    own.unlink("app/b").await.unwrap();
    own.rename("app/deep", "moved").await.unwrap();
    own.symlink("link", "app").await.unwrap();
    assert_eq!(list(&own, "").await, ["app", "link", "moved", "other"]);
    assert_eq!(list(&own, "app").await, ["a", "n"]);
    assert_eq!(own.read("moved/c").await.unwrap(), "app/deep/c");
    // The mount is as it was.
    assert_eq!(live.revision(), revision);
    assert_eq!(list(&live, "").await, ["app", "other"]);
    assert_eq!(live.read("app/a").await.unwrap(), "app/a");
    assert_eq!(status(&own).await["state"], "open");
    own.commit().await.unwrap();
    assert_eq!(live.revision(), revision + 1);
    assert_eq!(live.read("app/a").await.unwrap(), "new");
    assert_eq!(live.read("moved/c").await.unwrap(), "app/deep/c");
    assert_eq!(list(&live, "").await, ["app", "link", "moved", "other"]);
    assert_eq!(list(&live, "app").await, ["a", "n"]);
    assert_eq!(status(&own).await["committed"], revision + 1);
    // It is decided: nothing is changed any more, and every commit hears the same.
    own.commit().await.unwrap();
    set(&own, "@commit", mtime(0)).await.unwrap();
    assert_eq!(own.write("app/a", "late").await, Err(Errno::EROFS));
    assert_eq!(live.revision(), revision + 1);
}

#[tokio::test]
async fn a_transaction_sees_the_revision_that_it_began_at() {
    let live = mount().await;
    let own = live.begin("t").await.unwrap();
    live.write("other/d", "later").await.unwrap();
    live.write("other/e", "later").await.unwrap();
    assert_eq!(own.read("other/d").await.unwrap(), "other/d");
    assert_eq!(own.stat("other/e").await.unwrap_err(), Errno::ENOENT);
    assert_eq!(list(&own, "other").await, ["d"]);
}

/// What a transaction looks at or does, what another does, and the names that are then in conflict.
type Case = (&'static str, &'static str, &'static [&'static str]);

const CASES: &[Case] = &[
    // Content and attributes of a file, and that there is none.
    ("read app/a", "write app/a", &["app/a"]),
    ("read app/a", "write app/b", &[]),
    ("read app/a", "unlink app/a", &["app/a"]),
    ("stat app/a", "chmod app/a", &["app/a"]),
    ("stat app/none", "write app/none", &["app/none"]),
    ("stat app/none", "mkdir app/none", &["app/none"]),
    ("stat app/none", "write app/other", &[]),
    // What one has written unread.
    ("write app/a", "write app/a", &["app/a"]),
    ("write app/new", "write app/new", &["app/new"]),
    ("unlink app/a", "write app/a", &["app/a"]),
    ("rename app/a", "write app/a", &["app/a"]),
    ("write app/new", "write app/other", &[]),
    ("unlink app/a", "unlink app/b", &[]),
    ("mkdir app/new", "mkdir app/other", &[]),
    ("mkdir app/new", "mkdir app/new", &["app/new"]),
    // A listing is one level.
    ("list app", "write app/new", &["app/new"]),
    ("list app", "unlink app/b", &["app/b"]),
    ("list app", "write app/a", &[]),
    ("list app", "write app/deep/new", &[]),
    ("list app", "unlink app/deep/c", &[]),
    ("list app", "mkdir app/new", &["app/new"]),
    ("list app", "write other/new", &[]),
    // A directory that is passed through.
    ("read app/deep/c", "write app/deep/new", &[]),
    ("read app/deep/c", "chmod app/deep", &["app/deep"]),
    ("stat app/deep", "rename app/deep", &["app/deep"]),
    // One that is emptied or moved.
    ("rename app/deep", "write app/deep/new", &["app/deep/new"]),
    ("rename app/deep", "write app/deep/c", &["app/deep/c"]),
    ("rename app/deep", "write app/new", &[]),
];

async fn act(mount: &Mount, action: &str) {
    let (verb, path) = action.split_once(' ').expect("a verb and a path");
    match verb {
        "read" => drop(mount.read(path).await.unwrap()),
        "stat" => drop(mount.stat(path).await),
        "list" => drop(list(mount, path).await),
        "write" => mount.write(path, action).await.unwrap(),
        "unlink" => mount.unlink(path).await.unwrap(),
        "mkdir" => mount.mkdir(path).await.unwrap(),
        "rename" => mount.rename(path, "renamed").await.unwrap(),
        "chmod" => {
            let mode = SetAttr { mode: Some(0o700), ..SetAttr::default() };
            set(mount, path, mode).await.unwrap();
        }
        _ => panic!("{action}"),
    }
}

#[tokio::test]
async fn what_was_read_or_written_must_not_have_changed() {
    for (own, others, expected) in CASES {
        let live = mount().await;
        let transaction = live.begin("t").await.unwrap();
        act(&transaction, own).await;
        transaction.write("result", "1").await.unwrap();
        act(&live, others).await;
        let revision = live.revision();
        let committed = transaction.commit().await;
        if expected.is_empty() {
            assert_eq!(committed, Ok(()), "{own}, {others}");
            assert_eq!(live.read("result").await.unwrap(), "1");
            assert_eq!(live.revision(), revision + 1);
            continue;
        }
        assert_eq!(committed, Err(Errno::ESTALE), "{own}, {others}");
        assert_eq!(transaction.commit().await, Err(Errno::ESTALE), "it is decided");
        assert_eq!(conflicts(&transaction).await, *expected, "{own}, {others}");
        assert_eq!(live.revision(), revision);
        assert_eq!(live.stat("result").await.unwrap_err(), Errno::ENOENT);
    }
}

#[tokio::test]
async fn of_two_transactions_that_change_one_file_the_first_to_commit_wins() {
    let live = mount().await;
    let (one, two) = (live.begin("one").await.unwrap(), live.begin("two").await.unwrap());
    one.write("app/a", "one").await.unwrap();
    two.write("app/a", "two").await.unwrap();
    two.commit().await.unwrap();
    assert_eq!(one.commit().await, Err(Errno::ESTALE));
    assert_eq!(conflicts(&one).await, ["app/a"]);
    assert_eq!(live.read("app/a").await.unwrap(), "two");
}

#[tokio::test]
async fn directories_without_a_marker_are_read_as_well() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/plain/a", "1").await;
    put(&memory, "/plain/b", "2").await;
    let live = Mount::new(&memory);
    for (file, conflict) in [("/plain/b", false), ("/plain/a", true)] {
        let own = live.begin(file.rsplit('/').next().unwrap()).await.unwrap();
        assert_eq!(own.read("plain/a").await.unwrap(), "1");
        own.write("result", "1").await.unwrap();
        delete(&memory, file).await;
        assert_eq!(own.commit().await.is_err(), conflict, "{file}");
    }
}

#[tokio::test]
async fn a_mount_of_a_prefix_has_transactions_of_its_own_tree() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/p", "above").await;
    put(&memory, "/p/a", "1").await;
    put(&memory, "/other", "2").await;
    let root = crate::path::DirectoryKey::new("/p/").unwrap();
    let live = Mount::with(&memory, MountOptions { root, ..MountOptions::default() });
    let own = live.begin("t").await.unwrap();
    own.mkdir("d").await.unwrap();
    own.rename("a", "d/b").await.unwrap();
    own.write("c", "3").await.unwrap();
    assert_eq!(list(&own, "").await, ["c", "d"]);
    own.unlink("d/b").await.unwrap();
    own.rmdir("d").await.unwrap();
    assert_eq!(list(&own, "").await, ["c"]);
    put(&memory, "/other", "4").await;
    own.commit().await.unwrap();
    assert_eq!(list(&live, "").await, ["c"]);
    assert_eq!(live.stored("/p").await.as_deref(), Some("above"));
}

#[tokio::test]
async fn times_modes_and_moves_are_kept() {
    let live = mount().await;
    set(&live, "app/b", mtime(5_000)).await.unwrap();
    let before = live.stat("app/a").await.unwrap();
    live.memory.advance(Duration::from_secs(10));
    let own = live.begin("t").await.unwrap();
    own.rename("app/a", "moved").await.unwrap();
    // What takes the place of a file that was moved leaves it its time all the same.
    own.rename("other/d", "kept").await.unwrap();
    own.write("other/d", "another").await.unwrap();
    own.rename("app/b", "app/timed").await.unwrap();
    own.write("app/set", "1").await.unwrap();
    set(&own, "app/set", mtime(7_000)).await.unwrap();
    set(&own, "app/deep/c", SetAttr { mode: Some(0o600), ..SetAttr::default() }).await.unwrap();
    // A time that was set does not come back with what was written after it.
    set(&own, "other", mtime(9_000)).await.unwrap();
    own.write("other/x", "1").await.unwrap();
    let shown = ["moved", "kept", "app/timed", "app/set", "app/deep/c"];
    let mut expected = Vec::new();
    for path in shown {
        let attr = own.stat(path).await.unwrap();
        expected.push((attr.mtime, attr.perm));
    }
    own.commit().await.unwrap();
    for (path, expected) in shown.into_iter().zip(expected) {
        let attr = live.stat(path).await.unwrap();
        if path == "app/deep/c" {
            assert_eq!(attr.perm, 0o600);
        }
        assert_eq!((attr.mtime, attr.perm), expected, "{path}");
    }
    assert_eq!(live.stat("moved").await.unwrap().mtime, before.mtime);
    assert_eq!(live.stat("kept").await.unwrap().mtime, before.mtime);
    assert_eq!(live.stat("app/timed").await.unwrap().mtime, at(5_000));
    assert_eq!(live.stat("app/set").await.unwrap().mtime, at(7_000));
    assert_ne!(live.stat("other").await.unwrap().mtime, at(9_000));
}

#[tokio::test]
async fn an_open_file_is_taken_along_and_one_without_a_name_is_read_on() {
    let live = mount().await;
    let own = live.begin("t").await.unwrap();
    let gone = own.open("app/a", libc::O_RDONLY).await.unwrap();
    let open = own.create("app/open", CREATE).await.unwrap();
    open.write(0, "staged").await.unwrap();
    own.unlink("app/a").await.unwrap();
    assert_eq!(gone.read().await.unwrap(), "app/a");
    own.write("app/a", "another").await.unwrap();
    assert_eq!(gone.read().await.unwrap(), "app/a");
    own.commit().await.unwrap();
    assert_eq!(live.read("app/open").await.unwrap(), "staged");
    assert_eq!(live.read("app/a").await.unwrap(), "another");
    open.close().await.unwrap();
    gone.close().await.unwrap();
}

#[tokio::test]
async fn nothing_is_renamed_from_one_tree_to_another() {
    let live = mount().await;
    let own = live.begin("t").await.unwrap();
    let name = OsStr::new("a");
    let (app, own_app) = (live.ino("app").await.unwrap(), own.ino("app").await.unwrap());
    let out = own.fs.rename(ANYBODY, (own_app, name), (app, name), 0).await;
    let into = live.fs.rename(ANYBODY, (app, name), (own_app, name), 0).await;
    assert_eq!((out, into), (Err(Errno::EXDEV), Err(Errno::EXDEV)));
}

#[tokio::test]
async fn a_transaction_is_its_makers_until_it_is_dropped() {
    let live = mount().await;
    let transactions = live.ino("@txn").await.unwrap();
    let found = live.fs.mkdir(USER, transactions, OsStr::new("mine"), 0o777).await.unwrap();
    assert_eq!((found.attr.perm, found.attr.uid, found.attr.gid), (0o700, 1000, 1000));
    let again = live.fs.mkdir(USER, transactions, OsStr::new("mine"), 0o777).await;
    assert_eq!(again.unwrap_err(), Errno::EEXIST);
    assert_eq!(live.ino("@txn/mine").await.unwrap(), found.node.ino);
    assert_eq!(list(&live, "@txn").await, ["mine"]);
    let own = live.tree(live.fs.tree_of(found.node.ino));
    assert_eq!(own.stat("@commit").await.unwrap().uid, 1000);
    assert_eq!(own.stat("@rev").await.unwrap_err(), Errno::ENOENT);
    assert_eq!(own.stat("@txn").await.unwrap_err(), Errno::ENOENT);
    assert_eq!(own.stat("app/@commit").await.unwrap_err(), Errno::ENOENT);
    let open = own.open("app/a", libc::O_RDONLY).await.unwrap();
    live.fs.rmdir(USER, transactions, OsStr::new("mine")).await.unwrap();
    let again = live.fs.rmdir(USER, transactions, OsStr::new("mine")).await;
    assert_eq!(again, Err(Errno::ENOENT));
    // Its nodes and handles are nobody's now, least of all those of the mount that have the same numbers.
    let other = live.open("app/b", libc::O_RDONLY).await.unwrap();
    let gone = live.fs.tree_of(found.node.ino);
    assert_eq!(gone.getattr(found.node.ino).await.unwrap_err(), Errno::ESTALE);
    assert_eq!(gone.read(open.handle, 0, 10).await.unwrap_err(), Errno::EBADF);
    assert_eq!(other.read().await.unwrap(), "app/b");
}

#[tokio::test]
async fn their_number_and_what_they_hold_is_bounded() {
    let memory = Arc::new(Memory::new());
    let options = MountOptions { staged_bytes_max: 4_000, ..MountOptions::default() };
    let live = Mount::with(&memory, options);
    let own = live.begin("0").await.unwrap();
    own.write("a", &"x".repeat(1_500)).await.unwrap();
    let other = live.begin("1").await.unwrap();
    other.write("b", &"x".repeat(1_000)).await.unwrap();
    assert_eq!(own.write("c", &"x".repeat(1_000)).await, Err(Errno::ENOSPC));
    // What is written again takes no more room, and what is dropped gives it back.
    for _ in 0..5 {
        other.write("b", &"y".repeat(500)).await.unwrap();
    }
    drop(own);
    live.fs.drop_transaction(OsStr::new("0")).unwrap();
    other.write("c", &"x".repeat(1_500)).await.unwrap();
    for number in 2..65 {
        live.begin(&number.to_string()).await.unwrap();
    }
    assert_eq!(live.begin("65").await.map(drop), Err(Errno::EDQUOT));
}

#[tokio::test]
async fn a_commit_that_did_not_happen_may_be_tried_again() {
    let live = mount().await;
    let own = live.begin("t").await.unwrap();
    own.write("app/a", "new").await.unwrap();
    live.memory.limit_txn_keys(0);
    assert_eq!(own.commit().await, Err(Errno::E2BIG));
    let told = status(&own).await;
    assert_eq!(told["state"], "open");
    assert!(told["error"].as_str().is_some_and(|error| error.contains("bound of 0")), "{told}");
    own.write("app/b", "new too").await.unwrap();
    live.memory.limit_txn_keys(9);
    own.commit().await.unwrap();
    assert_eq!(live.read("app/b").await.unwrap(), "new too");
}

fn lost() -> Error {
    Error::OutcomeUnknown { reason: "the answer was lost".to_owned() }
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_found_in_the_history() {
    let live = mount().await;
    let own = live.begin("found").await.unwrap();
    own.write("app/a", "newer").await.unwrap();
    live.memory.fail_next_txn(FailureMoment::After, lost());
    own.commit().await.unwrap();
    assert_eq!(status(&own).await["committed"], live.revision());
    assert_eq!(live.read("app/a").await.unwrap(), "newer");
    // It cannot be asked just now; later it can.
    let own = live.begin("later").await.unwrap();
    own.write("app/a", "newest").await.unwrap();
    live.memory.fail_next_txn(FailureMoment::After, lost());
    let away = || Error::Unavailable { reason: "no answer".to_owned() };
    live.memory.fail_next_changes(away());
    assert_eq!(own.commit().await, Err(Errno::EIO));
    live.memory.fail_next_changes(away());
    assert_eq!(status(&own).await["state"], "unknown");
    assert_eq!(status(&own).await["state"], "committed");
    own.commit().await.unwrap();
    // One that is not there may still come: that is the outcome, and it is not sent again.
    let own = live.begin("unknown").await.unwrap();
    own.write("app/a", "lost").await.unwrap();
    live.memory.fail_next_txn(FailureMoment::Before, lost());
    assert_eq!(own.commit().await, Err(Errno::EIO));
    assert_eq!(own.commit().await, Err(Errno::EIO));
    assert_eq!(status(&own).await["state"], "unknown");
    assert_eq!(live.read("app/a").await.unwrap(), "newest");
}

#[tokio::test]
async fn a_transaction_goes_with_who_holds_a_lock_of_its_commit() {
    let live = mount().await;
    let own = live.begin("held").await.unwrap();
    let ino = own.ino("@commit").await.unwrap();
    let opened = own.fs.open_made_up(ANYBODY, ino, libc::O_RDONLY).await.unwrap().unwrap();
    let lock = LockRequest {
        handle: opened.handle,
        owner: 7,
        start: 0,
        end: u64::MAX,
        kind: Some(Kind::Shared),
        pid: 1,
        waits: false,
    };
    Arc::clone(&own.fs).set_lock(ANYBODY, lock).await.unwrap();
    // Who only reads it keeps nothing.
    let reader = own.fs.open_made_up(ANYBODY, ino, libc::O_RDONLY).await.unwrap().unwrap();
    Arc::clone(&own.fs).release_and_let_go(ANYBODY, ino, reader.handle, None).await.unwrap();
    live.fs.tend_transactions().await;
    assert_eq!(list(&live, "@txn").await, ["held"]);
    Arc::clone(&own.fs).release_and_let_go(ANYBODY, ino, opened.handle, Some(7)).await.unwrap();
    live.fs.tend_transactions().await;
    assert!(list(&live, "@txn").await.is_empty());
}

#[tokio::test]
async fn a_directory_that_was_moved_over_an_empty_one_leaves_nothing_when_it_goes_on() {
    let mount = mount().await;
    let own = mount.begin("t").await.unwrap();
    own.mkdir("empty").await.unwrap();
    own.rename("app", "empty").await.unwrap();
    own.mkdir("app").await.unwrap();
    own.rename("empty", "app").await.unwrap();
    assert_eq!(own.ino("empty").await, Err(Errno::ENOENT));
    assert_eq!(list(&own, "").await, ["app", "other"]);
    assert_eq!(list(&own, "app").await, ["a", "b", "deep"]);
    assert_eq!(own.commit().await, Ok(()));
    assert_eq!(list(&mount, "").await, ["app", "other"]);
}
