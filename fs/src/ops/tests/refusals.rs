//! Commits that are refused, or of which nobody knows: what is told to whom, and what becomes of the
//! bytes.

use std::sync::Arc;

use fuser::Errno;
use revfs_api::keyspace::Error;

use super::{ANYBODY, CREATE, Mount, REWRITE, delete, keys, put};
use crate::filesystem::MountOptions;
use crate::memory::{FailureMoment, Memory};
use crate::ops::{SetAttr, WriteRequest};

fn unknown() -> Error {
    Error::OutcomeUnknown { reason: "the leader is gone".to_owned() }
}

#[tokio::test]
async fn a_change_of_what_changed_meanwhile_is_stale_and_told_once_to_every_writer() {
    let mount = Mount::empty();
    put(&mount.memory, "/f", "abc").await;
    let one = mount.open("f", libc::O_RDWR).await.unwrap();
    let other = mount.open("f", libc::O_RDWR).await.unwrap();
    let reader = mount.open("f", libc::O_RDONLY).await.unwrap();
    one.write(1, "X").await.unwrap();
    put(&mount.memory, "/f", "123").await;
    assert_eq!(one.flush().await, Err(Errno::ESTALE));
    assert_eq!(mount.stored("/f").await.unwrap(), "123");
    assert_eq!(one.flush().await, Ok(()));
    assert_eq!(other.write(0, "Y").await, Err(Errno::ESTALE));
    assert_eq!(reader.flush().await, Ok(()));
    assert_eq!(reader.read().await.unwrap(), "123");
    other.write(0, "Y").await.unwrap();
    other.close().await.unwrap();
    assert_eq!(mount.stored("/f").await.unwrap(), "Y23");
    let times = mount.fs.writing.refused.list(b"/f");
    assert_eq!(times.len(), 1);
    let copy = mount.fs.writing.refused.get(b"/f", times[0]).unwrap();
    assert_eq!(copy.bytes.as_slice(), b"aXc");
}

#[tokio::test]
async fn what_was_read_before_it_changed_elsewhere_is_not_brought_back() {
    let mount = Mount::empty();
    put(&mount.memory, "/f", "abc").await;
    let open = mount.open("f", libc::O_RDWR).await.unwrap();
    assert_eq!(open.read().await.unwrap(), "abc");
    put(&mount.memory, "/f", "123").await;
    open.write(0, "X").await.unwrap();
    assert_eq!(open.close().await, Err(Errno::ESTALE));
    assert_eq!(mount.stored("/f").await.unwrap(), "123");
}

#[tokio::test]
async fn a_file_that_was_replaced_elsewhere_is_not_written_to() {
    let mount = Mount::empty();
    for flags in [libc::O_WRONLY, libc::O_WRONLY | libc::O_APPEND, REWRITE] {
        put(&mount.memory, "/f", "1").await;
        let open = mount.open("f", flags).await.unwrap();
        open.write(0, "2").await.unwrap();
        delete(&mount.memory, "/f").await;
        put(&mount.memory, "/f", "theirs").await;
        assert_eq!(open.close().await, Err(Errno::ESTALE));
        assert_eq!(mount.stored("/f").await.unwrap(), "theirs");
    }
}

#[tokio::test]
async fn a_file_that_was_removed_elsewhere_comes_back_only_from_empty() {
    let mount = Mount::empty();
    put(&mount.memory, "/f", "1").await;
    let rewritten = mount.open("f", REWRITE).await.unwrap();
    rewritten.write(0, "2").await.unwrap();
    delete(&mount.memory, "/f").await;
    rewritten.close().await.unwrap();
    assert_eq!(mount.stored("/f").await.unwrap(), "2");
    assert_eq!(mount.read("f").await.unwrap(), "2");
    let changed = mount.open("f", libc::O_WRONLY).await.unwrap();
    changed.write(0, "3").await.unwrap();
    delete(&mount.memory, "/f").await;
    assert_eq!(changed.close().await, Err(Errno::ESTALE));
    assert!(keys(&mount.memory).await.is_empty());
}

#[tokio::test]
async fn who_demanded_a_new_file_does_not_get_anothers() {
    let mount = Mount::empty();
    let exclusive = mount.create("x", CREATE | libc::O_EXCL).await.unwrap();
    let emptied = mount.create("t", CREATE | libc::O_TRUNC).await.unwrap();
    let touched = mount.create("n", CREATE).await.unwrap();
    for key in ["/x", "/t", "/n"] {
        put(&mount.memory, key, "theirs").await;
    }
    exclusive.write(0, "ours").await.unwrap();
    emptied.write(0, "ours").await.unwrap();
    assert_eq!(exclusive.close().await, Err(Errno::ESTALE));
    emptied.close().await.unwrap();
    touched.close().await.unwrap();
    assert_eq!(mount.read("x").await.unwrap(), "theirs");
    assert_eq!(mount.read("t").await.unwrap(), "ours");
    assert_eq!(mount.read("n").await.unwrap(), "theirs");
}

