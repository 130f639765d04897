//! Files on leases.

use std::sync::Arc;

use fuser::Errno;
use revfs_api::KeySpace;
use revfs_api::keyspace::LeaseId;

use super::{ANYBODY, Mount, get, keys, name, put};
use crate::filesystem::Answer;
use crate::memory::Memory;

const TTL: &str = "user.revfs.ttl";

impl Mount {
    async fn ttl(&self, path: &str, value: &str, flags: i32) -> Answer<()> {
        let ino = self.ino(path).await?;
        self.fs.setxattr(ANYBODY, ino, name(TTL), value.as_bytes(), flags).await
    }

    async fn lease(&self, key: &str) -> LeaseId {
        get(&self.memory, key.as_bytes()).await.expect("it is there").lease
    }
}

#[tokio::test]
async fn a_file_with_a_time_to_live_goes_with_its_lease_unless_it_is_renewed() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/d/f", "x").await;
    let mount = Mount::new(&memory);
    mount.ttl("d/f", "30", 0).await.unwrap();
    let lease = mount.lease("/d/f").await;
    assert_ne!(lease, LeaseId(0));
    let ino = mount.ino("d/f").await.unwrap();
    let left = mount.fs.getxattr(ino, name(TTL)).await.unwrap();
    let left: i64 = std::str::from_utf8(&left).unwrap().parse().unwrap();
    assert!((1..=30).contains(&left), "{left}");
    // Renewed: nothing is written.
    let before = mount.revision();
    mount.ttl("d/f", "30", 0).await.unwrap();
    assert_eq!(mount.revision(), before);
    mount.write("d/f", "y").await.unwrap();
    assert_eq!(mount.lease("/d/f").await, lease, "a file that is written stays on its lease");
    mount.ttl("d/f", "60", libc::XATTR_REPLACE).await.unwrap();
    let other = mount.lease("/d/f").await;
    assert_ne!(other, lease);
    memory.lease_revoke(lease).await.unwrap();
    assert_eq!(mount.stored("/d/f").await.as_deref(), Some("y"));
    memory.lease_revoke(other).await.unwrap();
    assert_eq!(mount.stored("/d/f").await, None);
    assert_eq!(keys(&memory).await, ["/d/"], "its directory stays");
}

#[tokio::test]
async fn a_file_whose_time_to_live_is_removed_stays() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/f", "x").await;
    let mount = Mount::new(&memory);
    let ino = mount.ino("f").await.unwrap();
    assert_eq!(mount.fs.removexattr(ANYBODY, ino, name(TTL)).await, Err(Errno::ENODATA));
    assert_eq!(mount.fs.getxattr(ino, name(TTL)).await, Err(Errno::ENODATA));
    assert_eq!(mount.ttl("f", "30", libc::XATTR_REPLACE).await, Err(Errno::ENODATA));
    mount.ttl("f", "30", libc::XATTR_CREATE).await.unwrap();
    assert_eq!(mount.ttl("f", "30", libc::XATTR_CREATE).await, Err(Errno::EEXIST));
    let lease = mount.lease("/f").await;
    mount.fs.removexattr(ANYBODY, ino, name(TTL)).await.unwrap();
    memory.lease_revoke(lease).await.unwrap();
    assert_eq!(mount.stored("/f").await.as_deref(), Some("x"));
    for refused in ["", "0", "-1", "soon", "1.5"] {
        assert_eq!(mount.ttl("f", refused, 0).await, Err(Errno::EINVAL), "{refused}");
    }
    mount.mkdir("d").await.unwrap();
    assert_eq!(mount.ttl("d", "30", 0).await, Err(Errno::EPERM));
}
