//! What a request says of who sent it, and the [`Local`] for that caller. This is the one place where
//! a token, or the name in a certificate, becomes a [`Caller`].
//!
//! A token counts before anything else, wherever the request came in. Then the certificate; then the
//! listener: who came through the socket in the data directory is trusted. All others are nobody, which
//! matters as soon as authentication is enabled; until then no token is looked at, as in etcd.

use std::sync::Arc;

use revfs_api::keyspace::Error;
use revfs_api::status::INVALID_AUTH_TOKEN;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::connection::Peer;
use super::member::fail;
use crate::auth::Caller;
use crate::local::Local;

/// See the module. A stream keeps them, for they may mean somebody else later, or nobody.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    token: Option<Box<str>>,
    peer: Peer,
}

impl Credentials {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        Self {
            token: token(request.metadata()),
            peer: request.extensions().get::<Peer>().cloned().unwrap_or_default(),
        }
    }

    /// `node` on behalf of who has these.
    pub(super) fn node(&self, node: &Arc<Local>) -> Result<Arc<Local>, Status> {
        match self.caller(node)? {
            Caller::Trusted => Ok(Arc::clone(node)),
            caller => Ok(Arc::new(node.on_behalf_of(caller))),
        }
    }

    fn caller(&self, node: &Local) -> Result<Caller, Status> {
        if let Some(token) = &self.token
            && let Some(caller) = node.caller_of(token)
        {
            return caller.ok_or_else(|| fail(Error::Invalid(INVALID_AUTH_TOKEN.to_owned())));
        }
        Ok(match (self.peer.certificate_name(), self.peer.is_trusted) {
            (Some(name), _) => node.user(name),
            (None, true) => Caller::Trusted,
            (None, false) => Caller::Anonymous,
        })
    }
}

/// etcd's names: `token`, and `authorization`, which may say that it bears one.
fn token(metadata: &MetadataMap) -> Option<Box<str>> {
    let named = |name: &str| metadata.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"));
    named("token")
        .or_else(|| {
            named("authorization").map(|value| value.strip_prefix("Bearer ").unwrap_or(value))
        })
        .map(Box::from)
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::token;

    #[test]
    fn a_token_is_found_under_both_names_and_the_first_one_counts() {
        let mut metadata = MetadataMap::new();
        assert_eq!(token(&metadata), None);
        metadata.insert("authorization", "Bearer abc".parse().unwrap());
        assert_eq!(token(&metadata).as_deref(), Some("abc"));
        metadata.insert("authorization", "def".parse().unwrap());
        assert_eq!(token(&metadata).as_deref(), Some("def"));
        metadata.insert("token", "ghi".parse().unwrap());
        assert_eq!(token(&metadata).as_deref(), Some("ghi"));
    }
}
