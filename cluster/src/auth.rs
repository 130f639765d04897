//! Who asks, and how a node finds that out.
//!
//! - [`Caller`]: on whose behalf something is read or proposed;
//! - `gate`: a name and a password become a token, a token becomes a caller;
//! - `password`, `simple`, `jwt`: hashes, and the two kinds of tokens;
//! - [`AuthConfig`]: the settings of all that;
//! - `turns`: tells those who have been let in for longer that users or roles changed.
//!
//! What a caller may do is decided in the store: in the view that answers a read, and by apply.

mod caller;
mod config;
mod gate;
mod jwt;
mod password;
mod simple;
mod turns;

pub use caller::Caller;
pub use config::{AuthConfig, AuthConfigError, BCRYPT_COSTS, TokenKind};
pub(crate) use gate::{Gate, LoginError};
pub use jwt::JwtKeys;
pub(crate) use password::is_hash;
pub(crate) use turns::AuthTurns;

#[cfg(test)]
mod tests;
