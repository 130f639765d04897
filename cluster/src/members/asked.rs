//! What services ask of the node about members: who there is and what each waits for, and the changes that
//! an operator may ask for. What only the leader sees, the leader is asked for.

use std::time::Duration;

use revfs_api::keyspace::{Error, Origin, Result};
use revfs_api::status;
use revfs_api::wire::peer::{MembersRequest, SeenMember};
use revfs_store::{Body, Done, Member, MemberChange, MemberRole, Need};
use tokio::time::Instant;

use super::decision::address_of;
use super::reconciler::adoptions;
use crate::convert;
use crate::local::Local;
use crate::proposal::Proposer;

/// A change is carried out by the leader's next steps; who asked for it waits so long to see it.
const CARRIED_OUT_WITHIN: Duration = Duration::from_secs(3);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// A member as it is shown.
#[derive(Clone, Debug)]
pub struct Listed {
    pub member: Member,
    /// Its vote counts, and does so if the leader is lost now: the change that let it vote has ended.
    pub votes: bool,
    /// Replication knows it: it has come up, or was there from the start.
    pub is_replica: bool,
    pub leads: bool,
    /// It was removed, and has its place until enough others agree.
    pub is_leaving: bool,
    /// What only the leader sees; `None` if it was not asked, or does not know it.
    pub seen: Option<SeenMember>,
}

impl Listed {
    /// It has answered the leader just now; false if the leader did not say.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.is_there)
    }

    /// In words; `None` if it waits for nothing, or the leader did not say.
    #[must_use]
    pub fn waits_for(&self) -> Option<&str> {
        let words = self.seen.as_ref().map(|seen| &seen.waits_for[..]);
        words.filter(|words| !words.is_empty())
    }
}

/// What an operator adds.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// `None`: that of whom it replaces, or a voter.
    pub role: Option<MemberRole>,
    pub replaces: Option<u64>,
    pub peer_urls: Vec<String>,
}

/// What it means that a voter goes by force.
fn forced_words(there: usize, of: usize) -> String {
    format!(
        "{there} of the {of} voters that stay are there: nothing is acknowledged until more than half of them \
         are; if one that is there is lost before, what the absent ones have missed may be lost with it"
    )
}

/// What the leader sees of the others, wherever it is.
async fn seen_by_leader(proposer: &Proposer, node: &Local) -> Result<Vec<SeenMember>> {
    let no_leader = |reason: String| Error::NoQuorum { reason };
    match proposer.leader_elsewhere() {
        None => {
            let seen = node.node.members.seen()?;
            seen.ok_or_else(|| no_leader("no member leads".to_owned()))
        }
        Some(link) => {
            let asked = async {
                let mut client = link.client().await?;
                let answer = client.members(MembersRequest {}).await;
                answer.map_err(|status| link.failed(status))
            };
            match tokio::time::timeout(proposer.timeout, asked).await {
                Ok(Ok(answer)) => Ok(answer.into_inner().members),
                Ok(Err(error)) => Err(no_leader(error.to_string())),
                Err(_) => Err(Error::Timeout(proposer.timeout)),
            }
        }
    }
}

impl Local {
    /// The members of the cluster as this node knows them; as of a moment after the call if `confirmed`.
    ///
    /// # Errors
    /// Who may not ask, or no quorum that confirms.
    pub async fn members(&self, confirmed: bool) -> Result<Vec<Listed>> {
        self.require(Need::User)?;
        if confirmed {
            self.node.read_barrier.pass().await?;
        }
        let view = self.view()?;
        let rows = view.member_rows().map_err(convert::store_error)?;
        let replication = self.node.proposer.raft.replication();
        let leader = self.node.proposer.raft.status().leader;
        let listed = |member: Member| Listed {
            votes: replication.counted.contains(&member.id),
            is_replica: replication.addresses.contains_key(&member.id),
            leads: leader == Some(member.id),
            is_leaving: false,
            seen: None,
            member,
        };
        let mut all = view.members().map_err(convert::store_error)?;
        // Founders whose rows the first leader is about to write.
        for (id, address) in &replication.addresses {
            if !rows.iter().any(|(known, _)| known == id) {
                let urls = address.split(',').filter(|url| !url.is_empty());
                let peer_urls = urls.map(str::to_owned).collect();
                all.push(Member { id: *id, joined: true, peer_urls, ..Member::default() });
            }
        }
        all.sort_by_key(|member| member.id);
        Ok(all.into_iter().map(listed).collect())
    }

