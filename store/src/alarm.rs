//! Alarms: what a member has found out about its machine, as state of the whole cluster.
//!
//! A member measures outside apply and proposes to raise or lift its alarm; apply consults only what is
//! replicated, so that every member refuses alike. NOSPACE refuses whatever stores values, uploads and
//! new leases; reads, deletions and compaction go on, so that space can be made. CORRUPT refuses keys and
//! leases altogether, unless it is raised for members that more voters without it outnumber: those alone
//! serve nothing then, which is the business of their nodes. Users, roles and members may be changed all
//! the same. An alarm makes no revision.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::command::{Body, Done, Refusal};
use crate::error::StoreError;
use crate::member::{Member, MemberRole};
use crate::names::NewRow;
use crate::schema::{Tree, alarm_row, decode_alarm, encode_alarm};
use crate::txn::Stop;
use crate::types::{Op, Txn};
use crate::view::ReadView;

/// What is wrong with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    NoSpace,
    Corrupt,
}

impl AlarmKind {
    /// etcd's number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::NoSpace => 1,
            Self::Corrupt => 2,
        }
    }

    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        [Self::NoSpace, Self::Corrupt].into_iter().find(|kind| kind.number() == number)
    }
}

/// One alarm of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    pub member: u64,
    pub kind: AlarmKind,
}

/// Refuses what the raised alarms forbid, of a body without the request around it.
pub(crate) fn admit(view: &ReadView, body: &Body) -> Result<(), Stop> {
    if matches!(body, Body::Alarm { .. } | Body::Auth(_) | Body::Member(_) | Body::Check) {
        return Ok(());
    }
    let alarms = view.alarms()?;
    if corrupt_stops_all(view, &alarms)? {
        return Err(Refusal::Corrupt.into());
    }
    if alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace) && takes_space(body) {
        return Err(Refusal::NoSpace.into());
    }
    Ok(())
}

/// Whether NOSPACE refuses a body, of which the request around it is taken off.
#[must_use]
pub fn takes_space(body: &Body) -> bool {
    match body {
        Body::Txn(txn) => {
            let stored = stored(txn);
            stored.values || (stored.bare_keys && !stored.deletes)
        }
        // A part is room taken, whatever its operations do with the commit.
        Body::LeaseGrant { .. } | Body::UploadPart { .. } | Body::UploadCommit(_) => true,
        Body::Compact { .. }
        | Body::LeaseRevoke { .. }
        | Body::LeaseExpire { .. }
        | Body::LeaseCheckpoint { .. }
        | Body::Alarm { .. }
        | Body::Auth(_)
        | Body::Member(_)
        | Body::Check
        | Body::Request { .. } => false,
    }
}

/// Whether nobody may change keys and leases: somebody is corrupt who is no member, and so nobody knows
/// who is, or as many voters are corrupt as are not.
fn corrupt_stops_all(view: &ReadView, alarms: &[Alarm]) -> Result<bool, StoreError> {
    let corrupt = alarms.iter().filter(|alarm| alarm.kind == AlarmKind::Corrupt);
    let corrupt: BTreeSet<u64> = corrupt.map(|alarm| alarm.member).collect();
    if corrupt.is_empty() {
        return Ok(false);
    }
    let members = view.members()?;
    if corrupt.iter().any(|id| members.iter().all(|member| member.id != *id)) {
        return Ok(true);
    }
    let votes = |member: &&Member| member.joined && member.role == MemberRole::Voter;
    let (bad, good): (Vec<&Member>, Vec<&Member>) =
        members.iter().filter(votes).partition(|member| corrupt.contains(&member.id));
    Ok(!bad.is_empty() && bad.len() >= good.len())
}

/// What the operations of a transaction do, in either branch and at any depth.
#[derive(Default)]
struct Stored {
    values: bool,
    /// Puts keys without a value. Beside a deletion that is no reason to refuse: who deletes the last
    /// file of a directory says in the same breath that the directory stays.
    bare_keys: bool,
    deletes: bool,
}

fn stored(txn: &Txn) -> Stored {
    let mut all = Stored::default();
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Delete { .. } => all.deletes = true,
            Op::Range(_) => {}
            Op::Put { value, ignore_value: false, .. } if value.is_empty() => all.bare_keys = true,
            Op::Txn(nested) => {
                let nested = stored(nested);
                all.values |= nested.values;
                all.bare_keys |= nested.bare_keys;
                all.deletes |= nested.deletes;
            }
            _ => all.values = true,
        }
    }
    all
}

/// Raises or lifts an alarm; nothing changes if it is so already.
pub(crate) fn set(
    view: &ReadView,
    alarm: Alarm,
    is_raised: bool,
    rows: &mut Vec<NewRow>,
) -> Result<Done, Stop> {
    let changed = view.alarms()?.contains(&alarm) != is_raised;
    if changed {
        let row = alarm_row(alarm);
        let value = is_raised.then(|| Bytes::from(encode_alarm(&row)));
        rows.push((Tree::Alarms, Bytes::copy_from_slice(&row), value));
    }
    Ok(Done::AlarmSet { changed })
}

impl ReadView {
    /// The alarms that are raised now, by member.
    ///
    /// # Errors
    /// A closed store.
    pub fn alarms(&self) -> Result<Vec<Alarm>, StoreError> {
        let mut cursor = self.cursor(Tree::Alarms, &[0], None)?;
        let mut alarms = Vec::new();
        while let Some(row) = cursor.next().map_err(|e| self.lmdb(&e))? {
            alarms.push(decode_alarm(row.key(), row.value()).map_err(|e| self.row(&e))?);
        }
        Ok(alarms)
    }

    /// Whether CORRUPT keeps every member from changing keys and leases, not only those it is raised for.
    ///
    /// # Errors
    /// A closed store.
    pub fn corrupt_stops_all(&self) -> Result<bool, StoreError> {
        corrupt_stops_all(self, &self.alarms()?)
    }
}
