//! How a cluster begins: by one node alone, or by several that were told of each other.
//!
//! Founders need not talk to each other to agree: the numbers of the members and of the cluster follow
//! from the addresses and the token, which all of them were told alike, and so does the first entry of
//! the log. A founder first asks the others whether the cluster has begun without it: then it has lost
//! its data, or comes late, and waits to be brought up to date instead of beginning anew.

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::config::StartError;
use crate::data_dir::Identity;
use crate::peer::Peers;
use crate::raft::Raft;

/// Who begins a cluster. It matters only to a data directory that was never in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Founding {
    /// This node alone.
    #[default]
    Alone,
    /// Several nodes that are told the same, this one among them.
    Together(Founders),
    /// The cluster has begun, and this node was added to it.
    Invited(Invitation),
}

/// As whom a node was added to a cluster. It waits until the leader of that cluster lets it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invitation {
    pub cluster: u64,
    pub member: u64,
}

/// What founders are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founders {
    /// Keeps clusters apart that have the same addresses after each other.
    pub token: String,
    /// Where each member is found by the others: one URL at least.
    pub members: Vec<Vec<String>>,
    /// This node's place among them.
    pub own: usize,
}

impl Founders {
    /// The numbers of the members with their addresses, as the log keeps them.
    fn numbered(&self) -> Vec<(u64, String)> {
        let number = |urls: &Vec<String>| (number_of(urls, &self.token), urls.join(","));
        self.members.iter().map(number).collect()
    }

    pub(crate) fn cluster(&self) -> u64 {
        let mut members: Vec<String> =
            self.numbered().iter().map(|(id, _)| format!("{id:016x}")).collect();
        members.sort();
        number_of(&members, &self.token)
    }

    fn own_number(&self) -> Option<u64> {
        self.members.get(self.own).map(|urls| number_of(urls, &self.token))
    }
}

/// The first eight bytes of SHA-256 over the sorted texts and the token, each with its length; never 0.
fn number_of(texts: &[String], token: &str) -> u64 {
    let mut sorted: Vec<&str> = texts.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted.push(token);
    let mut hash = Sha256::new();
    for text in sorted {
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(text);
    }
    let digest = hash.finalize();
    let first = digest.first_chunk().expect("a digest has 32 bytes");
    u64::from_be_bytes(*first).max(1)
}

impl Founding {
    /// Who a new data directory belongs to.
    pub(crate) fn identity(&self) -> std::io::Result<Identity> {
        let random = Identity::random()?;
        Ok(match self {
            Self::Alone => random,
            Self::Together(founders) => Identity {
                cluster: founders.cluster(),
                member: founders.own_number().ok_or_else(|| {
                    std::io::Error::other("this node is not among the founders of its cluster")
                })?,
                instance: random.instance,
            },
            Self::Invited(Invitation { cluster, member }) => {
                Identity { cluster: *cluster, member: *member, instance: random.instance }
            }
        })
    }

    /// The numbers of the first members with their addresses; `own` is this one's.
    pub(crate) fn members(&self, own: u64) -> BTreeMap<u64, String> {
        match self {
            Self::Together(founders) => founders.numbered().into_iter().collect(),
            Self::Alone | Self::Invited(_) => BTreeMap::from([(own, String::new())]),
        }
    }

    /// Lets a node that has just started take part: a cluster that has not begun begins, and a member
    /// that is alone leads.
    pub(crate) async fn begin(
        &self,
        raft: &Raft,
        peers: &Peers,
        advertised: &[String],
        start_timeout: Duration,
    ) -> Result<(), StartError> {
        let is_new = !raft.is_initialised().await?;
        let own = peers.own().member;
        match self {
            Self::Together(founders) if is_new => {
                if has_begun(founders, peers).await {
                    tracing::info!(
                        "the cluster has begun already: this member waits to be brought up to date"
                    );
                } else {
                    raft.initialise(founders.numbered()).await?;
                }
            }
            Self::Invited(_) if is_new => {
                tracing::info!("this member waits until the leader of its cluster lets it in");
            }
            Self::Alone | Self::Together(_) | Self::Invited(_) => {
                if is_new {
                    raft.initialise([(own, advertised.join(","))]).await?;
                }
                if raft.decides_alone().await? {
                    raft.lead(start_timeout).await?;
                }
            }
        }
        Ok(())
    }
}

/// Whether one of the others belongs to this cluster, as its log says. Who does not answer says nothing.
async fn has_begun(founders: &Founders, peers: &Peers) -> bool {
    let own = peers.own();
    let numbered = founders.numbered();
    let others = numbered.iter().filter(|(id, _)| *id != own.member);
    let urls = others.flat_map(|(_, address)| address.split(','));
    let asked = urls.map(async |url| match peers.who_is_at(url, &[]).await {
        Ok(answer) => answer.is_initialised && answer.cluster == own.cluster,
        Err(error) => {
            tracing::debug!(%error, "another founder does not answer yet");
            false
        }
    });
    futures_util::future::join_all(asked).await.contains(&true)
}

#[cfg(test)]
mod tests {
    use super::{Founders, Founding};

    fn founders(own: usize, token: &str) -> Founders {
        let members = ["a", "b", "c"].map(|host| vec![format!("http://{host}:2380")]).into();
        Founders { token: token.to_owned(), members, own }
    }

    #[test]
    fn founders_agree_on_numbers_whatever_the_order() {
        let one = founders(0, "t");
        let mut other = one.clone();
        other.members.reverse();
        other.own = 2;
        let (one_id, other_id) = (
            Founding::Together(one.clone()).identity().unwrap(),
            Founding::Together(other.clone()).identity().unwrap(),
        );
        assert_eq!((one_id.cluster, one_id.member), (other_id.cluster, other_id.member));
        assert_ne!(one_id.instance, other_id.instance, "each data directory is another");
        let (mut left, mut right) = (one.numbered(), other.numbered());
        left.sort();
        right.sort();
        assert_eq!(left, right);
    }

    #[test]
    fn another_token_is_another_cluster() {
        let (one, other) = (founders(0, "t"), founders(0, "u"));
        assert_ne!(one.cluster(), other.cluster());
        assert_ne!(one.own_number(), other.own_number());
    }

    #[test]
    fn urls_of_one_member_are_no_two_members() {
        let one = Founders { members: vec![vec!["x".into(), "y".into()]], ..founders(0, "t") };
        let swapped = Founders { members: vec![vec!["y".into(), "x".into()]], ..founders(0, "t") };
        assert_eq!(one.own_number(), swapped.own_number());
        assert_ne!(one.own_number(), founders(0, "t").own_number());
        assert!(founders(3, "t").own_number().is_none());
    }
}