    /// The same with what each waits for, and with those that were removed and are not gone yet.
    ///
    /// # Errors
    /// Who may not ask, or no leader that tells.
    pub async fn members_in_detail(&self) -> Result<Vec<Listed>> {
        let mut listed = self.members(true).await?;
        let seen = seen_by_leader(&self.node.proposer, self).await?;
        let replication = self.node.proposer.raft.replication();
        for seen in seen {
            let id = seen.member;
            let address = replication.addresses.get(&id);
            if let Some(one) = listed.iter_mut().find(|one| one.member.id == id) {
                one.seen = Some(seen);
            } else if let Some(address) = address {
                let peer_urls = address.split(',').map(str::to_owned).collect();
                listed.push(Listed {
                    member: Member { id, joined: true, peer_urls, ..Member::default() },
                    votes: replication.counted.contains(&id),
                    is_replica: true,
                    leads: false,
                    is_leaving: true,
                    seen: Some(seen),
                });
            }
        }
        Ok(listed)
    }

    /// Whom replication knows has a row before anything is changed that may concern it.
    async fn adopt(&self) -> Result<()> {
        let rows = self.view()?.member_rows().map_err(convert::store_error)?;
        let replication = self.node.proposer.raft.replication();
        for change in adoptions(&replication, &rows) {
            self.node
                .members
                .change_rows(change)
                .await
                .map_err(|reason| Error::NoQuorum { reason })?;
        }
        Ok(())
    }

    async fn change_members(&self, change: MemberChange) -> Result<()> {
        let outcome = self.propose(Origin::default(), Body::Member(change)).await?;
        match outcome.result.map_err(convert::refusal)? {
            Done::MemberSet { .. } => Ok(()),
            other => Err(convert::unexpected(&other)),
        }
    }

    /// Adds a member, pending; its number.
    ///
    /// # Errors
    /// Who may not ask; numbers, addresses or roles that do not fit; an outcome that is not known.
    pub async fn member_add(&self, new: NewMember) -> Result<u64> {
        self.require(Need::Root)?;
        self.adopt().await?;
        let members = self.view()?.members().map_err(convert::store_error)?;
        let replaced = new.replaces.and_then(|old| members.iter().find(|own| own.id == old));
        let role = new.role.or(replaced.map(|old| old.role)).unwrap_or_default();
        // Who is replaced makes room.
        let others = members.iter().filter(|own| Some(own.id) != new.replaces);
        self.check_learners(role, others)?;
        let mut peer_urls = new.peer_urls;
        peer_urls.sort();
        peer_urls.dedup();
        let id =
            getrandom::u64().map_err(|error| Error::Unavailable { reason: error.to_string() })?;
        let id = id.max(1);
        let replaces = new.replaces;
        self.change_members(MemberChange::Add { id, role, replaces, peer_urls }).await?;
        Ok(id)
    }

    /// Adds a member that takes the place and the role of another once it has caught up; its number. The old
    /// one need not be there, and may have been at the same address.
    ///
    /// # Errors
    /// Who may not ask; no such member, or one that is replaced already; another's address; an outcome that
    /// is not known.
    pub async fn member_replace(&self, old: u64, peer_urls: Vec<String>) -> Result<u64> {
        self.member_add(NewMember { role: None, replaces: Some(old), peer_urls }).await
    }