#[tokio::test]
async fn a_directory_that_took_the_name_refuses_the_commit() {
    let mount = Mount::empty();
    let open = mount.create("f", CREATE | libc::O_TRUNC).await.unwrap();
    open.write(0, "x").await.unwrap();
    put(&mount.memory, "/f/child", "x").await;
    assert_eq!(open.close().await, Err(Errno::EISDIR));
    assert_eq!(keys(&mount.memory).await, ["/f/child"]);
    assert_eq!(mount.read("f/child").await.unwrap(), "x");
}

#[tokio::test]
async fn each_refusal_of_the_key_space_has_its_errno_and_the_next_write_hears_of_it() {
    let mount = Mount::empty();
    let reason = || "because".to_owned();
    for (error, errno, is_early) in [
        (Error::NoSpace { reason: reason() }, Errno::ENOSPC, true),
        (Error::NoQuorum { reason: reason() }, Errno::EROFS, true),
        (Error::Denied { reason: reason() }, Errno::EACCES, false),
    ] {
        let open = mount.create("f", CREATE | libc::O_TRUNC).await.unwrap();
        open.write(0, "x").await.unwrap();
        mount.memory.fail_next_txn(FailureMoment::Before, error);
        assert_eq!(open.flush().await, Err(errno));
        let again = mount.create("g", CREATE | libc::O_EXCL).await.map(|_| ());
        assert_eq!(again, if is_early { Err(errno) } else { Ok(()) });
        open.release().await.ok();
        assert_eq!(mount.stat("f").await.map(|_| ()), Err(Errno::ENOENT));
        mount.memory.fail_next_txn(FailureMoment::Before, Error::Invalid(reason()));
        // Any answer but the same refusal ends it.
        mount.fs.propose(0, Vec::new(), Default::default()).await.unwrap_err();
        mount.create("f", CREATE).await.unwrap();
        mount.unlink("f").await.unwrap();
    }
}

#[tokio::test]
async fn a_busy_key_space_is_asked_again() {
    let mount = Mount::empty();
    let busy = || Error::Busy { reason: "queue full".to_owned() };
    mount.memory.fail_next_txn(FailureMoment::Before, busy());
    mount.memory.fail_next_txn(FailureMoment::Before, busy());
    mount.write("f", "x").await.unwrap();
    assert_eq!(mount.stored("/f").await.unwrap(), "x");
}

