//! The past as a tree: `@rev`, `@time` and `@history`.

mod log;
mod names;
mod rev;
mod time;
mod time_name;

pub use names::{HistoryName, RevName};
pub use time_name::{TimeNameError, parse_time_name};
