//! What the tests of the whole need: the built program, real mounts, shell lines, real trees, waiting.
//!
//! The harness fails loudly: a missing tool, a line that exits otherwise than expected, a wait that
//! passes its deadline each panic with everything that is needed to repeat them. It leaves nothing
//! behind: what it starts it ends, by process id, when the value that stands for it is dropped, also
//! while a panic unwinds.
//!
//! - [`program`]: the program `revfs` as built from this workspace;
//! - [`mount`]: one running `revfs up` on directories of its own;
//! - [`api`]: another client of the node;
//! - [`etcd`]: a real etcd, and its command line;
//! - [`shell`]: shell lines with a deadline, whose outcome must be looked at;
//! - [`tree`]: a real tree of this machine, and listings that compare;
//! - [`tools`]: programs the tests need, and the Debian package each comes from;
//! - [`wait`]: waiting for a state;
//! - [`dice`]: random choices from a printed seed.

pub mod api;
pub mod dice;
pub mod etcd;
pub mod mount;
pub mod program;
pub mod shell;
pub mod tools;
pub mod tree;
pub mod wait;

pub use api::Api;
pub use etcd::Etcd;
pub use mount::Mount;
pub use shell::Shell;
