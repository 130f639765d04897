//! Passwords and their hashes: bcrypt, away from the threads that serve requests, and never in apply.
//!
//! To hash takes a tenth of a second of a processor, so only as many are hashed at once as there are
//! processors; who comes later waits for a turn, or is told that the node is busy. A name that does not
//! exist takes as long as one that does.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use revfs_api::keyspace::{Error, Result};
use revfs_store::PasswordHash;
use tokio::sync::Semaphore;

/// Longer ones would be cut by bcrypt, and compared as if the rest did not matter.
pub(crate) const PASSWORD_BYTES_MAX: usize = 72;

/// Waits for a turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Passwords {
    cost: u32,
    turns: Arc<Semaphore>,
    /// Compared with the password of who does not exist.
    nobody: Arc<OnceLock<String>>,
}

impl Passwords {
    pub(crate) fn new(cost: u32) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { cost, turns: Arc::new(Semaphore::new(processors)), nobody: Arc::default() }
    }

    /// Runs what takes long, in its turn.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let turn = Arc::clone(&self.turns).acquire_owned();
        let turn = tokio::time::timeout(TURN_TIMEOUT, turn).await;
        let Ok(Ok(turn)) = turn else {
            let reason = format!("other passwords were looked at for {TURN_TIMEOUT:?}");
            return Err(Error::Busy { reason });
        };
        // The turn lasts until the work is done, also if nobody waits for it any more.
        let worked = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        worked.await.map_err(|error| Error::Unavailable { reason: error.to_string() })
    }

    /// What is kept of a password.
    pub(crate) async fn hash(&self, password: String) -> Result<PasswordHash> {
        let cost = self.cost;
        if password.len() > PASSWORD_BYTES_MAX {
            let max = PASSWORD_BYTES_MAX;
            return Err(Error::Invalid(format!("password length exceeds {max} bytes")));
        }
        let hashed = self.run(move || bcrypt::hash(password, cost)).await?;
        let hash = hashed.map_err(|error| Error::Unavailable { reason: error.to_string() })?;
        Ok(PasswordHash(Bytes::from(hash)))
    }

    /// Whether `hash` was made of `password`. `None`: of nobody's, which takes as long.
    pub(crate) async fn matches(
        &self,
        password: String,
        hash: Option<&PasswordHash>,
    ) -> Result<bool> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let hash = hash.map(|PasswordHash(hash)| hash.clone());
        let (nobody, cost) = (Arc::clone(&self.nobody), self.cost);
        let compare = move || match hash {
            Some(hash) => std::str::from_utf8(&hash)
                .is_ok_and(|hash| bcrypt::verify(password, hash).unwrap_or(false)),
            None => {
                let hash = nobody.get_or_init(|| bcrypt::hash("", cost).unwrap_or_default());
                // Whatever it says: nobody has no password.
                bcrypt::verify(password, hash).ok();
                false
            }
        };
        self.run(compare).await
    }
}

/// Whether bcrypt could have made this.
pub(crate) fn is_hash(hash: &[u8]) -> bool {
    std::str::from_utf8(hash).is_ok_and(|hash| hash.parse::<bcrypt::HashParts>().is_ok())
}

#[cfg(test)]
mod tests {
    use revfs_store::PasswordHash;

    use super::{PASSWORD_BYTES_MAX, Passwords, is_hash};

    #[tokio::test]
    async fn a_password_matches_its_own_hash_and_no_other() {
        let passwords = Passwords::new(bcrypt_cost_min());
        let hash = passwords.hash("secret".to_owned()).await.unwrap();
        assert!(is_hash(&hash.0));
        assert!(passwords.matches("secret".to_owned(), Some(&hash)).await.unwrap());
        assert!(!passwords.matches("Secret".to_owned(), Some(&hash)).await.unwrap());
        assert!(!passwords.matches(String::new(), None).await.unwrap());
        let other = passwords.hash("secret".to_owned()).await.unwrap();
        assert_ne!(hash, other, "each has its salt");
    }

    #[tokio::test]
    async fn a_password_that_would_be_cut_is_refused_and_never_matches() {
        let passwords = Passwords::new(bcrypt_cost_min());
        let longest = "p".repeat(PASSWORD_BYTES_MAX);
        let hash = passwords.hash(longest.clone()).await.unwrap();
        let error = passwords.hash(longest.clone() + "p").await.unwrap_err();
        assert_eq!(error.to_string(), "password length exceeds 72 bytes");
        assert!(passwords.matches(longest.clone(), Some(&hash)).await.unwrap());
        assert!(!passwords.matches(longest + "p", Some(&hash)).await.unwrap());
    }

    #[test]
    fn what_bcrypt_did_not_make_is_no_hash() {
        assert!(!is_hash(b"secret") && !is_hash(b"") && !is_hash(&[0xFF]));
        assert!(!is_hash(b"$2a$10$tooshort"));
    }

    #[tokio::test]
    async fn a_hash_of_the_older_form_is_understood() {
        // As etcd writes it.
        let hash = b"$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.";
        let passwords = Passwords::new(bcrypt_cost_min());
        let hash = PasswordHash(bytes::Bytes::from_static(hash));
        assert!(passwords.matches(String::new(), Some(&hash)).await.unwrap());
        assert!(!passwords.matches("other".to_owned(), Some(&hash)).await.unwrap());
    }

    fn bcrypt_cost_min() -> u32 {
        *crate::auth::BCRYPT_COSTS.start()
    }
}
