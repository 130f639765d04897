//! Who asks, and how a node finds that out.
//!
//! - [`Caller`]: on whose behalf something is read or proposed;
//! - `turns`: tells those who have been let in for longer that users or roles changed.
//!
//! What a caller may do is decided in the store: in the view that answers a read, and by apply.

mod caller;
mod turns;

pub use caller::Caller;
pub(crate) use turns::AuthTurns;

#[cfg(test)]
mod tests;
