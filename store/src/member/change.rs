//! The changes of the members' rows.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    MEMBER_TEXT_BYTES_MAX, MEMBER_URLS_MAX, MEMBERS_MAX, Member, MemberChange, MemberRefusal,
    MemberRole, MemberRow,
};
use crate::command::{Done, Refusal};
use crate::names::NewRow;
use crate::schema::{Tree, VERSION_ROW, alarm_row, encode_member, encode_version, member_row};
use crate::txn::Stop;
use crate::view::ReadView;

type Result<T> = std::result::Result<T, MemberRefusal>;

/// Makes a change; `rows` are added to only if it is not refused.
pub(crate) fn run(
    view: &ReadView,
    change: &MemberChange,
    rows: &mut Vec<NewRow>,
) -> std::result::Result<Done, Stop> {
    let members = Members { all: view.member_rows()?.into_iter().collect() };
    let version = view.cluster_version()?;
    let changed = match change {
        MemberChange::RaiseVersion { version: wanted } => {
            let raises = members.raises(version, *wanted).map_err(Refusal::Member)?;
            if raises {
                let row = Bytes::from_static(VERSION_ROW);
                rows.push((Tree::Counters, row, Some(encode_version(*wanted).into())));
            }
            raises
        }
        MemberChange::Remove { id } | MemberChange::RemoveByForce { id } => {
            let row = members.removed(change, *id).map_err(Refusal::Member)?;
            for alarm in view.alarms()?.into_iter().filter(|alarm| alarm.member == *id) {
                rows.push((Tree::Alarms, Bytes::copy_from_slice(&alarm_row(alarm)), None));
            }
            if let Some(row) = &row {
                put(*id, row, rows);
            }
            row.is_some()
        }
        other => {
            let after = members.changed(version, other).map_err(Refusal::Member)?;
            if let Some(member) = &after {
                put(member.id, &MemberRow::Live(member.clone()), rows);
            }
            after.is_some()
        }
    };
    Ok(Done::MemberSet { changed })
}

fn put(id: u64, row: &MemberRow, rows: &mut Vec<NewRow>) {
    let key = member_row(id);
    let value = encode_member(&key, row);
    rows.push((Tree::Members, Bytes::copy_from_slice(&key), Some(value.into())));
}

/// The rows before a change.
struct Members {
    all: BTreeMap<u64, MemberRow>,
}

fn check_urls(urls: &[String]) -> Result<()> {
    let is_valid = |url: &String| !url.is_empty() && url.len() <= MEMBER_TEXT_BYTES_MAX;
    let is_right = urls.len() <= MEMBER_URLS_MAX && urls.iter().all(is_valid);
    if is_right { Ok(()) } else { Err(MemberRefusal::UrlsInvalid) }
}

fn check_name(name: &str) -> Result<()> {
    let (bytes, max) = (name.len(), MEMBER_TEXT_BYTES_MAX);
    if bytes > max { Err(MemberRefusal::NameTooLong { bytes, max }) } else { Ok(()) }
}

impl Members {
    fn live(&self) -> impl Iterator<Item = &Member> {
        self.all.values().filter_map(MemberRow::live)
    }

    fn member(&self, id: u64) -> Result<&Member> {
        match self.all.get(&id) {
            None => Err(MemberRefusal::NotFound),
            Some(MemberRow::Removed | MemberRow::RemovedByForce) => Err(MemberRefusal::Removed),
            Some(MemberRow::Live(member)) => Ok(member),
        }
    }

    /// The member after a change; `None` if nothing changes.
    fn changed(&self, version: u32, change: &MemberChange) -> Result<Option<Member>> {
        match change {
            MemberChange::Add { id, role, replaces, peer_urls } => {
                self.add(*id, *role, *replaces, peer_urls).map(Some)
            }
            MemberChange::Adopt { id, role, peer_urls } => self.adopt(*id, *role, peer_urls),
            MemberChange::SetUrls { id, peer_urls } => self.set_urls(*id, peer_urls),
            MemberChange::SetRole { id, role } => self.set_role(*id, *role),
            MemberChange::Identify { id, instance, version: speaks } => {
                self.known(*id, *instance, *speaks, version).map(|after| self.unless_same(after))
            }
            MemberChange::Publish {
                id,
                instance,
                version: speaks,
                name,
                peer_urls,
                client_urls,
            } => {
                let mut after = self.known(*id, *instance, *speaks, version)?;
                check_name(name)?;
                check_urls(client_urls)?;
                if after.peer_urls.is_empty() && !peer_urls.is_empty() {
                    self.check_free(&after, peer_urls)?;
                    after.peer_urls.clone_from(peer_urls);
                }
                after.name.clone_from(name);
                after.client_urls.clone_from(client_urls);
                Ok(self.unless_same(after))
            }
            MemberChange::Remove { .. }
            | MemberChange::RemoveByForce { .. }
            | MemberChange::RaiseVersion { .. } => unreachable!("run makes these"),
        }
    }

    fn unless_same(&self, after: Member) -> Option<Member> {
        let before = self.all.get(&after.id).and_then(MemberRow::live);
        (before != Some(&after)).then_some(after)
    }

