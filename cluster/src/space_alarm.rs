//! Whether this member has room, as an alarm for the whole cluster.
//!
//! Measured are the pages in use (the file without its free pages, so that compaction alone lifts the
//! alarm) against the quota, and the free part of the disk. It is lifted below where it was raised, so
//! that it does not flicker.
//!
//! A twentieth of a large disk is more than any store needs to stop in order: beyond [`SCARCE_MAX_BYTES`]
//! free a disk is not short, whatever its size.

use bytes::Bytes;
use revfs_store::types::Author;
use revfs_store::{Alarm, AlarmKind, Body, StoreError};

use crate::proposal::Proposer;

/// Less than so much, or than a twentieth of the disk, is too little.
const SCARCE_MAX_BYTES: u64 = 1 << 30;

/// What was measured.
#[derive(Clone, Copy, Debug)]
struct Room {
    in_use_bytes: u64,
    quota_bytes: Option<u64>,
    disk_free_bytes: u64,
    disk_bytes: u64,
}

impl Room {
    fn scarce_bytes(self) -> u64 {
        (self.disk_bytes / 20).min(SCARCE_MAX_BYTES)
    }

    /// At the quota, or less than 5 % of the disk free and less than 1 GiB.
    fn is_short(self) -> bool {
        self.quota_bytes.is_some_and(|quota| self.in_use_bytes >= quota)
            || self.disk_free_bytes < self.scarce_bytes()
    }

    /// Below 90 % of the quota, and a quarter more of the disk free.
    fn is_ample(self) -> bool {
        self.quota_bytes.is_none_or(|quota| self.in_use_bytes < quota / 10 * 9)
            && self.disk_free_bytes >= self.scarce_bytes() / 4 * 5
    }
}

/// Measures, and proposes what follows from it.
pub(crate) async fn tend(proposer: &Proposer, member: u64, quota_bytes: Option<u64>) {
    if proposer.log.is_disk_full() {
        // Nothing is taken anyway, and the last room of the log is for what was admitted.
        return;
    }
    let alarm = Alarm { member, kind: AlarmKind::NoSpace };
    let (room, is_raised) = match measure(proposer, alarm, quota_bytes) {
        Ok(measured) => measured,
        Err(error) => return tracing::debug!(%error, "the room was not measured"),
    };
    let wanted = if is_raised { !room.is_ample() } else { room.is_short() };
    if wanted == is_raised {
        return;
    }
    let body = Body::Alarm { alarm, is_raised: wanted };
    match proposer.propose(Author::default(), Bytes::new(), body).await {
        Ok(_) if wanted => tracing::warn!(?room, "the alarm NOSPACE is raised"),
        Ok(_) => tracing::info!(?room, "the alarm NOSPACE is lifted"),
        Err(error) => tracing::warn!(%error, ?room, "the alarm NOSPACE was not changed"),
    }
}

fn measure(
    proposer: &Proposer,
    alarm: Alarm,
    quota_bytes: Option<u64>,
) -> Result<(Room, bool), StoreError> {
    let in_use_bytes = proposer.store.size()?.in_use_bytes;
    let is_raised = proposer.store.read_view()?.alarms()?.contains(&alarm);
    // A disk that cannot be measured is the business of the check before each write.
    let disk = nix::sys::statvfs::statvfs(&proposer.data_dir).ok();
    let bytes = |blocks: u64, fragment: u64| blocks.saturating_mul(fragment);
    let (disk_free_bytes, disk_bytes) = disk.map_or((1, 1), |disk| {
        let fragment = disk.fragment_size();
        (bytes(disk.blocks_available(), fragment), bytes(disk.blocks(), fragment))
    });
    Ok((Room { in_use_bytes, quota_bytes, disk_free_bytes, disk_bytes }, is_raised))
}

#[cfg(test)]
mod tests {
    use super::Room;

    #[test]
    fn the_alarm_is_raised_at_the_quota_and_lifted_below_nine_tenths_of_it() {
        let room = |in_use_bytes| Room {
            in_use_bytes,
            quota_bytes: Some(1_000),
            disk_free_bytes: 50,
            disk_bytes: 100,
        };
        assert!(!room(999).is_short() && room(1_000).is_short());
        assert!(room(899).is_ample() && !room(900).is_ample());
        let disk = |disk_free_bytes| Room {
            in_use_bytes: 1 << 40,
            quota_bytes: None,
            disk_free_bytes,
            disk_bytes: 1_000,
        };
        assert!(disk(49).is_short() && !disk(50).is_short());
        assert!(!disk(59).is_ample() && disk(60).is_ample());
        let large = |disk_free_bytes| Room { disk_bytes: 1 << 40, ..disk(disk_free_bytes) };
        assert!(large((1 << 30) - 1).is_short() && !large(1 << 30).is_short());
        assert!(!large(1 << 30).is_ample() && large(5 << 28).is_ample());
    }
}
