//! What others wrote to try any POSIX file system, on a real mount, as root: pjdfstest asks each system call for
//! its effects and errors, fsx writes and reads one file at random and compares.
//!
//! Both are programs from crates.io, of fixed versions; `.ci/run` installs them.

mod beside_tmpfs;
mod fsx;
mod pjdfstest;
