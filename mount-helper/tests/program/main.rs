//! The built program, run as its users run it.

mod arguments;
mod backend;
mod changes;
mod command;
mod history;
mod holding;
mod keys;
mod mounted;
mod node;
mod serve;
mod users;
