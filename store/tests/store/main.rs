//! Tests of the store through its public surface, in one binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod alarms;
mod auth;
mod backup;
mod barrier;
mod concurrent;
mod counts;
mod damage;
mod first;
mod format;
mod format_1;
mod garbage;
mod hash;
mod inspect;
mod install;
mod model;
mod order;
mod random;
mod reference;
mod scenario;
mod script;
mod space;
mod uploads;
mod watch;
mod watch_model;
