//! Members as plain maps: who was ever there, and what is known of who still is.

use std::collections::{BTreeMap, BTreeSet};

use revfs_store::{
    Done, MEMBERS_MAX, Member, MemberChange, MemberRefusal, MemberRole, MemberRow, ReadView,
};

type Result<T> = std::result::Result<T, MemberRefusal>;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Members {
    version: u32,
    known: BTreeSet<u64>,
    forced: BTreeSet<u64>,
    live: BTreeMap<u64, Member>,
}

impl Default for Members {
    fn default() -> Self {
        Self { version: 1, known: BTreeSet::new(), forced: BTreeSet::new(), live: BTreeMap::new() }
    }
}

impl Members {
    /// What the store holds.
    pub(crate) fn of(view: &ReadView) -> Self {
        let rows = view.member_rows().unwrap();
        let known = rows.iter().map(|(id, _)| *id).collect();
        let forced = rows.iter().filter(|(_, row)| *row == MemberRow::RemovedByForce);
        let forced = forced.map(|(id, _)| *id).collect();
        let live = rows.into_iter().filter_map(|(id, row)| match row {
            MemberRow::Live(member) => Some((id, member)),
            MemberRow::Removed | MemberRow::RemovedByForce => None,
        });
        let version = view.cluster_version().unwrap();
        Self { version, known, forced, live: live.collect() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.known.len()
    }

    pub(super) fn change(&mut self, change: &MemberChange) -> Result<Done> {
        let before = (self.version, self.live.clone(), self.forced.clone());
        if let Err(refusal) = self.run(change) {
            (self.version, self.live, self.forced) = before;
            return Err(refusal);
        }
        self.known.extend(self.live.keys());
        let (version, live, forced) = &before;
        let changed = (self.version, &self.live, &self.forced) != (*version, live, forced);
        Ok(Done::MemberSet { changed })
    }

    fn get(&mut self, id: u64) -> Result<&mut Member> {
        let gone =
            if self.known.contains(&id) { MemberRefusal::Removed } else { MemberRefusal::NotFound };
        self.live.get_mut(&id).ok_or(gone)
    }

    fn check_room(&self) -> Result<()> {
        let max = MEMBERS_MAX;
        if self.live.len() < max { Ok(()) } else { Err(MemberRefusal::TooMany { max }) }
    }

    /// Two members have an address in common only if one takes the place of the other.
    fn check_addresses(&self) -> Result<()> {
        for (a, b) in self.live.values().flat_map(|a| self.live.values().map(move |b| (a, b))) {
            let is_replaced = a.replaces == Some(b.id) || b.replaces == Some(a.id);
            let shares = a.peer_urls.iter().any(|url| b.peer_urls.contains(url));
            if a.id != b.id && shares && !is_replaced {
                return Err(MemberRefusal::UrlExists);
            }
        }
        Ok(())
    }

    fn is_last_voter(&self, id: u64) -> bool {
        let mut voters = self.live.values().filter(|m| m.joined && m.role == MemberRole::Voter);
        voters.next().is_some_and(|first| first.id == id) && voters.next().is_none()
    }

    fn identify(&mut self, id: u64, instance: u128, version: u32) -> Result<()> {
        let needed = self.version;
        let other = self.live.values().find(|m| m.id != id && m.instance == Some(instance));
        let taken = other.map(|m| MemberRefusal::InstanceTaken { instance, of: m.id });
        let member = self.get(id)?;
        match member.instance {
            Some(known) if known != instance => {
                return Err(MemberRefusal::OtherInstance { id, known, found: instance });
            }
            _ => taken.map_or(Ok(()), Err)?,
        }
        if version < needed {
            return Err(MemberRefusal::VersionTooLow { found: version, needed });
        }
        (member.joined, member.instance, member.version) = (true, Some(instance), version);
        Ok(())
    }

    fn add(&mut self, member: Member) -> Result<()> {
        if member.id == 0 {
            return Err(MemberRefusal::IdZero);
        }
        if self.known.contains(&member.id) {
            return Err(MemberRefusal::IdExists);
        }
        self.check_room()?;
        if let Some(old) = member.replaces {
            self.get(old)?;
            if let Some(by) = self.live.values().find(|other| other.replaces == Some(old)) {
                return Err(MemberRefusal::ReplacedAlready { by: by.id });
            }
        }
        if member.peer_urls.is_empty() {
            return Err(MemberRefusal::UrlsInvalid);
        }
        self.live.insert(member.id, member);
        self.check_addresses()
    }

    fn raise(&mut self, version: u32) -> Result<()> {
        let mut joined = self.live.values().filter(|member| member.joined);
        match joined.find(|member| member.version < version) {
            Some(low) => {
                let (by, speaks) = (low.id, low.version);
                Err(MemberRefusal::VersionNotSpoken { version, by, speaks })
            }
            None => {
                self.version = version;
                Ok(())
            }
        }
    }

    fn run(&mut self, change: &MemberChange) -> Result<()> {
        match change.clone() {
            MemberChange::Add { id, role, replaces, peer_urls } => {
                self.add(Member { id, role, replaces, peer_urls, ..Member::default() })
            }
            MemberChange::Adopt { id: 0, .. } => Err(MemberRefusal::IdZero),
            MemberChange::Adopt { id, role, peer_urls } => {
                if !self.known.contains(&id) {
                    self.check_room()?;
                    let member = Member { id, role, joined: true, peer_urls, ..Member::default() };
                    self.live.insert(id, member);
                }
                Ok(())
            }
            MemberChange::RemoveByForce { id } if !self.live.contains_key(&id) => {
                if !self.known.contains(&id) {
                    return Err(MemberRefusal::NotFound);
                }
                self.forced.insert(id);
                Ok(())
            }
            MemberChange::RemoveByForce { id } => {
                self.run(&MemberChange::Remove { id })?;
                self.forced.insert(id);
                Ok(())
            }
            MemberChange::Remove { id } => {
                self.get(id)?;
                if self.is_last_voter(id) {
                    return Err(MemberRefusal::LastVoter);
                }
                self.live.remove(&id);
                Ok(())
            }
            MemberChange::SetUrls { id, peer_urls } => {
                self.get(id)?;
                if peer_urls.is_empty() {
                    return Err(MemberRefusal::UrlsInvalid);
                }
                self.get(id)?.peer_urls = peer_urls;
                self.check_addresses()
            }
            MemberChange::SetRole { id, role } => {
                let is_voter = self.get(id)?.role == MemberRole::Voter;
                if is_voter && role == MemberRole::Voter {
                    return Err(MemberRefusal::NotLearner);
                }
                if is_voter && self.is_last_voter(id) {
                    return Err(MemberRefusal::LastVoter);
                }
                self.get(id)?.role = role;
                Ok(())
            }
            MemberChange::Identify { id, instance, version } => {
                self.identify(id, instance, version)
            }
            MemberChange::Publish { id, instance, version, name, peer_urls, client_urls } => {
                self.identify(id, instance, version)?;
                let member = self.get(id)?;
                (member.name, member.client_urls) = (name, client_urls);
                if member.peer_urls.is_empty() {
                    member.peer_urls = peer_urls;
                }
                self.check_addresses()
            }
            MemberChange::RaiseVersion { version } if version <= self.version => Ok(()),
            MemberChange::RaiseVersion { version } => self.raise(version),
        }
    }
}
