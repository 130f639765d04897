//! Who a revision says it is from: `user@host` of the process that asked.
//!
//! A claim, not a proof: anyone who may write may claim any name.

use std::collections::HashMap;

use nix::unistd::{Uid, User, gethostname};
use parking_lot::Mutex;

/// Names of users; looked up once, because the lookup may go over a network.
#[derive(Debug)]
pub(crate) struct Authors {
    host: String,
    names: Mutex<HashMap<u32, String>>,
}

/// A machine with more users than this pays for the lookup again.
const NAMES_MAX: usize = 1024;

impl Default for Authors {
    fn default() -> Self {
        let host = gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        Self { host, names: Mutex::default() }
    }
}

impl Authors {
    pub(crate) fn claim(&self, uid: u32) -> String {
        let known = self.names.lock().get(&uid).cloned();
        let name = known.unwrap_or_else(|| {
            let found = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            let name = found.map_or_else(|| uid.to_string(), |user| user.name);
            let mut names = self.names.lock();
            if names.len() >= NAMES_MAX {
                names.clear();
            }
            names.insert(uid, name.clone());
            name
        });
        format!("{name}@{}", self.host)
    }
}

#[cfg(test)]
mod tests {
    //! Names where there are names, numbers where there are none.

    use super::Authors;

    #[test]
    fn users_have_names_or_numbers() {
        let authors = Authors::default();
        let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
        assert_eq!(authors.claim(0), format!("root@{host}"));
        assert_eq!(authors.claim(4_000_000_001), format!("4000000001@{host}"));
        assert_eq!(authors.claim(0), format!("root@{host}"));
    }
}
