//! O_EXCL among several mounts of one key space: with a table that they share, and with reservations in
//! the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::Errno;
use revfs_api::KeySpace;
use revfs_api::keyspace::{LeaseId, Op};

use super::{CREATE, Mount, REWRITE, change, get, keys, put};
use crate::memory::Memory;
use crate::path::{in_store_key, reservation_key};

const EXCLUSIVE: i32 = CREATE | libc::O_EXCL;

fn shared() -> (Mount, Mount) {
    let memory = Arc::new(Memory::new());
    (Mount::new(&memory), Mount::new(&memory))
}

fn in_store() -> (Mount, Mount) {
    let mounts = shared();
    mounts.0.memory.share_no_reservations();
    mounts
}

async fn reservation(memory: &Memory, key: &str) -> Option<LeaseId> {
    get(memory, &reservation_key(key.as_bytes())).await.map(|kv| kv.lease)
}

/// A reservation is given up by a task.
async fn wait_until_free(memory: &Memory, key: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while reservation(memory, key).await.is_some() {
        assert!(Instant::now() < deadline, "{key} stays reserved");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_name_that_one_mount_creates_exclusively_is_taken_on_the_others_and_not_seen() {
    for (one, other) in [shared(), in_store()] {
        put(&one.memory, "/dir/file", "x").await;
        let open = one.create("new", EXCLUSIVE).await.unwrap();
        open.write(0, "mine").await.unwrap();

        assert_eq!(other.create("new", EXCLUSIVE).await.map(drop), Err(Errno::EEXIST));
        assert_eq!(other.mkdir("new").await, Err(Errno::EEXIST));
        assert_eq!(other.symlink("new", "dir").await, Err(Errno::EEXIST));
        for source in ["dir", "dir/file"] {
            let renamed = other.rename_with(source, "new", libc::RENAME_NOREPLACE).await;
            assert_eq!(renamed, Err(Errno::EEXIST), "{source}");
        }
        assert_eq!(other.stat("new").await.map(drop), Err(Errno::ENOENT));
        assert_eq!(other.read("dir/file").await.unwrap(), "x");

        open.close().await.unwrap();
        assert_eq!(other.read("new").await.unwrap(), "mine");
        assert_eq!(other.create("new", EXCLUSIVE).await.map(drop), Err(Errno::EEXIST));
        assert_eq!(reservation(&one.memory, "/new").await, None);
        other.unlink("new").await.unwrap();
        other.create("new", EXCLUSIVE).await.unwrap().close().await.unwrap();
    }
}

#[tokio::test]
async fn a_shared_table_costs_no_revision_and_the_store_one() {
    let (one, _other) = shared();
    let before = one.revision();
    one.create("f", EXCLUSIVE).await.unwrap().close().await.unwrap();
    assert_eq!(one.revision(), before + 1);
    assert_eq!(keys(&one.memory).await, ["/f"]);

    let (one, _other) = in_store();
    let before = one.revision();
    let open = one.create("f", EXCLUSIVE).await.unwrap();
    assert_eq!(one.revision(), before + 1);
    let lease = reservation(&one.memory, "/f").await.unwrap();
    assert!(one.memory.lease_keep_alive(lease).await.unwrap().is_some(), "it hangs on a lease");
    open.close().await.unwrap();
    assert_eq!(one.revision(), before + 2, "the reservation goes with the commit");
    assert_eq!(get(&one.memory, b"/f").await.unwrap().lease, LeaseId(0));
}

#[tokio::test]
async fn a_name_is_free_again_when_its_file_is_removed_or_renamed_before_it_is_born() {
    for (one, other) in [shared(), in_store()] {
        let removed = one.create("f", EXCLUSIVE).await.unwrap();
        one.unlink("f").await.unwrap();
        wait_until_free(&one.memory, "/f").await;
        other.create("f", EXCLUSIVE).await.unwrap().close().await.unwrap();
        removed.close().await.unwrap();
        assert_eq!(other.read("f").await.unwrap(), "", "what was removed is not written over it");

        let renamed = one.create("lock", EXCLUSIVE).await.unwrap();
        renamed.write(0, "new").await.unwrap();
        one.rename("lock", "f").await.unwrap();
        assert_eq!(reservation(&one.memory, "/lock").await, None);
        other.mkdir("lock").await.unwrap();
        assert_eq!(other.read("f").await.unwrap(), "new");
        renamed.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_took_the_name_meanwhile_keeps_it() {
    for (one, other) in [shared(), in_store()] {
        let open = one.create("f", EXCLUSIVE).await.unwrap();
        open.write(0, "mine").await.unwrap();
        put(&one.memory, "/f", "theirs").await;
        assert_eq!(open.close().await, Err(Errno::ESTALE));
        assert_eq!(other.read("f").await.unwrap(), "theirs");
        wait_until_free(&one.memory, "/f").await;
        // Who does not ask for a new file is no better than a client.
        let open = one.create("g", EXCLUSIVE).await.unwrap();
        other.create("g", CREATE).await.unwrap().close().await.unwrap();
        open.write(0, "mine").await.unwrap();
        assert_eq!(open.close().await, Err(Errno::ESTALE));
        assert_eq!(other.read("g").await.unwrap(), "");
    }
}

/// The machine slept: the lease is gone, and with it the reservation.
#[tokio::test]
async fn a_lost_lease_loses_no_file_whose_name_is_still_free_and_overwrites_none() {
    let (one, other) = in_store();
    let first = one.create("f", EXCLUSIVE).await.unwrap();
    let second = one.create("g", EXCLUSIVE).await.unwrap();
    let third = one.create("h", EXCLUSIVE).await.unwrap();
    for open in [&first, &second, &third] {
        open.write(0, "mine").await.unwrap();
    }
    let lease = reservation(&one.memory, "/f").await.unwrap();
    one.memory.lease_revoke(lease).await.unwrap();
    let theirs = other.create("g", EXCLUSIVE).await.unwrap();
    theirs.write(0, "theirs").await.unwrap();
    other.mkdir("h").await.unwrap();

    first.close().await.unwrap();
    assert_eq!(other.read("f").await.unwrap(), "mine");
    assert_eq!(second.close().await, Err(Errno::ESTALE));
    assert_eq!(third.close().await, Err(Errno::EISDIR));
    theirs.close().await.unwrap();
    assert_eq!(one.read("g").await.unwrap(), "theirs");

    // Nobody has told the mount yet: it finds out, and is granted a new lease.
    one.create("i", EXCLUSIVE).await.unwrap().close().await.unwrap();
}

/// A mount of another process reserves in the store, and the table of this one is not enough any more.
#[tokio::test]
async fn reservations_in_the_store_hold_for_mounts_that_share_a_table() {
    let (one, other) = shared();
    change(&one.memory, vec![Op::put(in_store_key(), "")]).await;
    let open = one.create("f", EXCLUSIVE).await.unwrap();
    assert!(reservation(&one.memory, "/f").await.is_some());
    assert_eq!(other.create("f", EXCLUSIVE).await.map(drop), Err(Errno::EEXIST));
    open.close().await.unwrap();
    change(&one.memory, vec![Op::put(reservation_key(b"/theirs"), "")]).await;
    assert_eq!(one.create("theirs", EXCLUSIVE).await.map(drop), Err(Errno::EEXIST));
    assert_eq!(one.mkdir("theirs").await, Err(Errno::EEXIST));
    assert_eq!(one.rename_with("f", "theirs", libc::RENAME_NOREPLACE).await, Err(Errno::EEXIST));
    one.write("theirs", "not exclusive").await.unwrap();
    one.rename("f", "theirs").await.unwrap();
}

#[tokio::test]
async fn no_reservation_outlives_its_mount() {
    let (one, other) = in_store();
    one.create("f", EXCLUSIVE).await.map(drop).unwrap();
    let lease = reservation(&one.memory, "/f").await.unwrap();
    let memory = Arc::clone(&one.memory);
    drop(one);
    wait_until_free(&memory, "/f").await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while memory.lease_keep_alive(lease).await.unwrap().is_some() {
        assert!(Instant::now() < deadline, "the lease is not revoked");
        tokio::task::yield_now().await;
    }
    other.open("f", REWRITE).await.map(drop).unwrap_err();
    other.create("f", EXCLUSIVE).await.unwrap().close().await.unwrap();
}

/// Of many that want a name at once, on both mounts, one gets it.
#[tokio::test]
async fn one_of_many_gets_the_name() {
    for (one, other) in [shared(), in_store()] {
        for round in 0..20 {
            let name = format!("f{round}");
            let attempts = (0..6).map(|attempt| {
                let mount = if attempt % 2 == 0 { &one } else { &other };
                let name = name.as_str();
                async move {
                    match attempt % 3 {
                        0 => mount.mkdir(name).await,
                        _ => mount.create(name, EXCLUSIVE).await.map(drop),
                    }
                }
            });
            let answers = futures_util::future::join_all(attempts).await;
            let won = answers.iter().filter(|answer| answer.is_ok()).count();
            assert_eq!(won, 1, "{name}: {answers:?}");
            assert!(answers.iter().all(|answer| matches!(answer, Ok(()) | Err(Errno::EEXIST))));
        }
    }
}
