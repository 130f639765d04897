//! The kinds of a command, encoded: a number that says which, and its fields.

use super::{Body, Decoder, EncodeError, Encoder, tag};
use crate::alarm::{Alarm, AlarmKind};
use crate::codec::DecodeError;
use crate::schema::alarm_row;
use crate::types::{LeaseId, Revision};

impl Encoder {
    pub(super) fn body(&mut self, body: &Body) -> Result<(), EncodeError> {
        match body {
            Body::Txn(txn) => {
                self.0.u8(tag::BODY_TXN);
                self.txn(txn, 1)?;
            }
            Body::Compact { revision } => {
                self.0.u8(tag::BODY_COMPACT);
                self.0.u64(revision.0);
            }
            Body::LeaseGrant { id, ttl_seconds } => {
                self.0.u8(tag::BODY_LEASE_GRANT);
                self.0.i64(id.0);
                self.0.i64(*ttl_seconds);
            }
            Body::LeaseRevoke { id } => {
                self.0.u8(tag::BODY_LEASE_REVOKE);
                self.0.i64(id.0);
            }
            Body::LeaseExpire { id, term } => {
                self.0.u8(tag::BODY_LEASE_EXPIRE);
                self.0.i64(id.0);
                self.0.u64(*term);
            }
            Body::LeaseCheckpoint { term, remaining } => {
                self.0.u8(tag::BODY_LEASE_CHECKPOINT);
                self.0.u64(*term);
                self.count(remaining.len())?;
                for (id, seconds) in remaining {
                    self.0.i64(id.0);
                    self.0.i64(*seconds);
                }
            }
            Body::Alarm { alarm, is_raised } => {
                self.0.u8(tag::BODY_ALARM);
                self.0.raw(&alarm_row(*alarm));
                self.0.u8(u8::from(*is_raised));
            }
            Body::UploadPart { upload, part, ops } => self.upload_part(*upload, *part, ops)?,
            Body::UploadCommit(commit) => self.upload_commit(commit)?,
            Body::Auth(change) => self.auth(change)?,
            Body::Member(change) => self.member(change)?,
            Body::Check => self.0.u8(tag::BODY_CHECK),
            Body::Request { user, auth_revision, body } => {
                self.request(user, *auth_revision, body)?;
            }
        }
        Ok(())
    }
}

impl Decoder<'_> {
    /// The body of kind `tag`.
    pub(super) fn body(&mut self, tag: u8) -> Result<Body, DecodeError> {
        Ok(match tag {
            tag::BODY_TXN => Body::Txn(self.txn(1)?),
            tag::BODY_COMPACT => Body::Compact { revision: Revision(self.reader.u64("revision")?) },
            tag::BODY_LEASE_GRANT => Body::LeaseGrant {
                id: LeaseId(self.reader.i64("lease")?),
                ttl_seconds: self.reader.i64("ttl")?,
            },
            tag::BODY_LEASE_REVOKE => Body::LeaseRevoke { id: LeaseId(self.reader.i64("lease")?) },
            tag::BODY_LEASE_EXPIRE => Body::LeaseExpire {
                id: LeaseId(self.reader.i64("lease")?),
                term: self.reader.u64("term")?,
            },
            tag::BODY_LEASE_CHECKPOINT => Body::LeaseCheckpoint {
                term: self.reader.u64("term")?,
                remaining: self.remaining()?,
            },
            tag::BODY_ALARM => {
                let member = self.reader.u64("member")?;
                let kind = self.reader.u8("alarm")?;
                let Some(kind) = AlarmKind::of_number(kind) else {
                    return Err(self.unknown("alarm", kind));
                };
                let alarm = Alarm { member, kind };
                match self.reader.u8("state")? {
                    state @ (0 | 1) => Body::Alarm { alarm, is_raised: state == 1 },
                    other => return Err(self.unknown("state", other)),
                }
            }
            tag::BODY_UPLOAD_PART => self.upload_part()?,
            tag::BODY_AUTH => Body::Auth(self.auth()?),
            tag::BODY_REQUEST => self.request()?,
            tag::BODY_MEMBER => Body::Member(self.member()?),
            tag::BODY_CHECK => Body::Check,
            tag::BODY_UPLOAD_COMMIT => Body::UploadCommit(self.upload_commit()?),
            other => return Err(self.unknown("body", other)),
        })
    }
}