    fn check_learners<'m>(
        &self,
        role: MemberRole,
        others: impl Iterator<Item = &'m Member>,
    ) -> Result<()> {
        let learners = others.filter(|other| other.role == MemberRole::Learner).count();
        if role == MemberRole::Learner && learners >= self.node.members.learners_max {
            return Err(Error::Invalid(status::TOO_MANY_LEARNERS.to_owned()));
        }
        Ok(())
    }

    /// How many of the voters that would stay without one are there, and how many there are.
    async fn who_stays_without(&self, id: u64) -> Result<(usize, usize)> {
        let voters = self.node.proposer.raft.replication().voters;
        let seen = seen_by_leader(&self.node.proposer, self).await?;
        let is_there = |voter: &u64| seen.iter().any(|s| s.member == *voter && s.is_there);
        let stay = || voters.iter().filter(|&&voter| voter != id);
        Ok((stay().filter(|voter| is_there(voter)).count(), stay().count()))
    }

    /// Removes a member, and waits a little until it replicates no more. Unless `force`d, whoever votes
    /// stays as long as too few of the others are there; with it the answer says what that means, if so.
    ///
    /// # Errors
    /// Who may not ask; no such member; too few others; an outcome that is not known.
    pub async fn member_remove(&self, id: u64, force: bool) -> Result<Option<String>> {
        self.require(Need::Root)?;
        self.adopt().await?;
        let raft = &self.node.proposer.raft;
        let mut warning = None;
        if raft.replication().voters.contains(&id) {
            let (there, of) = self.who_stays_without(id).await?;
            let are_enough = there > of / 2;
            if !are_enough && !force {
                return Err(Error::Invalid(status::TOO_FEW_STARTED.to_owned()));
            }
            warning = (!are_enough).then(|| forced_words(there, of));
        }
        self.change_members(match force {
            true => MemberChange::RemoveByForce { id },
            false => MemberChange::Remove { id },
        })
        .await?;
        self.wait_until(|| !raft.replication().addresses.contains_key(&id)).await;
        Ok(warning)
    }

    /// Changes where the other members find one.
    ///
    /// # Errors
    /// Who may not ask; no such member; another's address; an outcome that is not known.
    pub async fn member_set_urls(&self, id: u64, peer_urls: Vec<String>) -> Result<()> {
        self.require(Need::Root)?;
        self.adopt().await?;
        let address = address_of(&peer_urls);
        self.change_members(MemberChange::SetUrls { id, peer_urls }).await?;
        let raft = &self.node.proposer.raft;
        self.wait_until(|| {
            raft.replication().addresses.get(&id).is_none_or(|known| *known == address)
        })
        .await;
        Ok(())
    }

    /// Changes what is wanted of a member. One that is to vote must be near to the leader.
    ///
    /// # Errors
    /// Who may not ask; no such member; one that lags; an outcome that is not known.
    pub async fn member_set_role(&self, id: u64, role: MemberRole) -> Result<()> {
        self.require(Need::Root)?;
        self.adopt().await?;
        let members = self.view()?.members().map_err(convert::store_error)?;
        self.check_learners(role, members.iter().filter(|own| own.id != id))?;
        let is_learner = members.iter().any(|own| own.id == id && own.role != MemberRole::Voter);
        if role == MemberRole::Voter && is_learner {
            let seen = seen_by_leader(&self.node.proposer, self).await?;
            if !seen.iter().any(|seen| seen.member == id && seen.keeps_up) {
                return Err(Error::Invalid(status::NOT_IN_SYNC.to_owned()));
            }
        }
        self.change_members(MemberChange::SetRole { id, role }).await?;
        let raft = &self.node.proposer.raft;
        let votes = role == MemberRole::Voter;
        self.wait_until(|| raft.replication().counted.contains(&id) == votes).await;
        Ok(())
    }

    /// The change is made; whether it is seen in time does not change that.
    async fn wait_until(&self, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + CARRIED_OUT_WITHIN;
        while !is_so() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tells the cluster how this member is called and where clients find it.
    pub(crate) fn present(&self, name: String, client_urls: Vec<String>) {
        self.node.members.present(|presence| presence.clients = Some((name, client_urls)));
    }
}
