//! A whole node on a real directory: what it promises across restarts, crashes, damage and full disks.

mod changes;
mod crash;
mod damage;
mod full_disk;
mod restart;
mod rig;
