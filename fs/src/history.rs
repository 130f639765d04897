//! The past as names: `@rev`, `@time` and `@history`.

mod names;
mod time_name;

pub use names::{HistoryName, RevName};
pub use time_name::{TimeNameError, parse_time_name};
