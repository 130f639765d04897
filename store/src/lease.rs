//! Leases: what is granted, what hangs on it, and how it ends.
//!
//! The store knows how long a lease was granted for and which keys it holds, not when it ends: that is
//! measured by the clock of the leader, which proposes an *expiry*. Expiries and checkpoints name the
//! term of that leader, and count only in a log entry of the same term: a later leader begins by giving
//! every lease new time, and nothing that an earlier one decided may take it away. The term of an entry
//! is part of the log, so every member judges alike.
//!
//! Keep-alive needs no command: it moves a deadline that only the leader has.

use bytes::Bytes;

use crate::command::{Body, Done, Refusal};
use crate::error::StoreError;
use crate::names::NewRow;
use crate::schema::{Tree, Want, decode_attachment, decode_lease, encode_lease, lease_row};
use crate::txn::{Changes, Stop};
use crate::types::{Lease, LeaseId};
use crate::upload;
use crate::view::ReadView;

/// Runs a command of leases in an entry of `term`.
pub(crate) fn run(
    view: &ReadView,
    changes: &mut Changes<'_>,
    term: u64,
    body: &Body,
    rows: &mut Vec<NewRow>,
) -> Result<Done, Stop> {
    match body {
        Body::LeaseGrant { id, ttl_seconds } => grant(view, *id, *ttl_seconds, rows),
        Body::LeaseRevoke { id } => revoke(view, changes, *id, rows),
        Body::LeaseExpire { id, term: decided } => {
            check_term(*decided, term)?;
            revoke(view, changes, *id, rows)
        }
        Body::LeaseCheckpoint { term: decided, remaining } => {
            check_term(*decided, term)?;
            checkpoint(view, remaining, rows)
        }
        _ => unreachable!("apply gives the commands of leases"),
    }
}

fn check_term(decided: u64, entry: u64) -> Result<(), Refusal> {
    if decided == entry { Ok(()) } else { Err(Refusal::OtherTerm { decided, entry }) }
}

fn row_of(lease: &Lease) -> NewRow {
    let row = lease_row(lease.id);
    let value = encode_lease(&row, lease);
    (Tree::Leases, Bytes::copy_from_slice(&row), Some(value.into()))
}

fn grant(
    view: &ReadView,
    id: LeaseId,
    ttl_seconds: i64,
    rows: &mut Vec<NewRow>,
) -> Result<Done, Stop> {
    if id == LeaseId::NONE {
        return Err(Refusal::LeaseIdZero.into());
    }
    if view.lease(id)?.is_some() {
        return Err(Refusal::LeaseExists.into());
    }
    rows.push(row_of(&Lease { id, ttl_seconds, remaining_seconds: 0 }));
    Ok(Done::LeaseGranted { id, ttl_seconds })
}

fn revoke(
    view: &ReadView,
    changes: &mut Changes<'_>,
    id: LeaseId,
    rows: &mut Vec<NewRow>,
) -> Result<Done, Stop> {
    if view.lease(id)?.is_none() {
        return Err(Refusal::LeaseNotFound.into());
    }
    let keys = view.lease_keys(id)?;
    for key in &keys {
        let version = view.version_at(key, view.current(), Want::Header)?;
        let Some(version) = version.filter(|version| !version.tombstone) else {
            let key = key.escape_ascii();
            let reason = format!("key \"{key}\" of lease {} does not exist", id.0);
            return Err(view.fault().close(&reason).into());
        };
        changes.delete_unbounded(&version.kv);
    }
    upload::remove(view, id, rows)?;
    rows.push((Tree::Leases, Bytes::copy_from_slice(&lease_row(id)), None));
    Ok(Done::LeaseRevoked { deleted: u64::try_from(keys.len()).unwrap_or(u64::MAX) })
}

fn checkpoint(
    view: &ReadView,
    remaining: &[(LeaseId, i64)],
    rows: &mut Vec<NewRow>,
) -> Result<Done, Stop> {
    let mut leases = 0;
    for (id, seconds) in remaining {
        if let Some(lease) = view.lease(*id)? {
            rows.push(row_of(&Lease { remaining_seconds: *seconds, ..lease }));
            leases += 1;
        }
    }
    Ok(Done::LeasesNoted { leases })
}

/// Leases have no history: these answer what holds now, whatever the view's revision.
impl ReadView {
    /// # Errors
    /// A closed store.
    pub fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        let row = lease_row(id);
        let Some(found) = self.get_row(Tree::Leases, &row)? else { return Ok(None) };
        decode_lease(&row, found.value()).map(Some).map_err(|e| self.row(&e))
    }

    /// At most `limit` leases by their number, those above `after`.
    ///
    /// # Errors
    /// A closed store.
    pub fn leases(&self, after: Option<LeaseId>, limit: usize) -> Result<Vec<Lease>, StoreError> {
        // Ids have no gaps: what follows one is the next number, if there is one.
        let from = match after {
            None => LeaseId(i64::MIN),
            Some(LeaseId(i64::MAX)) => return Ok(Vec::new()),
            Some(LeaseId(id)) => LeaseId(id + 1),
        };
        let from = lease_row(from);
        let mut cursor = self.cursor(Tree::Leases, &from, None)?;
        let mut leases = Vec::new();
        while leases.len() < limit
            && let Some(row) = cursor.next().map_err(|e| self.lmdb(&e))?
        {
            leases.push(decode_lease(row.key(), row.value()).map_err(|e| self.row(&e))?);
        }
        Ok(leases)
    }

    /// The keys of a lease, sorted.
    ///
    /// # Errors
    /// A closed store.
    pub fn lease_keys(&self, id: LeaseId) -> Result<Vec<Bytes>, StoreError> {
        let from = lease_row(id);
        let end = u64::from_be_bytes(from).checked_add(1).map(|end| end.to_be_bytes().to_vec());
        let mut cursor = self.cursor(Tree::Attachments, &from, end)?;
        let mut keys = Vec::new();
        while let Some(row) = cursor.next().map_err(|e| self.lmdb(&e))? {
            keys.push(decode_attachment(row.key(), row.value()).map_err(|e| self.row(&e))?);
        }
        Ok(keys)
    }
}