#[tokio::test]
async fn an_unknown_outcome_is_found_out_by_reading_back() {
    let mount = Mount::empty();
    for (moment, flags) in [
        (FailureMoment::After, CREATE | libc::O_TRUNC),
        (FailureMoment::Before, CREATE | libc::O_TRUNC),
        (FailureMoment::After, CREATE | libc::O_APPEND),
        (FailureMoment::Before, CREATE | libc::O_APPEND),
    ] {
        let before = mount.revision();
        let open = mount.create("f", flags).await.unwrap();
        open.write(0, "x").await.unwrap();
        mount.memory.fail_next_txn(moment, unknown());
        assert_eq!(open.flush().await, Err(Errno::EIO));
        assert_eq!(open.read().await.unwrap(), "x", "the copy is kept");
        open.write(1, "y").await.unwrap();
        open.close().await.unwrap();
        assert_eq!(mount.stored("/f").await.unwrap(), "xy", "{moment:?} {flags:o}");
        let revisions = if moment == FailureMoment::After { 2 } else { 1 };
        assert_eq!(mount.revision(), before + revisions);
        mount.unlink("f").await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_answer_is_read_back_without_a_second_close() {
    let mount = Mount::empty();
    let open = mount.create("f", CREATE | libc::O_TRUNC).await.unwrap();
    open.write(0, "x").await.unwrap();
    mount.memory.fail_next_txn(FailureMoment::After, unknown());
    assert_eq!(open.flush().await, Err(Errno::EIO));
    let revision = mount.revision();
    mount.fs.tend().await;
    assert_eq!(mount.fs.writing.budget.used(), 0);
    assert_eq!(mount.revision(), revision);
    open.close().await.unwrap();
    assert_eq!(mount.revision(), revision);
}

#[tokio::test]
async fn a_lost_answer_is_found_below_all_that_others_wrote_since() {
    let mount = Mount::empty();
    // About as many as are looked at together, and more.
    for versions in [62, 63, 64, 65, 127, 128, 200] {
        let open = mount.create("f", CREATE | libc::O_TRUNC).await.unwrap();
        open.write(0, "x").await.unwrap();
        mount.memory.fail_next_txn(FailureMoment::After, unknown());
        assert_eq!(open.flush().await, Err(Errno::EIO));
        for _ in 0..versions {
            put(&mount.memory, "/f", "another").await;
        }
        let revision = mount.revision();
        open.close().await.unwrap();
        assert_eq!(mount.stored("/f").await.unwrap(), "another", "{versions} versions");
        assert_eq!(mount.revision(), revision, "it is not written again");
        mount.unlink("f").await.unwrap();
    }
}

#[tokio::test]
async fn too_large_is_told_before_anything_is_kept() {
    let mount = Mount::empty();
    let open = mount.create("f", CREATE | libc::O_TRUNC).await.unwrap();
    let max = revfs_api::keyspace::VALUE_BYTES_MAX as u64;
    assert_eq!(open.write(max, "x").await, Err(Errno::EFBIG));
    assert_eq!(open.write(u64::MAX, "x").await, Err(Errno::EFBIG));
    assert_eq!(mount.fs.writing.budget.used(), 0);
    open.write(max - 1, "x").await.unwrap();
    open.close().await.unwrap();
    assert_eq!(mount.stat("f").await.unwrap().size, max);
    let append = mount.open("f", libc::O_WRONLY | libc::O_APPEND).await.unwrap();
    assert_eq!(append.write(0, "x").await, Err(Errno::EFBIG));
    append.close().await.unwrap();
    let ino = mount.ino("f").await.unwrap();
    let larger = SetAttr { size: Some(max + 1), ..SetAttr::default() };
    assert_eq!(mount.fs.setattr(ANYBODY, ino, larger).await.map(|_| ()), Err(Errno::EFBIG));
}

#[tokio::test]
async fn staged_bytes_are_bounded_and_given_back() {
    let memory = Arc::new(Memory::new());
    let options = MountOptions { staged_bytes_max: 10, ..MountOptions::default() };
    let mount = Mount::with(&memory, options);
    let one = mount.create("f", CREATE | libc::O_TRUNC).await.unwrap();
    let other = mount.create("g", CREATE | libc::O_TRUNC).await.unwrap();
    one.write(0, "123456").await.unwrap();
    assert_eq!(other.write(0, "12345").await, Err(Errno::ENOSPC));
    other.write(0, "1234").await.unwrap();
    one.close().await.unwrap();
    other.write(4, "567890").await.unwrap();
    other.close().await.unwrap();
    assert_eq!(mount.fs.writing.budget.used(), 0);
    assert_eq!(mount.stored("/g").await.unwrap(), "1234567890");
}

#[tokio::test]
async fn a_read_only_mount_refuses_at_once() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/f", "x").await;
    let mount = Mount::with(&memory, MountOptions { read_only: true, ..MountOptions::default() });
    assert_eq!(mount.open("f", libc::O_WRONLY).await.map(|_| ()), Err(Errno::EROFS));
    assert_eq!(mount.create("g", CREATE).await.map(|_| ()), Err(Errno::EROFS));
    assert_eq!(mount.mkdir("d").await, Err(Errno::EROFS));
    assert_eq!(mount.unlink("f").await, Err(Errno::EROFS));
    assert_eq!(mount.rename("f", "g").await, Err(Errno::EROFS));
    let ino = mount.ino("f").await.unwrap();
    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    assert_eq!(mount.fs.setattr(ANYBODY, ino, mode).await.map(|_| ()), Err(Errno::EROFS));
    assert_eq!(mount.read("f").await.unwrap(), "x");
}

#[tokio::test]
async fn pages_of_a_refused_copy_are_not_taken_for_news() {
    let mount = Mount::empty();
    put(&mount.memory, "/f", "abc").await;
    let open = mount.open("f", libc::O_RDWR).await.unwrap();
    let node = mount.fs.nodes.get(open.ino).unwrap();
    open.write(0, "X").await.unwrap();
    put(&mount.memory, "/f", "123").await;
    let key = bytes::Bytes::from("/f");
    assert_eq!(mount.fs.refuse(&node, &key, Errno::ESTALE), Err(Errno::ESTALE));
    let page = |data| WriteRequest {
        handle: open.handle,
        offset: 0,
        data,
        flags: libc::O_RDWR,
        is_page: true,
    };
    assert_eq!(open.flush().await, Err(Errno::ESTALE), "told once");
    assert_eq!(mount.fs.write(ANYBODY, open.ino, page(b"Xbc")).await, Ok(3));
    assert!(node.file.lock().staged.is_none());
    mount.fs.tend().await;
    assert_eq!(mount.fs.write(ANYBODY, open.ino, page(b"9")).await, Ok(1));
    open.close().await.unwrap();
    assert_eq!(mount.stored("/f").await.unwrap(), "923");
}
