//! Whether all members hold the same: noticed by comparing hashes at one place of the log.
//!
//! ```text
//! leader: Check, or a compaction ─► log ─► each member keeps its state of that entry ([`points`]),
//!                                          and hashes it beside its work
//! leader ◄─ the hashes ([`comparison`]) ─► who differs from a majority ([`verdict`]) ─► again, to be sure
//!                                          ─► alarm CORRUPT ─► that member serves nothing ([`integrity`])
//! ```
//!
//! A member that is behind is waited for, and one that is gone is left out; nothing else waits for any of
//! this.

mod comparison;
mod integrity;
mod points;
mod verdict;

pub(crate) use comparison::Comparison;
pub(crate) use integrity::Integrity;
pub(crate) use points::Points;
