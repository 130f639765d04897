//! What happens while a commit is on its way, or behind this mount's back: nothing that was answered
//! is lost, and nothing of others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::Errno;
use revfs_api::keyspace::Error;

use super::{ANYBODY, CREATE, Mount, REWRITE, keys, name, put};
use crate::commit::TEND_EVERY;
use crate::memory::{FailureMoment, Memory};
use crate::ops::SetAttr;

const APPEND: i32 = libc::O_WRONLY | libc::O_APPEND;

fn unknown() -> Error {
    Error::OutcomeUnknown { reason: "the leader is gone".to_owned() }
}

fn mode(mode: u32) -> SetAttr {
    SetAttr { mode: Some(mode), ..SetAttr::default() }
}

fn is_staged(mount: &Mount, ino: u64) -> bool {
    mount.fs.nodes.get(ino).unwrap().file.lock().staged.is_some()
}

#[tokio::test]
async fn a_write_in_the_middle_during_an_append_does_not_delete_what_others_wrote() {
    let mount = Mount::empty();
    put(&mount.memory, "/f", "base\n").await;
    let appender = mount.open("f", APPEND).await.unwrap();
    let changer = mount.open("f", libc::O_RDWR).await.unwrap();
    appender.write(0, "x\n").await.unwrap();
    put(&mount.memory, "/f", "base\nforeign\n").await;
    let answer = mount.memory.hold_next_answer();
    let meanwhile = async {
        changer.write(0, "B").await.unwrap();
        drop(answer);
    };
    let (flushed, ()) = tokio::join!(biased; appender.flush(), meanwhile);
    assert_eq!(flushed, Ok(()));
    assert_eq!(changer.close().await, Err(Errno::ESTALE));
    assert_eq!(mount.stored("/f").await.unwrap(), "base\nforeign\nx\n");
    assert_eq!(mount.fs.writing.refused.list(b"/f").len(), 1);
}

#[tokio::test]
async fn an_attribute_set_while_the_last_writer_goes_is_committed() {
    let mount = Mount::empty();
    put(&mount.memory, "/f", "old").await;
    let reader = mount.open("f", libc::O_RDONLY).await.unwrap();
    let open = mount.open("f", REWRITE).await.unwrap();
    open.write(0, "new").await.unwrap();
    let ino = open.ino;
    let answer = mount.memory.hold_next_answer();
    let change = async {
        mount.fs.setattr(ANYBODY, ino, mode(0o600)).await.unwrap();
        // What is answered is in the store, whatever becomes of this node now.
        assert_eq!(mount.record("/f").await.unwrap().mode, 0o600);
    };
    let (released, (), ()) = tokio::join!(biased; open.release(), change, async { drop(answer) });
    assert_eq!(released, Ok(()));
    assert!(!is_staged(&mount, ino));
    assert_eq!(mount.record("/f").await.unwrap().mode, 0o600);
    assert_eq!(mount.stored("/f").await.unwrap(), "new");
    assert_eq!(reader.read().await.unwrap(), "new");
}

#[tokio::test]
async fn a_length_set_while_the_last_handle_goes_is_committed() {
    let mount = Mount::empty();
    put(&mount.memory, "/f", "old").await;
    let open = mount.open("f", REWRITE).await.unwrap();
    open.write(0, "new").await.unwrap();
    let ino = open.ino;
    let answer = mount.memory.hold_next_answer();
    let change = async {
        let shorter = SetAttr { size: Some(2), ..SetAttr::default() };
        mount.fs.setattr(ANYBODY, ino, shorter).await.unwrap();
        assert_eq!(mount.stored("/f").await.unwrap(), "ne");
    };
    let (released, (), ()) = tokio::join!(biased; open.release(), change, async { drop(answer) });
    assert_eq!(released, Ok(()));
    assert!(!is_staged(&mount, ino));
    assert_eq!(mount.stored("/f").await.unwrap(), "ne");
}

#[tokio::test]
async fn an_attribute_set_while_the_last_close_is_answered_is_committed_before_its_own_answer() {
    let mount = Mount::empty();
    put(&mount.memory, "/f", "old").await;
    let open = mount.open("f", REWRITE).await.unwrap();
    open.write(0, "new").await.unwrap();
    let answer = mount.memory.hold_next_answer();
    let change = async {
        mount.fs.setxattr(ANYBODY, open.ino, name("user.a"), b"b", 0).await.unwrap();
        assert!(mount.record("/f").await.is_some());
    };
    let (flushed, (), ()) = tokio::join!(biased; open.flush(), change, async { drop(answer) });
    assert_eq!(flushed, Ok(()));
    // A copy of the descriptor was left after all: what it stages is committed at its close.
    open.write(3, "er").await.unwrap();
    mount.fs.setattr(ANYBODY, open.ino, mode(0o600)).await.unwrap();
    assert!(is_staged(&mount, open.ino));
    open.close().await.unwrap();
    assert_eq!(mount.stored("/f").await.unwrap(), "newer");
}

