//! Several members in one process, each with its own directory and its own sockets: what they promise
//! together, and what they refuse each other.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

#[expect(dead_code, reason = "these tests revoke none, and wait for none to end")]
#[path = "../grpc/certificates.rs"]
mod certificates;
mod changes;
mod damaged;
mod disaster;
mod divergence;
mod leaderless;
mod leases;
mod logged;
mod membership;
mod planting;
mod quorum;
mod rig;
mod snapshots;
mod strangers;
mod upgrades;
