//! Roles of an etcd that are made at the destination as well, and users, who cannot be: the API tells nobody
//! the hashes of their passwords.
//!
//! A role is made and given what it lacks, so that whoever was killed goes on. One that permits more there than
//! at the source is somebody else's: it is left alone unless `--overwrite` is given, and then made equal.

use revfs_api::client::{Client, Permission};
use revfs_api::keyspace;
use serde_json::{Value, json};

use crate::error::{Asked as _, Failure, Kind, Result};

/// What the source has.
#[derive(Debug, Default)]
pub(super) struct Authority {
    /// None if whoever asks may not see them.
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    roles: Vec<(String, Vec<Permission>)>,
    /// With their roles.
    users: Vec<(String, Vec<String>)>,
}

impl Authority {
    pub(super) fn none() -> Self {
        Self { known: Some(Known { roles: Vec::new(), users: Vec::new() }) }
    }

    pub(super) async fn of(source: &Client) -> Result<Self> {
        match Known::of(source).await {
            Err(keyspace::Error::Denied { .. }) => Ok(Self::default()),
            known => {
                Ok(Self { known: Some(known.asked(|| "look at roles and users".to_owned())?) })
            }
        }
    }

    fn roles(&self) -> &[(String, Vec<Permission>)] {
        self.known.as_ref().map_or(&[], |known| &known.roles)
    }

    /// What has to be done by hand, in a line each.
    pub(super) fn left(&self) -> Vec<String> {
        let Some(Known { users, .. }) = &self.known else {
            return vec!["roles: only root may see them (--user root)".to_owned()];
        };
        let line = |(name, roles): &(String, Vec<String>)| {
            let grants: Vec<_> =
                roles.iter().map(|role| format!("; revfs user grant {name} {role}")).collect();
            format!("user {name}: revfs user add {name}{}", grants.concat())
        };
        users.iter().map(line).collect()
    }

    pub(super) fn document(&self) -> Value {
        let Some(Known { roles, users }) = &self.known else { return Value::Null };
        let names: Vec<_> = roles.iter().map(|(name, _)| name).collect();
        let users: Vec<_> =
            users.iter().map(|(name, roles)| json!({ "user": name, "roles": roles })).collect();
        json!({ "roles": names, "users_left_out": users })
    }

    /// Refuses roles that would be changed at the destination.
    pub(super) async fn check(&self, destination: &Client) -> Result<()> {
        let Some(there) = existing(destination, self.roles()).await? else { return Ok(()) };
        let more = there.iter().find(|(name, _, more)| !more.is_empty() && name != "root");
        let Some((name, ..)) = more else { return Ok(()) };
        let message = format!("role {name} permits more at the destination than at the source");
        Err(Failure::new(Kind::Conflict, message)
            .hint(format!("`revfs role del {name}` there, or make it equal with --overwrite")))
    }

    /// Makes each role at the destination what it is at the source; how many there are. None if whoever asks may
    /// not see those of the destination.
    pub(super) async fn take(&self, destination: &Client) -> Result<Option<u64>> {
        let Some(there) = existing(destination, self.roles()).await? else { return Ok(None) };
        for (name, wanted) in self.roles() {
            let (lacks, more) = match there.iter().find(|(other, ..)| other == name) {
                Some((_, lacks, more)) => (lacks.as_slice(), more.as_slice()),
                None => {
                    let added = destination.role_add(name).await;
                    added.asked(|| format!("add role {name}"))?;
                    (wanted.as_slice(), &[][..])
                }
            };
            for Permission { range, .. } in more {
                let revoked = destination.role_revoke(name, range).await;
                revoked.asked(|| format!("make role {name} equal"))?;
            }
            for permission in lacks {
                let granted = destination.role_grant(name, permission).await;
                granted.asked(|| format!("make role {name} equal"))?;
            }
        }
        Ok(Some(self.roles().len() as u64))
    }
}

impl Known {
    async fn of(source: &Client) -> keyspace::Result<Self> {
        let (mut roles, mut users) = (Vec::new(), Vec::new());
        for name in source.roles().await? {
            let permissions = source.role(&name).await?;
            roles.push((name, permissions));
        }
        for name in source.users().await? {
            let granted = source.user(&name).await?;
            users.push((name, granted));
        }
        Ok(Self { roles, users })
    }
}

/// A role of both, what it lacks at the destination, and what it permits there beyond the source's.
type Compared = (String, Vec<Permission>, Vec<Permission>);

/// Of those roles that the destination has: what they lack, and what they permit beyond the source's.
async fn existing(
    destination: &Client,
    wanted: &[(String, Vec<Permission>)],
) -> Result<Option<Vec<Compared>>> {
    if wanted.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let names = match destination.roles().await {
        Err(keyspace::Error::Denied { .. }) => return Ok(None),
        names => names.asked(|| "list the roles there".to_owned())?,
    };
    let mut there = Vec::new();
    for (name, wanted) in wanted.iter().filter(|(name, _)| names.contains(name)) {
        let has = destination.role(name).await.asked(|| format!("show role {name} there"))?;
        let lacks = wanted.iter().filter(|permission| !has.contains(permission)).cloned();
        let more = has.iter().filter(|permission| !wanted.contains(permission)).cloned();
        there.push((name.clone(), lacks.collect(), more.collect()));
    }
    Ok(Some(there))
}