#[tokio::test]
async fn an_attribute_that_is_refused_with_the_last_close_is_not_answered_as_done() {
    let mount = Mount::empty();
    put(&mount.memory, "/f", "old").await;
    let open = mount.open("f", libc::O_RDWR).await.unwrap();
    open.write(0, "new").await.unwrap();
    put(&mount.memory, "/f", "foreign").await;
    let answer = mount.memory.hold_next_answer();
    let ino = open.ino;
    let change = mount.fs.setattr(ANYBODY, ino, mode(0o600));
    let (released, changed, ()) =
        tokio::join!(biased; open.release(), change, async { drop(answer) });
    assert_eq!(released, Err(Errno::ESTALE));
    assert_eq!(changed.map(drop), Err(Errno::ESTALE));
}

/// A file that nobody has open for writing, of which something is still staged.
async fn stranded(mount: &Mount) -> u64 {
    put(&mount.memory, "/f", "old").await;
    let open = mount.open("f", REWRITE).await.unwrap();
    open.write(0, "new").await.unwrap();
    let ino = open.ino;
    for _ in ["flush", "release"] {
        mount.memory.fail_next_txn(FailureMoment::Before, unknown());
    }
    assert_eq!(open.flush().await, Err(Errno::EIO));
    assert_eq!(open.release().await, Err(Errno::EIO));
    assert!(is_staged(mount, ino));
    ino
}

#[tokio::test]
async fn what_is_changed_of_a_file_that_nobody_writes_is_committed_before_the_answer() {
    let mount = Mount::empty();
    let ino = stranded(&mount).await;
    mount.fs.setattr(ANYBODY, ino, mode(0o600)).await.unwrap();
    assert!(!is_staged(&mount, ino));
    assert_eq!(mount.record("/f").await.unwrap().mode, 0o600);
    assert_eq!(mount.stored("/f").await.unwrap(), "new");

    let mount = Mount::empty();
    let ino = stranded(&mount).await;
    mount.fs.setxattr(ANYBODY, ino, name("user.a"), b"b", 0).await.unwrap();
    assert!(!is_staged(&mount, ino));
    assert!(mount.record("/f").await.is_some());

    let mount = Mount::empty();
    let ino = stranded(&mount).await;
    let shorter = SetAttr { size: Some(2), ..SetAttr::default() };
    mount.fs.setattr(ANYBODY, ino, shorter).await.unwrap();
    assert!(!is_staged(&mount, ino));
    assert_eq!(mount.stored("/f").await.unwrap(), "ne");
}

#[tokio::test]
async fn foreign_bytes_of_the_same_length_are_seen_by_who_has_the_file_open() {
    for is_answer_lost in [false, true] {
        let mount = Mount::empty();
        put(&mount.memory, "/f", "aaa\n").await;
        let reader = mount.open("f", libc::O_RDONLY).await.unwrap();
        assert_eq!(reader.read().await.unwrap(), "aaa\n");
        let appender = mount.open("f", APPEND).await.unwrap();
        appender.write(0, "x\n").await.unwrap();
        put(&mount.memory, "/f", "bbb\n").await;
        if is_answer_lost {
            mount.memory.fail_next_txn(FailureMoment::After, unknown());
            assert_eq!(appender.flush().await, Err(Errno::EIO));
        }
        appender.close().await.unwrap();
        assert_eq!(mount.stored("/f").await.unwrap(), "bbb\nx\n");
        assert_eq!(reader.read().await.unwrap(), "bbb\nx\n", "lost: {is_answer_lost}");
        let changer = mount.open("f", libc::O_WRONLY).await.unwrap();
        changer.write(5, "Z").await.unwrap();
        changer.close().await.unwrap();
        assert_eq!(mount.stored("/f").await.unwrap(), "bbb\nxZ");
    }
}

#[tokio::test]
async fn bytes_appended_to_a_new_file_are_committed_when_it_is_idle() {
    let mount = Mount::empty();
    let open = mount.create("log", CREATE | libc::O_APPEND).await.unwrap();
    open.write(0, "1").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut tick = tokio::time::interval(TEND_EVERY);
    while mount.stored("/log").await.is_none() {
        assert!(Instant::now() < deadline, "not committed when idle");
        mount.fs.tend().await;
        tick.tick().await;
    }
    open.write(1, "2").await.unwrap();
    open.close().await.unwrap();
    assert_eq!(mount.stored("/log").await.unwrap(), "12");
}

