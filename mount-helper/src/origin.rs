//! Who this program says it is: `user@host`, stored beside each revision as a claim.

use revfs_api::keyspace::Origin;

pub(crate) fn origin() -> Origin {
    let uid = nix::unistd::getuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let user = user.map_or_else(|| uid.to_string(), |user| user.name);
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    let host = host.unwrap_or_else(|_| "localhost".to_owned());
    Origin { claimed: format!("{user}@{host}"), ..Origin::default() }
}
