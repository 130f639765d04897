//! What the tests of the whole need: the built program, real mounts, shell lines, real trees, waiting.
//!
//! The harness fails loudly: a missing tool, a line that exits otherwise than expected, a wait that
//! passes its deadline each panic with everything that is needed to repeat them. It leaves nothing
//! behind: what it starts it ends, by process id, when the value that stands for it is dropped, also
//! while a panic unwinds.
//!
//! - [`program`]: the program `revfs` as built from this workspace;
//! - [`mount`]: one running `revfs up` on directories of its own;
//! - [`serve`]: one running `revfs serve`, and what it costs;
//! - [`bounds`], [`synced`]: what benches print and compare with;
//! - [`api`]: another client of the node;
//! - [`clock`]: wall clocks that step;
//! - [`cluster`], [`membership`], [`network`]: clusters of real processes, on a network that can be cut;
//! - [`etcd`]: a real etcd, and its command line;
//! - [`forgetful`]: a disk that forgets at a power cut what was not synced;
//! - [`history`]: what concurrent clients did, and whether some order explains it;
//! - [`replay`]: the history of a store, and whether what clients were told agrees with it;
//! - [`shell`]: shell lines with a deadline, whose outcome must be looked at;
//! - [`tree`]: a real tree of this machine, and listings that compare;
//! - [`tools`]: programs the tests need, and the Debian package or crate each comes from;
//! - [`wait`]: waiting for a state;
//! - [`dice`]: random choices from a printed seed.

pub mod api;
pub mod bounds;
pub mod clock;
pub mod cluster;
pub mod dice;
pub mod etcd;
pub mod forgetful;
pub mod history;
pub mod membership;
pub mod mount;
pub mod network;
pub mod program;
pub mod replay;
pub mod serve;
pub mod shell;
pub mod synced;
pub mod tools;
pub mod tree;
pub mod wait;

pub use api::Api;
pub use cluster::Cluster;
pub use etcd::Etcd;
pub use mount::Mount;
pub use serve::Server;
pub use shell::Shell;
