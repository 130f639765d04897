//! Settings of authentication: `--auth-token`, `--auth-token-ttl` and `--bcrypt-cost`, as etcd has them.
//!
//! `simple`, or `jwt,sign-method=M` with at least one of `pub-key=FILE` and `priv-key=FILE`, and
//! `ttl=TIME`. Files are read when the settings are, so that a wrong one is known before the node starts.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::Algorithm;

use super::jwt::JwtKeys;

/// What bcrypt knows.
pub const BCRYPT_COSTS: RangeInclusive<u32> = 4..=31;

/// etcd's default of `--bcrypt-cost`.
const BCRYPT_COST: u32 = 10;

/// etcd's default of `--auth-token-ttl`, and of a JWT's `ttl`.
const TOKEN_TTL: Duration = Duration::from_secs(300);

/// Every second of a longer one would be a guess about who still works there.
const TOKEN_TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// See the module.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    pub token: TokenKind,
    /// Each step doubles what it costs to hash a password, and to guess one.
    pub bcrypt_cost: u32,
}

/// How users show who they are after they said it once.
#[derive(Clone, Debug)]
pub enum TokenKind {
    /// Signed by the cluster; ends when it was not used for so long.
    Simple {
        ttl: Duration,
    },
    Jwt(JwtKeys),
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self { token: TokenKind::Simple { ttl: TOKEN_TTL }, bcrypt_cost: BCRYPT_COST }
    }
}

/// What is wrong with a setting, and which one it is.
#[derive(Debug, thiserror::Error)]
pub enum AuthConfigError {
    #[error("--bcrypt-cost {0}: choose {min} to {max}", min = BCRYPT_COSTS.start(), max = BCRYPT_COSTS.end())]
    BcryptCost(u32),
    #[error("--auth-token-ttl {0}: choose 1 to {max} seconds", max = TOKEN_TTL_MAX.as_secs())]
    TokenTtl(u64),
    #[error("--auth-token '{0}': the kinds are 'simple' and 'jwt'")]
    Kind(String),
    #[error("--auth-token: '{0}' is not written as option=value")]
    NoValue(String),
    #[error("--auth-token: the option '{0}' is given twice")]
    Twice(String),
    #[error(
        "--auth-token: unknown option '{0}'; a jwt has sign-method, pub-key, priv-key and ttl, \
         and simple has none"
    )]
    Unknown(String),
    #[error(
        "--auth-token: sign-method '{0}': choose one of {known}",
        known = METHODS.map(|(name, _)| name).join(", ")
    )]
    Method(String),
    #[error("--auth-token: ttl '{0}': write a time as 90s, 5m or 1h, up to a year")]
    Ttl(String),
    #[error("--auth-token: {option} {path}: {source}", path = .path.display())]
    Read { option: &'static str, path: PathBuf, source: std::io::Error },
    #[error("--auth-token: {option}: {reason}")]
    Key { option: &'static str, reason: String },
    #[error("--auth-token: sign-method {method} needs {options}")]
    Missing { method: &'static str, options: &'static str },
    #[error("--auth-token: pub-key is not that of priv-key")]
    Mismatch,
}

/// etcd's names of the methods that are built; ES512 is not.
const METHODS: [(&str, Algorithm); 12] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("EdDSA", Algorithm::EdDSA),
];

impl AuthConfig {
    /// Reads etcd's three settings; `token_ttl_seconds` is that of simple tokens.
    ///
    /// # Errors
    /// The setting that is wrong, and what would be right.
    pub fn parse(
        token: &str,
        token_ttl_seconds: u64,
        bcrypt_cost: u32,
    ) -> Result<Self, AuthConfigError> {
        if !BCRYPT_COSTS.contains(&bcrypt_cost) {
            return Err(AuthConfigError::BcryptCost(bcrypt_cost));
        }
        let ttl = Duration::from_secs(token_ttl_seconds);
        if ttl.is_zero() || ttl > TOKEN_TTL_MAX {
            return Err(AuthConfigError::TokenTtl(token_ttl_seconds));
        }
        let mut parts = token.split(',');
        let kind = parts.next().unwrap_or_default();
        let options = options(parts)?;
        let token = match kind {
            "simple" => match options.into_iter().next() {
                None => TokenKind::Simple { ttl },
                Some((option, _)) => return Err(AuthConfigError::Unknown(option.to_owned())),
            },
            "jwt" => TokenKind::Jwt(jwt(options)?),
            other => return Err(AuthConfigError::Kind(other.to_owned())),
        };
        Ok(Self { token, bcrypt_cost })
    }
}

fn options<'t>(
    parts: impl Iterator<Item = &'t str>,
) -> Result<BTreeMap<&'t str, &'t str>, AuthConfigError> {
    let mut options = BTreeMap::new();
    for part in parts {
        let pair = part.split_once('=').filter(|(_, value)| !value.is_empty());
        let (option, value) = pair.ok_or_else(|| AuthConfigError::NoValue(part.to_owned()))?;
        if options.insert(option, value).is_some() {
            return Err(AuthConfigError::Twice(option.to_owned()));
        }
    }
    Ok(options)
}

fn jwt(mut options: BTreeMap<&str, &str>) -> Result<JwtKeys, AuthConfigError> {
    let method = options.remove("sign-method").unwrap_or_default();
    let known = METHODS.into_iter().find(|(name, _)| *name == method);
    let method = known.ok_or_else(|| AuthConfigError::Method(method.to_owned()))?;
    let ttl = match options.remove("ttl") {
        None => TOKEN_TTL,
        Some(text) => duration(text).ok_or_else(|| AuthConfigError::Ttl(text.to_owned()))?,
    };
    let public = read("pub-key", options.remove("pub-key"))?;
    let private = read("priv-key", options.remove("priv-key"))?;
    if let Some((option, _)) = options.into_iter().next() {
        return Err(AuthConfigError::Unknown(option.to_owned()));
    }
    JwtKeys::new(method, public.as_deref(), private.as_deref(), ttl)
}

fn read(option: &'static str, path: Option<&str>) -> Result<Option<Vec<u8>>, AuthConfigError> {
    let Some(path) = path.map(PathBuf::from) else { return Ok(None) };
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) => Err(AuthConfigError::Read { option, path, source }),
    }
}

/// One number with its unit, from a second to a year.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    let duration = Duration::from_secs(seconds);
    (!duration.is_zero() && duration <= TOKEN_TTL_MAX).then_some(duration)
}

#[cfg(test)]
mod tests;
