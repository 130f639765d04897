//! A whole node on a real directory: what it promises across restarts, crashes, damage and full disks.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod alarm;
mod backup;
mod changes;
mod crash;
mod damage;
mod full_disk;
mod leases;
mod restart;
mod rig;
mod uploads;
mod version_1;
