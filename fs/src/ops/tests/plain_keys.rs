//! A mount that may write no keys but those that the user names: no markers, records or reservations.

use std::sync::Arc;
use std::time::SystemTime;

use fuser::{Errno, TimeOrNow};

use super::super::SetAttr;
use super::{CREATE, Mount, USER, keys, put};
use crate::filesystem::MountOptions;
use crate::memory::Memory;

fn plain(memory: &Arc<Memory>) -> Mount {
    let (writes_markers, writes_attributes) = (false, false);
    Mount::with(memory, MountOptions { writes_markers, writes_attributes, ..Default::default() })
}

#[tokio::test]
async fn only_the_keys_that_the_user_names_are_written() {
    let memory = Arc::new(Memory::new());
    memory.share_no_reservations();
    put(&memory, "/dir/a", "1").await;
    let mount = plain(&memory);
    // A mode and an owner of its own, and a name that must be free.
    let file = mount.create_as(USER, "dir/new", 0o600, CREATE | libc::O_EXCL).await.unwrap();
    let again = mount.create("dir/new", CREATE | libc::O_EXCL).await;
    assert_eq!(again.map(|_| ()), Err(Errno::EEXIST));
    file.write(0, "x").await.unwrap();
    file.close().await.unwrap();
    assert_eq!(mount.stat("dir/new").await.unwrap().perm, 0o644);
    mount.rename("dir/new", "dir/b").await.unwrap();
    mount.unlink("dir/a").await.unwrap();
    assert_eq!(keys(&memory).await, ["/dir/b"]);
    mount.unlink("dir/b").await.unwrap();
    assert!(keys(&memory).await.is_empty());
    assert_eq!(mount.stat("dir").await.map(|_| ()), Err(Errno::ENOENT), "it went with its file");
}

#[tokio::test]
async fn what_would_need_a_key_of_the_mounts_own_is_refused() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/f", "1").await;
    put(&memory, "/dir/a", "1").await;
    let mount = plain(&memory);
    assert_eq!(mount.mkdir("made").await, Err(Errno::EPERM));
    assert_eq!(mount.symlink("link", "f").await, Err(Errno::EPERM));
    let before = mount.revision();
    let set = async |path: &str, set: SetAttr| {
        let ino = mount.ino(path).await.unwrap();
        mount.fs.setattr(USER, ino, set).await.map(|_| ())
    };
    let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    let time = TimeOrNow::SpecificTime(SystemTime::UNIX_EPOCH);
    for path in ["f", "dir"] {
        assert_eq!(set(path, mode(0o600)).await, Err(Errno::EPERM), "{path}");
        let mtime = SetAttr { mtime: Some(time), ..SetAttr::default() };
        assert_eq!(set(path, mtime).await, Err(Errno::EPERM), "{path}");
    }
    // What is there already may be asked for.
    assert_eq!(set("f", mode(0o644)).await, Ok(()));
    assert_eq!(set("dir", mode(0o755)).await, Ok(()));
    assert_eq!(mount.revision(), before);
    // `touch new`: the time of the commit is now.
    let file = mount.create("new", CREATE).await.unwrap();
    let now = SetAttr { mtime: Some(TimeOrNow::Now), ..SetAttr::default() };
    assert_eq!(set("new", now).await, Ok(()));
    assert_eq!(set("new", mode(0o600)).await, Err(Errno::EPERM));
    file.close().await.unwrap();
    assert_eq!(keys(&memory).await, ["/dir/a", "/f", "/new"]);
}
