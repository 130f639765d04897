//! What a request needs, and whether the user who asks may have it.
//!
//! A transaction needs what both of its branches need, at every depth, whichever would run: so that a
//! user learns nothing of what holds by being refused or not.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::AuthRefusal;
use super::state::Who;
use crate::command::{Body, Refusal};
use crate::error::ReadError;
use crate::schema::Want;
use crate::txn::Stop;
use crate::types::{KeyRange, LeaseId, Op, Revision, TXN_ROWS_MAX, Txn};
use crate::upload;
use crate::view::ReadView;

/// What a read needs.
#[derive(Clone, Copy, Debug)]
pub enum Need<'n> {
    /// To be logged in.
    User,
    /// READ on all keys of an interval: for their values, history, changes or watching them.
    Read(&'n KeyRange),
    /// WRITE on all keys of an interval.
    Write(&'n KeyRange),
    /// READ on all keys of a lease: to be told of them.
    ReadLease(LeaseId),
    /// WRITE on all keys of a lease: to prolong or revoke it.
    WriteLease(LeaseId),
    /// To be that user, or root.
    UserOf(&'n str),
    /// To have that role, or root.
    RoleOf(&'n str),
    Root,
}

/// Refuses a client's request for want of permission.
pub(crate) fn admit(
    view: &ReadView,
    user: &str,
    auth_revision: u64,
    body: &Body,
) -> Result<(), Stop> {
    match view.auth().who(user, auth_revision)? {
        Who::Anything => Ok(()),
        who => Asking { view, who }.body(body),
    }
}

impl ReadView {
    /// Whether `user` may have `need`, as of the auth revision at which it was found out that it is
    /// this user who asks. What is answered from this view is authorised by this view.
    ///
    /// # Errors
    /// [`ReadError::Refused`] with the reason, or a closed store.
    pub fn authorise(
        &self,
        user: &str,
        auth_revision: u64,
        need: Need<'_>,
    ) -> Result<(), ReadError> {
        let refused = |refusal| ReadError::Refused(Refusal::Auth(refusal));
        let who = self.auth().who(user, auth_revision).map_err(refused)?;
        match (Asking { view: self, who }).need(need) {
            Ok(()) => Ok(()),
            Err(Stop::Refused(refusal)) => Err(ReadError::Refused(refusal)),
            Err(Stop::Failed(error)) => Err(error.into()),
        }
    }
}

fn allow(is_allowed: bool) -> Result<(), Stop> {
    if is_allowed { Ok(()) } else { Err(Refusal::Auth(AuthRefusal::PermissionDenied).into()) }
}

/// The keys of an operation that takes a key, or a directory by its prefix.
fn keys_of(name: &Bytes) -> KeyRange {
    if name.ends_with(b"/") { KeyRange::prefix(name) } else { KeyRange::Key(name.clone()) }
}

/// A user who asks for something.
struct Asking<'v> {
    view: &'v ReadView,
    who: Who<'v>,
}

impl Asking<'_> {
    fn need(&self, need: Need<'_>) -> Result<(), Stop> {
        let Who::User(user, _) = self.who else { return Ok(()) };
        match need {
            Need::User => Ok(()),
            Need::Read(range) => self.read(range),
            Need::Write(range) => self.write(range),
            Need::ReadLease(id) => self.each_key(id, Self::read),
            Need::WriteLease(id) => self.each_key(id, Self::write),
            Need::UserOf(name) => allow(user.name == name),
            Need::RoleOf(name) => allow(user.has_role(name)),
            Need::Root => allow(false),
        }
    }

    fn read(&self, range: &KeyRange) -> Result<(), Stop> {
        match self.who {
            Who::Anything => Ok(()),
            Who::User(_, allowed) => allow(allowed.read.cover(range)),
        }
    }

    fn write(&self, range: &KeyRange) -> Result<(), Stop> {
        match self.who {
            Who::Anything => Ok(()),
            Who::User(_, allowed) => allow(allowed.write.cover(range)),
        }
    }

    fn both(&self, range: &KeyRange) -> Result<(), Stop> {
        self.read(range)?;
        self.write(range)
    }

    /// The keys that hang on a lease; none if it does not exist.
    fn each_key(
        &self,
        lease: LeaseId,
        need: fn(&Self, &KeyRange) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let keys = self.view.lease_keys(lease)?;
        keys.into_iter().try_for_each(|key| need(self, &KeyRange::Key(key)))
    }

    fn body(&self, body: &Body) -> Result<(), Stop> {
        match body {
            Body::Txn(txn) => self.txn(txn),
            Body::LeaseGrant { .. } => Ok(()),
            Body::LeaseRevoke { id } => self.each_key(*id, Self::write),
            Body::UploadPart { upload, ops, .. } => {
                self.each_key(*upload, Self::write)?;
                self.ops(ops)
            }
            Body::UploadCommit(commit) => {
                self.each_key(commit.upload, Self::write)?;
                commit.compares.iter().try_for_each(|compare| self.read(&compare.range))?;
                self.ops(&commit.failure)?;
                match upload::gather(self.view, commit.upload, commit.parts) {
                    Ok(ops) => self.ops(&ops),
                    // Nothing will run: the upload itself says why.
                    Err(Stop::Refused(_)) => Ok(()),
                    Err(failed) => Err(failed),
                }
            }
            // The leader's own, and root's.
            Body::Compact { .. }
            | Body::LeaseExpire { .. }
            | Body::LeaseCheckpoint { .. }
            | Body::Alarm { .. }
            | Body::Auth(_)
            | Body::Member(_)
            | Body::Check
            | Body::Request { .. } => allow(false),
        }
    }

    fn txn(&self, txn: &Txn) -> Result<(), Stop> {
        txn.compares.iter().try_for_each(|compare| self.read(&compare.range))?;
        self.ops(&txn.success)?;
        self.ops(&txn.failure)
    }

    fn ops(&self, ops: &[Op]) -> Result<(), Stop> {
        ops.iter().try_for_each(|op| self.op(op))
    }

    fn op(&self, op: &Op) -> Result<(), Stop> {
        match op {
            Op::Put { key, lease, prev_kv, ignore_lease, .. } => {
                let key = KeyRange::Key(key.clone());
                self.write(&key)?;
                if *prev_kv {
                    self.read(&key)?;
                }
                if *lease == LeaseId::NONE || *ignore_lease {
                    return Ok(());
                }
                // Whose keys end with the lease, and who may end it, is not for others to change.
                self.each_key(*lease, Self::write)
            }
            Op::Delete { range, prev_kv } => {
                self.write(range)?;
                if *prev_kv { self.read(range) } else { Ok(()) }
            }
            Op::Range(query) => self.read(&query.range),
            Op::Txn(nested) => self.txn(nested),
            // The answer says how long the value was.
            Op::Append { key, .. } => self.both(&KeyRange::Key(key.clone())),
            Op::Move { from, to } => {
                self.both(&KeyRange::prefix(from))?;
                self.write(&KeyRange::prefix(to))
            }
            Op::MoveKey { from, to } => {
                self.both(&KeyRange::Key(from.clone()))?;
                self.write(&KeyRange::Key(to.clone()))
            }
            Op::Exchange { a, b } => {
                self.both(&keys_of(a))?;
                self.both(&keys_of(b))
            }
            Op::Restore { range, revision } => {
                self.both(range)?;
                self.restored_leases(range, *revision)
            }
        }
    }

    /// A key that is restored hangs on its lease of then, if that still exists, as if it was put with it.
    fn restored_leases(&self, range: &KeyRange, revision: Revision) -> Result<(), Stop> {
        let Ok(at) = self.view.resolve(revision) else { return Ok(()) };
        let (mut leases, mut looked_at) = (BTreeSet::new(), 0);
        self.view.scan(range, at, Want::Header, |version| {
            leases.insert(version.kv.lease);
            looked_at += 1;
            // So many are not restored either.
            if looked_at > TXN_ROWS_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        leases.remove(&LeaseId::NONE);
        leases.into_iter().try_for_each(|lease| self.each_key(lease, Self::write))
    }
}

impl From<AuthRefusal> for Stop {
    fn from(refusal: AuthRefusal) -> Self {
        Refusal::Auth(refusal).into()
    }
}