#[tokio::test]
async fn a_rename_of_which_nobody_knew_is_read_back() {
    for moment in [FailureMoment::Before, FailureMoment::After] {
        for is_born in [false, true] {
            let mount = Mount::empty();
            if is_born {
                put(&mount.memory, "/a", "1").await;
            }
            let open = match is_born {
                true => mount.open("a", APPEND).await.unwrap(),
                false => mount.create("a", CREATE | libc::O_TRUNC).await.unwrap(),
            };
            open.write(0, "2").await.unwrap();
            mount.memory.fail_next_txn(moment, unknown());
            assert_eq!(mount.rename("a", "b").await, Err(Errno::EIO));
            open.close().await.unwrap();
            let content = if is_born { "12" } else { "2" };
            let (here, gone) = match moment {
                FailureMoment::Before => ("a", "b"),
                FailureMoment::After => ("b", "a"),
            };
            assert_eq!(mount.stored(&format!("/{here}")).await.as_deref(), Some(content));
            assert_eq!(mount.stored(&format!("/{gone}")).await, None);
            assert_eq!(mount.read(here).await.unwrap(), content);
            assert_eq!(mount.stat(gone).await.map(drop), Err(Errno::ENOENT));
        }
    }
}

#[tokio::test]
async fn a_new_file_of_which_nobody_knew_does_not_outlive_its_removal() {
    let mount = Mount::empty();
    let open = mount.create("f", CREATE | libc::O_TRUNC).await.unwrap();
    open.write(0, "x").await.unwrap();
    mount.memory.fail_next_txn(FailureMoment::After, unknown());
    assert_eq!(open.flush().await, Err(Errno::EIO));
    mount.unlink("f").await.unwrap();
    assert_eq!(mount.stored("/f").await, None);
    open.release().await.unwrap();
    assert_eq!(mount.stored("/f").await, None);
}

#[tokio::test]
async fn what_happens_beside_the_mount_moves_its_position_too() {
    let mount = Mount::empty();
    let watch = mount.fs.watch_from_here().await.unwrap();
    // Below no directory: the mount shows nothing of it.
    put(&mount.memory, "beside", "x").await;
    let moved = async {
        while mount.fs.coherence.position() < mount.memory.current() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        error = mount.fs.follow(watch) => panic!("{error}"),
        moved = tokio::time::timeout(Duration::from_secs(60), moved) => moved.expect("progress"),
    }
}

#[tokio::test]
async fn content_that_changed_while_it_was_read_is_not_kept() {
    let mount = Mount::empty();
    put(&mount.memory, "/f", "old").await;
    let watch = mount.fs.watch_from_here().await.unwrap();
    let scenario = async {
        let open = mount.open("f", libc::O_RDONLY).await.unwrap();
        let held = mount.memory.hold_next_read();
        let change = async {
            put(&mount.memory, "/f", "new").await;
            while mount.fs.coherence.position() < mount.memory.current() {
                tokio::task::yield_now().await;
            }
            drop(held);
        };
        let (read, ()) = tokio::join!(biased; open.read(), change);
        assert_eq!(read.unwrap(), "old", "it was asked for before the change");
        assert_eq!(open.read().await.unwrap(), "new");
    };
    tokio::select! {
        error = mount.fs.follow(watch) => panic!("{error}"),
        () = scenario => {}
    }
}

#[tokio::test]
async fn what_is_staged_below_a_directory_of_which_nobody_knew_is_committed_where_it_is() {
    for moment in [FailureMoment::Before, FailureMoment::After] {
        let mount = Mount::empty();
        mount.mkdir("a").await.unwrap();
        mount.write("a/old", "1").await.unwrap();
        let old = mount.open("a/old", APPEND).await.unwrap();
        let new = mount.create("a/new", CREATE | libc::O_TRUNC).await.unwrap();
        old.write(0, "2").await.unwrap();
        new.write(0, "3").await.unwrap();
        mount.memory.fail_next_txn(moment, unknown());
        assert_eq!(mount.rename("a", "b").await, Err(Errno::EIO));
        old.close().await.unwrap();
        new.close().await.unwrap();
        let (here, gone) = match moment {
            FailureMoment::Before => ("a", "b"),
            FailureMoment::After => ("b", "a"),
        };
        assert_eq!(mount.stored(&format!("/{here}/old")).await.as_deref(), Some("12"));
        assert_eq!(mount.stored(&format!("/{here}/new")).await.as_deref(), Some("3"));
        assert_eq!(mount.read(&format!("{here}/new")).await.unwrap(), "3");
        assert_eq!(mount.stat(gone).await.map(drop), Err(Errno::ENOENT));
        let below = format!("/{gone}/");
        assert!(!keys(&mount.memory).await.iter().any(|key| key.starts_with(&below)));
    }
}

