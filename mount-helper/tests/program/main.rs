//! The built program, run as its users run it.

mod arguments;
mod command;
mod history;
mod keys;
mod mounted;
mod node;
mod serve;
