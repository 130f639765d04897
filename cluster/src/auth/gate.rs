//! [`Gate`]: who may come in. A name and a password become a token, a token becomes a [`Caller`].

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use revfs_api::keyspace::{Error, Result};
use revfs_store::{Auth, Store};

use super::Caller;
use super::config::{AuthConfig, TokenKind};
use super::jwt::JwtKeys;
use super::password::Passwords;
use super::simple::SimpleTokens;

/// A password is compared again when it was changed meanwhile, so often.
const ATTEMPTS_MAX: u32 = 10;

/// See the module.
pub(crate) struct Gate {
    pub(crate) passwords: Passwords,
    tokens: Tokens,
}

enum Tokens {
    Simple(SimpleTokens),
    Jwt(JwtKeys),
}

/// Why somebody does not get a token; etcd's words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    #[error("authentication is not enabled")]
    NotEnabled,
    #[error("authentication failed, invalid user ID or password")]
    Failed,
    #[error("authentication failed, password was given for no password user")]
    NoPassword,
    #[error("token signing attempted with verify-only key")]
    VerifyOnly,
    #[error(transparent)]
    Other(#[from] Error),
}

impl Gate {
    pub(crate) fn new(config: &AuthConfig) -> Self {
        let tokens = match &config.token {
            TokenKind::Simple { ttl } => Tokens::Simple(SimpleTokens::new(*ttl)),
            TokenKind::Jwt(keys) => Tokens::Jwt(keys.clone()),
        };
        Self { passwords: Passwords::new(config.bcrypt_cost), tokens }
    }

    /// A token for who knows the password. It is compared outside apply; if it was changed meanwhile
    /// that is done again, so that nobody gets in by a password that was one.
    pub(crate) async fn login(
        &self,
        store: &Store,
        user: &str,
        password: &str,
    ) -> Result<String, LoginError> {
        for _ in 0..ATTEMPTS_MAX {
            let before = store.auth();
            if !before.is_enabled() {
                return Err(LoginError::NotEnabled);
            }
            let hash = match before.user(user) {
                None => None,
                Some(user) => Some(user.password.as_ref().ok_or(LoginError::NoPassword)?),
            };
            if !self.passwords.matches(password.to_owned(), hash).await? {
                return Err(LoginError::Failed);
            }
            let now = store.auth();
            if !now.is_enabled() {
                return Err(LoginError::NotEnabled);
            }
            if now.user(user).and_then(|user| user.password.as_ref()) == hash {
                return self.give(&now, user);
            }
        }
        let reason = "the password was changed again and again".to_owned();
        Err(Error::Busy { reason }.into())
    }

    fn give(&self, auth: &Auth, user: &str) -> Result<String, LoginError> {
        match &self.tokens {
            // Its user has a password, and authentication is enabled.
            Tokens::Simple(tokens) => {
                let number = getrandom::u64()
                    .map_err(|error| Error::Unavailable { reason: error.to_string() })?;
                tokens.give(auth, user, number, now()).ok_or(LoginError::Failed)
            }
            Tokens::Jwt(keys) => {
                keys.give(user, auth.revision(), now()).ok_or(LoginError::VerifyOnly)
            }
        }
    }

    /// Whom a token speaks for; `None` if it does not hold.
    pub(crate) fn caller(&self, auth: &Auth, token: &str) -> Option<Caller> {
        let (name, auth_revision) = match &self.tokens {
            // As in etcd: it holds whatever else changed.
            Tokens::Simple(tokens) => (tokens.user(auth, token, now())?, auth.revision()),
            Tokens::Jwt(keys) => keys.user(token)?,
        };
        Some(Caller::User { name: Arc::from(name), auth_revision })
    }
}

/// Seconds since the epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
