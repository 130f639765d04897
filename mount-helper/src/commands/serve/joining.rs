//! A node that comes to a cluster which has begun: added by an operator, or by itself through a member.

use std::time::Duration;

use revfs_api::client::{Client, Endpoints, MemberRole, MemberState, Settings, Tls};
use revfs_api::keyspace::Error;
use revfs_cluster::raft::check_spoken;
use revfs_cluster::{Founding, Invitation, SPOKEN_VERSION};
use tokio::time::Instant;

use super::members::{Coming, MembersPlan};
use crate::error::{Asked as _, Failure, Kind, Result};

/// A cluster may be electing, and an operator typing.
const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(500);

/// Who begins the cluster of a new data directory, or as whom the node comes to one.
pub(super) async fn founding(members: &MembersPlan, tls: Tls) -> Result<Founding> {
    match &members.coming {
        Coming::First(Founding::Together(founders)) => {
            let founding = revfs_cluster::founder(founders, tls, PATIENCE).await;
            founding.map_err(|error| Failure::caused("cannot begin", &error))
        }
        Coming::First(founding) => Ok(founding.clone()),
        Coming::Added { others } => {
            tracing::info!("asking {} as whom this node was added", others.join(", "));
            let invited =
                revfs_cluster::invitation(others, &members.advertised, tls, PATIENCE).await;
            invited.map(Founding::Invited).map_err(|error| Failure::caused("cannot join", &error))
        }
        Coming::Joining { through } => join(through, &members.advertised, tls).await,
        Coming::Back { .. } => Err(Failure::new(
            Kind::Failure,
            "the data directory was emptied while the node started",
        )
        .hint("start it again: then it comes as a new one")),
    }
}

/// Has a member add this node, unless it was added already.
async fn join(through: &Endpoints, own: &[String], tls: Tls) -> Result<Founding> {
    let settings = Settings { tls, ..Settings::default() };
    let asked = || format!("join the cluster of {through}");
    let client = Client::new(through, settings).asked(asked)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match as_whom(&client, own).await {
            Ok(invitation) => return Ok(Founding::Invited(invitation)),
            // Whether it was added shows in the next list.
            Err(error) if can_pass(&error) && Instant::now() + PAUSE < deadline => {
                tracing::info!(%error, "not joined yet");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error).asked(asked),
        }
    }
}

fn can_pass(error: &Error) -> bool {
    matches!(
        error,
        Error::NoQuorum { .. }
            | Error::OutcomeUnknown { .. }
            | Error::Unavailable { .. }
            | Error::Busy { .. }
            | Error::Timeout(_)
    )
}

async fn as_whom(client: &Client, own: &[String]) -> Result<Invitation, Error> {
    let status = client.key_space().await?.status().await?;
    let cluster = status.cluster_id;
    check_spoken(status.cluster_version, SPOKEN_VERSION)
        .map_err(|error| Error::Invalid(error.to_string()))?;
    let known = client.members_in_detail(false).await?;
    let here = || known.iter().filter(|one| one.peer_urls.iter().any(|url| own.contains(url)));
    if let Some(awaited) = here().find(|one| one.state == MemberState::Pending) {
        return Ok(Invitation { cluster, member: awaited.id });
    }
    if let Some(lives) = here().next() {
        let (id, own) = (lives.id, own.join(" "));
        return Err(Error::Unavailable {
            reason: format!(
                "the data directory is empty, but member {id:x} lives at {own} and has data: find that, or, \
                 if it is lost, run 'revfs member replace {id:x} {own}' and start this node again"
            ),
        });
    }
    let member = client.member_add(own.to_vec(), MemberRole::Voter).await?;
    Ok(Invitation { cluster, member })
}
