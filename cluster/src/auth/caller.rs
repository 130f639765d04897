//! [`Caller`]: on whose behalf something is read or proposed.

use std::sync::Arc;

use revfs_store::types::{Author, KeyRange};
use revfs_store::{Auth, Body, Need, ReadError, ReadView};

/// Who asks. While authentication is disabled everybody may do everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The node itself, its mount, and whoever may open the socket in its data directory: that one can
    /// read the data anyway.
    Trusted,
    /// A user, and the auth revision at which it was found out that it is this one.
    User { name: Arc<str>, auth_revision: u64 },
    /// Somebody who did not say who they are.
    Anonymous,
}

impl Caller {
    /// The name and auth revision that are checked; `None`: nobody checks.
    fn claim(&self) -> Option<(&str, u64)> {
        match self {
            Self::Trusted => None,
            Self::User { name, auth_revision } => Some((name, *auth_revision)),
            Self::Anonymous => Some(("", 0)),
        }
    }

    /// Checks a read against the view that answers it.
    pub(crate) fn authorise(&self, view: &ReadView, need: Need<'_>) -> Result<(), ReadError> {
        match self.claim() {
            None => Ok(()),
            Some((name, auth_revision)) => view.authorise(name, auth_revision, need),
        }
    }

    /// Whether the caller may read every key there is.
    pub(crate) fn reads_all(&self, view: &ReadView) -> Result<bool, ReadError> {
        let all = KeyRange::prefix(b"");
        match self.authorise(view, Need::Read(&all)) {
            Ok(()) => Ok(true),
            Err(ReadError::Refused(_)) => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    /// What is proposed on the caller's behalf: apply checks it.
    pub(crate) fn ask(&self, body: Body) -> Body {
        match self.claim() {
            None => body,
            Some((name, auth_revision)) => {
                Body::Request { user: name.to_owned(), auth_revision, body: Box::new(body) }
            }
        }
    }

    /// Who made a revision: the user that was found out, and what the client says.
    pub(crate) fn author(&self, claimed: String) -> Author {
        let principal = match self {
            Self::User { name, .. } => name.as_ref().to_owned(),
            Self::Trusted | Self::Anonymous => String::new(),
        };
        Author { principal, claimed }
    }

    /// The same user as of now: for what lasts longer than one request, and is checked again.
    pub(crate) fn renewed(&self, auth: &Auth) -> Self {
        match self {
            Self::User { name, .. } => {
                Self::User { name: Arc::clone(name), auth_revision: auth.revision() }
            }
            other => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use revfs_store::Body;
    use revfs_store::types::Txn;

    use super::Caller;

    #[test]
    fn what_the_node_asks_is_not_checked_and_what_nobody_asks_is() {
        let body = || Body::Txn(Txn::default());
        assert_eq!(Caller::Trusted.ask(body()), body());
        let wrapped = |user: &str, auth_revision| Body::Request {
            user: user.to_owned(),
            auth_revision,
            body: Box::new(body()),
        };
        assert_eq!(Caller::Anonymous.ask(body()), wrapped("", 0));
        let user = Caller::User { name: "u".into(), auth_revision: 7 };
        assert_eq!(user.ask(body()), wrapped("u", 7));
        assert_eq!(user.author("c".to_owned()).principal, "u");
        assert_eq!(Caller::Anonymous.author("c".to_owned()).principal, "");
    }
}
