//! One binary for every test that starts a real process or a real mount; one file per theme.

mod attributes;
mod backups;
mod commands;
mod commits;
mod crash;
mod damage;
mod documents;
mod events;
mod history;
mod limits;
mod mounting;
mod names;
mod posix;
mod real_tree;
mod staging;
mod starting;
mod two_mounts;
