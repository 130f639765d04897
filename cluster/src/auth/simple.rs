//! Simple tokens: signed, so that one that any member gave holds on all of them.
//!
//! A token says who, and until when, and has a number that makes it another one than those before; what it is signed with is state of the cluster: the secret that was
//! chosen when authentication was enabled, and the hash of the user's password. So it ends, on every
//! member at once, when the password is changed, the user deleted or authentication disabled, and no
//! member has to remember it.
//!
//! As in etcd a token that is used lives on: each member notes when it saw one, and takes it for as long
//! again. That note is the member's own: where a token was not used it ends when it says.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use revfs_store::{Auth, PasswordHash, TokenSecret};
use sha2::Sha256;

/// First byte of a token of this form.
const FORM: u8 = 1;

/// Form, end and number.
const HEAD_BYTES: usize = 1 + 8 + 8;

const SIGNATURE_BYTES: usize = 32;

/// Tokens whose use a member notes. The use of others is not, so that they end when they say.
const NOTED_MAX: usize = 65_536;

type Signature = [u8; SIGNATURE_BYTES];

/// See the module. Times are seconds since the epoch.
pub(crate) struct SimpleTokens {
    ttl_seconds: u64,
    /// When a token was used last, by its signature.
    noted: Mutex<HashMap<Signature, u64>>,
}

impl SimpleTokens {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self { ttl_seconds: ttl.as_secs().max(1), noted: Mutex::default() }
    }

    /// A token for a user with a password; `None` while authentication is disabled, or without one.
    pub(crate) fn give(&self, auth: &Auth, user: &str, number: u64, now: u64) -> Option<String> {
        let end = now.saturating_add(self.ttl_seconds);
        let mut token = vec![FORM];
        token.extend_from_slice(&end.to_be_bytes());
        token.extend_from_slice(&number.to_be_bytes());
        token.extend_from_slice(user.as_bytes());
        let signature = signed(auth, user, &token)?.finalize().into_bytes();
        token.extend_from_slice(&signature);
        Some(URL_SAFE_NO_PAD.encode(token))
    }

    /// Whose token it is, if it holds.
    pub(crate) fn user(&self, auth: &Auth, token: &str, now: u64) -> Option<String> {
        let token = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (said, signature) = token.split_last_chunk::<SIGNATURE_BYTES>()?;
        let (head, user) = said.split_first_chunk::<HEAD_BYTES>()?;
        let (&form, end_and_number) = head.split_first()?;
        let end = end_and_number.first_chunk::<8>()?;
        if form != FORM {
            return None;
        }
        let user = std::str::from_utf8(user).ok()?;
        signed(auth, user, said)?.verify_slice(signature).ok()?;
        let end = u64::from_be_bytes(*end);
        self.note(signature, end, now).then(|| user.to_owned())
    }

    /// Whether a token that ends at `end` unless it is used still holds, and that it was used.
    fn note(&self, signature: &Signature, end: u64, now: u64) -> bool {
        let mut noted = self.noted.lock();
        let used = noted.get(signature).copied();
        let end = used.map_or(end, |used| end.max(used.saturating_add(self.ttl_seconds)));
        if now >= end {
            noted.remove(signature);
            return false;
        }
        if used.is_none() && noted.len() >= NOTED_MAX {
            let ttl_seconds = self.ttl_seconds;
            noted.retain(|_, used| used.saturating_add(ttl_seconds) > now);
        }
        if used.is_some() || noted.len() < NOTED_MAX {
            noted.insert(*signature, now.max(used.unwrap_or(0)));
        }
        true
    }
}

/// The signature of `said`, of which `user` is the end.
fn signed(auth: &Auth, user: &str, said: &[u8]) -> Option<Hmac<Sha256>> {
    let TokenSecret(secret) = auth.token_secret()?;
    let PasswordHash(password) = auth.user(user)?.password.as_ref()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length will do");
    // The lengths keep what is said apart from what is known.
    mac.update(&said.len().to_be_bytes());
    mac.update(said);
    mac.update(password);
    Some(mac)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use revfs_store::Auth;

    use super::SimpleTokens;

    const TTL: u64 = 300;

    fn tokens() -> SimpleTokens {
        SimpleTokens::new(Duration::from_secs(TTL))
    }

    #[test]
    fn without_authentication_there_is_no_token() {
        assert_eq!(tokens().give(&Auth::default(), "u", 1, 1_000), None);
        assert_eq!(tokens().user(&Auth::default(), "", 1_000), None);
    }

    #[test]
    fn each_use_gives_a_token_its_whole_time_again_on_the_member_that_saw_it() {
        let (here, there) = (tokens(), tokens());
        let (signature, end) = ([7; 32], 1_000 + TTL);
        assert!(here.note(&signature, end, 1_299) && there.note(&signature, end, 1_000));
        assert!(here.note(&signature, end, 1_598), "299 seconds after its last use");
        assert!(!there.note(&signature, end, 1_598), "used too long ago there");
        assert!(!there.note(&signature, end, 1_300), "and forgotten");
        assert!(!here.note(&signature, end, 1_598 + TTL));
        assert!(here.noted.lock().is_empty());
    }

    #[test]
    fn what_is_noted_is_bounded_and_what_has_no_room_ends_when_it_says() {
        let tokens = tokens();
        let signature = |number: u64| {
            let mut signature = [0; 32];
            signature[..8].copy_from_slice(&number.to_be_bytes());
            signature
        };
        let noted_max = u64::try_from(super::NOTED_MAX).unwrap();
        for number in 0..noted_max {
            assert!(tokens.note(&signature(number), 2_000, 1_000));
        }
        let late = signature(noted_max);
        assert!(tokens.note(&late, 1_100, 1_000));
        assert_eq!(tokens.noted.lock().len(), super::NOTED_MAX);
        assert!(!tokens.note(&late, 1_100, 1_100));
        // When the time of the others is over there is room.
        assert!(tokens.note(&late, 1_400, 1_000 + TTL));
        assert_eq!(tokens.noted.lock().len(), 1);
    }
}
