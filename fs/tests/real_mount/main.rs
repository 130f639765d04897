//! Real mounts of a key space in memory: what programs see through the kernel.
//!
//! Every access goes through a child process. A process that waits for its own mount could not be
//! killed.

mod coherence;
mod commits;
mod contention;
mod counting;
mod events;
mod live;
mod past;
mod reading;
mod refused;
mod stress;
mod watching;
mod writing;