    /// Refuses URLs of another member, but for one that `own` replaces or is replaced by.
    fn check_free(&self, own: &Member, urls: &[String]) -> Result<()> {
        check_urls(urls)?;
        let is_other = |other: &&Member| {
            let is_its_place = own.replaces == Some(other.id) || other.replaces == Some(own.id);
            other.id != own.id && !is_its_place
        };
        let mut others = self.live().filter(is_other).flat_map(|other| &other.peer_urls);
        if others.any(|url| urls.contains(url)) { Err(MemberRefusal::UrlExists) } else { Ok(()) }
    }

    fn check_new(&self, id: u64) -> Result<()> {
        let max = MEMBERS_MAX;
        match id {
            0 => Err(MemberRefusal::IdZero),
            _ if self.all.contains_key(&id) => Err(MemberRefusal::IdExists),
            _ if self.live().count() >= max => Err(MemberRefusal::TooMany { max }),
            _ => Ok(()),
        }
    }

    fn add(
        &self,
        id: u64,
        role: MemberRole,
        replaces: Option<u64>,
        peer_urls: &[String],
    ) -> Result<Member> {
        self.check_new(id)?;
        if let Some(old) = replaces {
            self.member(old)?;
            if let Some(by) = self.live().find(|other| other.replaces == Some(old)) {
                return Err(MemberRefusal::ReplacedAlready { by: by.id });
            }
        }
        let peer_urls = peer_urls.to_vec();
        let member = Member { id, role, replaces, ..Member::default() };
        if peer_urls.is_empty() {
            return Err(MemberRefusal::UrlsInvalid);
        }
        self.check_free(&member, &peer_urls)?;
        Ok(Member { peer_urls, ..member })
    }

    fn adopt(&self, id: u64, role: MemberRole, peer_urls: &[String]) -> Result<Option<Member>> {
        match self.check_new(id) {
            Err(MemberRefusal::IdExists) => return Ok(None),
            checked => checked?,
        }
        check_urls(peer_urls)?;
        let peer_urls = peer_urls.to_vec();
        Ok(Some(Member { id, role, joined: true, peer_urls, ..Member::default() }))
    }

    fn set_urls(&self, id: u64, peer_urls: &[String]) -> Result<Option<Member>> {
        let member = self.member(id)?;
        if peer_urls.is_empty() {
            return Err(MemberRefusal::UrlsInvalid);
        }
        self.check_free(member, peer_urls)?;
        Ok(self.unless_same(Member { peer_urls: peer_urls.to_vec(), ..member.clone() }))
    }

    fn set_role(&self, id: u64, role: MemberRole) -> Result<Option<Member>> {
        let member = self.member(id)?;
        match (member.role, role) {
            (MemberRole::Voter, MemberRole::Voter) => Err(MemberRefusal::NotLearner),
            (MemberRole::Voter, _) => {
                self.check_voter_left(member)?;
                Ok(Some(Member { role, ..member.clone() }))
            }
            _ => Ok(self.unless_same(Member { role, ..member.clone() })),
        }
    }

    /// Refuses to do without the only voter.
    fn check_voter_left(&self, member: &Member) -> Result<()> {
        let votes = |member: &Member| member.joined && member.role == MemberRole::Voter;
        let others_vote = self.live().any(|other| other.id != member.id && votes(other));
        if votes(member) && !others_vote { Err(MemberRefusal::LastVoter) } else { Ok(()) }
    }

    /// The row of a member that is removed; `None` if it stays as it is.
    fn removed(&self, change: &MemberChange, id: u64) -> Result<Option<MemberRow>> {
        let is_forced = matches!(change, MemberChange::RemoveByForce { .. });
        match self.all.get(&id) {
            Some(MemberRow::Removed) if is_forced => Ok(Some(MemberRow::RemovedByForce)),
            Some(MemberRow::RemovedByForce) if is_forced => Ok(None),
            _ => {
                self.check_voter_left(self.member(id)?)?;
                Ok(Some(match is_forced {
                    true => MemberRow::RemovedByForce,
                    false => MemberRow::Removed,
                }))
            }
        }
    }

    /// A member as which this data directory is known from now on.
    fn known(&self, id: u64, instance: u128, speaks: u32, version: u32) -> Result<Member> {
        let member = self.member(id)?;
        if let Some(known) = member.instance.filter(|known| *known != instance) {
            return Err(MemberRefusal::OtherInstance { id, known, found: instance });
        }
        let is_taken = |other: &&Member| other.id != id && other.instance == Some(instance);
        if let Some(of) = self.live().find(is_taken) {
            return Err(MemberRefusal::InstanceTaken { instance, of: of.id });
        }
        if speaks < version {
            return Err(MemberRefusal::VersionTooLow { found: speaks, needed: version });
        }
        let instance = Some(instance);
        Ok(Member { joined: true, instance, version: speaks, ..member.clone() })
    }

    fn raises(&self, version: u32, wanted: u32) -> Result<bool> {
        if wanted <= version {
            return Ok(false);
        }
        // Who is pending is asked when it joins.
        let mut joined = self.live().filter(|member| member.joined);
        match joined.find(|member| member.version < wanted) {
            None => Ok(true),
            Some(Member { id: by, version: speaks, .. }) => {
                let (by, speaks) = (*by, *speaks);
                Err(MemberRefusal::VersionNotSpoken { version: wanted, by, speaks })
            }
        }
    }
}
