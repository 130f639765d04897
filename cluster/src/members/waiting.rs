//! What a member waits for, in words for who asks `revfs member list`.

use std::fmt;
use std::time::Duration;

use revfs_store::{Member, MemberRole};

use super::decision::{Introduction, Seen, address_of};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Nobody answers at its address.
    Answer {
        url: String,
        reason: Option<String>,
    },
    /// Somebody else answers there.
    Another {
        url: String,
        member: u64,
        cluster: u64,
    },
    /// It has come up with the data of another member.
    NewDirectory {
        url: String,
        of: u64,
    },
    NewerRelease {
        speaks: u32,
        needed: u32,
    },
    /// The leader is about to let it in.
    Leader,
    /// It has not acknowledged anything since the leader leads.
    FirstAnswer,
    Log {
        behind: u64,
    },
    /// It keeps up, and the leader is about to let it vote.
    Vote,
    /// It was there once, and is not now.
    Return {
        absence: Absence,
        /// A standby votes in its place.
        is_stood_in: bool,
    },
    Promotion {
        id: u64,
    },
    /// It stands by.
    Failure,
    /// It was removed, and those who stay are too few to let it go.
    Leave {
        there: usize,
        of: usize,
    },
}

/// Why a member is not there that has a place in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Absence {
    Silent {
        url: String,
        since: Duration,
    },
    /// Nobody answers.
    Unreachable {
        url: String,
        reason: String,
    },
    /// It has come up with another data directory.
    LostData {
        id: u64,
        url: String,
    },
    Another {
        url: String,
        member: u64,
    },
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { url, since } => {
                write!(f, "a sign of life from {url}: none for {} s", since.as_secs())
            }
            Self::Unreachable { url, reason } => write!(f, "an answer from {url}: {reason}"),
            Self::LostData { id, url } => write!(
                f,
                "its data: the node at {url} has come up with another data directory; \
                 'revfs member replace {id:x} {url}' lets that one take its place"
            ),
            Self::Another { url, member } => {
                write!(f, "an answer from {url}, where member {member:x} is now")
            }
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { url, reason: None } => write!(f, "an answer from {url}"),
            Self::Answer { url, reason: Some(reason) } => write!(
                f,
                "an answer from {url}: {reason}; start it there, or correct the address with \
                 'revfs member update'"
            ),
            Self::Another { url, member, cluster } => write!(
                f,
                "an answer from {url}, where member {member:x} of cluster {cluster:x} is: correct \
                 the address with 'revfs member update', or start the new member there"
            ),
            Self::NewDirectory { url, of } => {
                write!(f, "an empty data directory: {url} has come up with that of member {of:x}")
            }
            Self::NewerRelease { speaks, needed } => write!(
                f,
                "a newer release: it speaks cluster version {speaks}, the cluster is at {needed}"
            ),
            Self::Leader => f.write_str("the leader to let it in"),
            Self::FirstAnswer => f.write_str("its first acknowledgement"),
            Self::Log { behind } => write!(f, "the log: {behind} entries to go"),
            Self::Vote => f.write_str("its vote"),
            Self::Return { absence, is_stood_in: false } => absence.fmt(f),
            Self::Return { absence, is_stood_in: true } => {
                write!(f, "{absence}; a standby votes in its place")
            }
            Self::Promotion { id } => write!(f, "'revfs member promote {id:x}'"),
            Self::Failure => f.write_str("a voter to fail"),
            Self::Leave { there, of } => write!(
                f,
                "more than half of those who stay, to let it go: {there} of {of} are there"
            ),
        }
    }
}

/// What a member waits for; `None` if it is what it is to be.
pub(crate) fn waiting(seen: &Seen, member: &Member) -> Option<Waiting> {
    let id = member.id;
    if !seen.is_replica(id) {
        if member.joined {
            return Some(Waiting::Leader);
        }
        return Some(seen.waiting_for_arrival(member).err().unwrap_or(Waiting::Leader));
    }
    if id == seen.own {
        return None;
    }
    if !seen.is_there(id) {
        let Some(absence) = absence(seen, member) else { return Some(Waiting::FirstAnswer) };
        let stands_in = |other: &Member| other.role == MemberRole::Standby && seen.votes(other.id);
        let is_displaced = member.role == MemberRole::Voter && !seen.votes(id);
        let is_stood_in = is_displaced && seen.live().any(stands_in);
        return Some(Waiting::Return { absence, is_stood_in });
    }
    if seen.votes(id) {
        return (!seen.replicas.counted.contains(&id)).then_some(Waiting::Vote);
    }
    if !seen.keeps_up(id) {
        return Some(match seen.peers.get(&id).and_then(|peer| peer.lag) {
            None => Waiting::FirstAnswer,
            Some(behind) => Waiting::Log { behind },
        });
    }
    match member.role {
        MemberRole::Voter => Some(Waiting::Vote),
        MemberRole::Learner => Some(Waiting::Promotion { id }),
        MemberRole::Standby => Some(Waiting::Failure),
        MemberRole::ReadOnly => None,
    }
}

/// Why a replica is not there; `None` if nothing is known yet.
fn absence(seen: &Seen, member: &Member) -> Option<Absence> {
    let peer = seen.peers.get(&member.id)?;
    let (id, url) = (member.id, address_of(&member.peer_urls));
    let silent = |url| peer.silent_for.map(|since| Absence::Silent { url, since });
    match &peer.introduced {
        None => silent(url),
        Some(Err(reason)) => Some(Absence::Unreachable { url, reason: reason.clone() }),
        Some(Ok(Introduction { cluster, member: found, .. }))
            if (*cluster, *found) != (seen.cluster, id) =>
        {
            Some(Absence::Another { url, member: *found })
        }
        Some(Ok(found)) if member.instance.is_some_and(|known| known != found.instance) => {
            Some(Absence::LostData { id, url })
        }
        // It answers, but does not acknowledge yet.
        Some(Ok(_)) => silent(url),
    }
}

/// What a member that was removed waits for, which replication still knows.
pub(crate) fn waiting_to_leave(seen: &Seen, id: u64) -> Waiting {
    let stay = || seen.replicas.voters.iter().filter(|&&voter| voter != id);
    let there = stay().filter(|&&voter| seen.is_there(voter)).count();
    Waiting::Leave { there, of: stay().count() }
}
