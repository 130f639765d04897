//! Signed tokens as etcd has them (JWT): whoever knows the key may give them, also who is no member.
//!
//! A token names its user and the auth revision at which it was given. Nobody remembers it: it ends when it
//! says, or when users or roles change, for its revision is an old one then.

use std::fmt;
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation};

use super::config::AuthConfigError;

/// What tokens are signed and checked with.
#[derive(Clone)]
pub struct JwtKeys {
    algorithm: Algorithm,
    /// `None`: tokens come from elsewhere.
    private: Option<EncodingKey>,
    public: DecodingKey,
    ttl: Duration,
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtKeys({:?}, {:?})", self.algorithm, self.ttl)
    }
}

/// As etcd writes them.
#[derive(serde::Serialize)]
struct Given<'a> {
    username: &'a str,
    revision: u64,
    exp: u64,
}

/// etcd takes a token that does not say when it ends.
#[derive(serde::Deserialize)]
struct Shown {
    username: String,
    revision: u64,
}

impl JwtKeys {
    /// Reads the keys: PEM, but for HS, where the private key's bytes are the secret.
    ///
    /// # Errors
    /// A key that is missing, or not one of the method.
    pub(super) fn new(
        (method, algorithm): (&'static str, Algorithm),
        public: Option<&[u8]>,
        private: Option<&[u8]>,
        ttl: Duration,
    ) -> Result<Self, AuthConfigError> {
        let family = algorithm.family();
        let read_private = |pem| match family {
            AlgorithmFamily::Hmac => Ok(EncodingKey::from_secret(pem)),
            AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(pem),
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem(pem),
            AlgorithmFamily::Ed => EncodingKey::from_ed_pem(pem),
        };
        let read_public = |pem| match family {
            AlgorithmFamily::Hmac => Ok(DecodingKey::from_secret(pem)),
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem),
            AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem),
        };
        let wrong = |option| {
            move |error: jsonwebtoken::errors::Error| AuthConfigError::Key {
                option,
                reason: format!("no key of {method}, in PEM and PKCS 8: {error}"),
            }
        };
        let public = match public {
            // A secret is not public: what is said to be one is not read.
            Some(_) if family == AlgorithmFamily::Hmac => None,
            public => public.map(read_public).transpose().map_err(wrong("pub-key"))?,
        };
        let private = private.map(read_private).transpose().map_err(wrong("priv-key"))?;
        let keys = match (private, public) {
            (None, Some(public)) => Self { algorithm, private: None, public, ttl },
            (None, None) if family == AlgorithmFamily::Hmac => {
                return Err(AuthConfigError::Missing { method, options: "priv-key" });
            }
            (None, None) => {
                return Err(AuthConfigError::Missing { method, options: "pub-key or priv-key" });
            }
            (Some(private), public) => {
                let own = Jwk::from_encoding_key(&private, algorithm)
                    .and_then(|jwk| DecodingKey::from_jwk(&jwk))
                    .map_err(wrong("priv-key"))?;
                let is_given = public.is_some();
                let public = public.unwrap_or(own);
                let keys = Self { algorithm, private: Some(private), public, ttl };
                keys.check().map_err(|error| match is_given {
                    true => AuthConfigError::Mismatch,
                    false => wrong("priv-key")(error),
                })?;
                keys
            }
        };
        Ok(keys)
    }

    /// Whether what the private key signs passes the public one.
    fn check(&self) -> jsonwebtoken::errors::Result<()> {
        let now = jsonwebtoken::get_current_timestamp();
        let Some(token) = self.sign("", 1, now)? else { return Ok(()) };
        self.decode(&token).map(drop)
    }

    fn sign(
        &self,
        username: &str,
        revision: u64,
        now: u64,
    ) -> jsonwebtoken::errors::Result<Option<String>> {
        let Some(private) = &self.private else { return Ok(None) };
        let given = Given { username, revision, exp: now.saturating_add(self.ttl.as_secs()) };
        jsonwebtoken::encode(&Header::new(self.algorithm), &given, private).map(Some)
    }

    fn decode(&self, token: &str) -> jsonwebtoken::errors::Result<Shown> {
        let mut validation = Validation::new(self.algorithm);
        validation.leeway = 0;
        validation.required_spec_claims.clear();
        validation.validate_nbf = true;
        // As etcd: a token that is for somebody else too is for us.
        validation.validate_aud = false;
        jsonwebtoken::decode(token, &self.public, &validation).map(|token| token.claims)
    }

    /// A token for a user, as of an auth revision. `None` if the private key is elsewhere, or fails.
    pub(crate) fn give(&self, user: &str, auth_revision: u64, now: u64) -> Option<String> {
        self.sign(user, auth_revision, now).unwrap_or_else(|error| {
            tracing::error!(%error, "a token cannot be signed");
            None
        })
    }

    /// User and auth revision, if the token holds.
    pub(crate) fn user(&self, token: &str) -> Option<(String, u64)> {
        match self.decode(token) {
            Ok(Shown { username, revision }) => Some((username, revision)),
            Err(error) => {
                tracing::debug!(%error, "a token does not hold");
                None
            }
        }
    }
}