#[tokio::test]
async fn what_is_written_after_an_exchange_of_which_nobody_knew_goes_to_the_same_file() {
    for moment in [FailureMoment::Before, FailureMoment::After] {
        let mount = Mount::empty();
        mount.write("a", "1").await.unwrap();
        mount.write("b", "2").await.unwrap();
        let open = mount.open("a", APPEND).await.unwrap();
        mount.memory.fail_next_txn(moment, unknown());
        let exchanged = mount.rename_with("a", "b", libc::RENAME_EXCHANGE).await;
        assert_eq!(exchanged, Err(Errno::EIO));
        mount.fs.tend().await;
        open.write(0, "x").await.unwrap();
        open.close().await.unwrap();
        let (written, other) = match moment {
            FailureMoment::Before => ("a", "b"),
            FailureMoment::After => ("b", "a"),
        };
        assert_eq!(mount.stored(&format!("/{written}")).await.as_deref(), Some("1x"));
        assert_eq!(mount.stored(&format!("/{other}")).await.as_deref(), Some("2"));
        assert_eq!(mount.read(written).await.unwrap(), "1x");
    }
}

#[tokio::test]
async fn what_is_written_after_an_exchange_of_directories_of_which_nobody_knew_stays_in_its_file() {
    for moment in [FailureMoment::Before, FailureMoment::After] {
        let mount = Mount::empty();
        mount.mkdir("a").await.unwrap();
        mount.mkdir("b").await.unwrap();
        mount.write("a/f", "1").await.unwrap();
        mount.write("b/f", "2").await.unwrap();
        let open = mount.open("a/f", APPEND).await.unwrap();
        open.write(0, "x").await.unwrap();
        let unborn = mount.create("b/new", CREATE | libc::O_TRUNC).await.unwrap();
        unborn.write(0, "3").await.unwrap();
        mount.memory.fail_next_txn(moment, unknown());
        let exchanged = mount.rename_with("a", "b", libc::RENAME_EXCHANGE).await;
        assert_eq!(exchanged, Err(Errno::EIO));
        open.close().await.unwrap();
        unborn.close().await.unwrap();
        let (written, other) = match moment {
            FailureMoment::Before => ("a", "b"),
            FailureMoment::After => ("b", "a"),
        };
        assert_eq!(mount.stored(&format!("/{written}/f")).await.as_deref(), Some("1x"));
        assert_eq!(mount.stored(&format!("/{other}/f")).await.as_deref(), Some("2"));
        assert_eq!(mount.stored(&format!("/{other}/new")).await.as_deref(), Some("3"));
        assert_eq!(mount.read(&format!("{written}/f")).await.unwrap(), "1x");
    }
}

#[tokio::test]
async fn while_nobody_knows_of_a_rename_its_names_are_eio_and_nothing_is_lost() {
    let mount = Mount::empty();
    mount.mkdir("a").await.unwrap();
    let open = mount.create("a/f", CREATE | libc::O_TRUNC).await.unwrap();
    open.write(0, "1").await.unwrap();
    mount.memory.fail_next_txn(FailureMoment::After, unknown());
    assert_eq!(mount.rename("a", "b").await, Err(Errno::EIO));
    mount.memory.fail_next_changes(Error::Unavailable { reason: "away".to_owned() });
    assert_eq!(open.flush().await, Err(Errno::EIO));
    assert_eq!(mount.ino("b").await, Err(Errno::EIO), "not asked again at once");
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut tick = tokio::time::interval(TEND_EVERY);
    while mount.fs.settle_names().await.is_err() {
        assert!(Instant::now() < deadline, "never asked again");
        tick.tick().await;
    }
    open.close().await.unwrap();
    assert_eq!(mount.stored("/b/f").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_file_that_another_was_renamed_over_elsewhere_is_not_written_to() {
    let memory = Arc::new(Memory::new());
    let (here, there) = (Mount::new(&memory), Mount::new(&memory));
    here.write("f", "old").await.unwrap();
    here.write("new", "new").await.unwrap();
    let open = here.open("f", REWRITE).await.unwrap();
    open.write(0, "too late").await.unwrap();
    there.rename("new", "f").await.unwrap();
    assert_eq!(open.close().await, Err(Errno::ESTALE));
    assert_eq!(here.stored("/f").await.unwrap(), "new");
}
