//! Who belongs to the cluster: what is wanted (rows of the store), what is (replication's membership), and
//! how the one becomes the other.
//!
//! ```text
//! member add, remove, ... ──command──► rows ──┐
//! a member: this is me    ──command──► rows ──┤      leader only
//! who answers where, who keeps up  ───────────┼──► [`next_step`] ──► one change of rows or membership
//! replication's membership ───────────────────┘
//! ```
//!
//! `decision.rs` is pure; [`Reconciler`] looks, decides and does, again and again.

mod asked;
mod decision;
mod departure;
mod reconciler;
#[cfg(test)]
mod tests;
mod waiting;

pub use self::asked::{Listed, NewMember};
pub(crate) use self::reconciler::Reconciler;
pub use self::reconciler::SPOKEN_VERSION;
