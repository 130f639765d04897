//! `user.revfs.ttl`: a file that goes away unless it is renewed.
//!
//! Setting it puts the file on a lease of so many seconds, as one revision; setting the same number again
//! gives the lease its whole time anew, and writes nothing. When the lease ends the file is deleted as by
//! an unlink; its directory stays. Writing to the file leaves it on its lease. Removing the attribute
//! keeps the file.

use std::sync::Arc;

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{Compare, KeyValue, LeaseId, Op, Txn};

use crate::attributes::XattrSet;
use crate::commit::transaction::Site;
use crate::errno::errno;
use crate::filesystem::{Answer, Caller, Filesystem};
use crate::node::{Node, Place};
use crate::note::Operation;
use crate::path::DirectoryKey;
use crate::stored::StoredFile;

/// Attempts while others keep changing the file.
const ATTEMPTS_MAX: usize = 10;

const NO_LEASE: LeaseId = LeaseId(0);

/// What is to become of a file's lease.
#[derive(Clone, Copy)]
enum Wanted {
    Seconds(i64, XattrSet),
    None,
}

impl Filesystem {
    /// How long a file on this lease has left.
    ///
    /// # Errors
    /// ENODATA without a lease.
    pub(super) async fn remaining_seconds(&self, lease: LeaseId) -> Answer<Bytes> {
        if lease == NO_LEASE {
            return Err(Errno::ENODATA);
        }
        let state = self.within(self.keys.lease_time_to_live(lease, false)).await?;
        let state = state.ok_or(Errno::ENODATA)?;
        Ok(state.remaining_seconds.max(0).to_string().into())
    }

    /// Has a file go away in so many seconds, counted from now.
    ///
    /// # Errors
    /// EINVAL for what is no number of seconds above 0; EPERM for a directory; EROFS for the past.
    pub(super) async fn set_ttl(
        &self,
        caller: Caller,
        ino: u64,
        value: &[u8],
        how: XattrSet,
    ) -> Answer<()> {
        let text = std::str::from_utf8(value).map_err(|_| Errno::EINVAL)?;
        let seconds: i64 = text.trim_end().parse().map_err(|_| Errno::EINVAL)?;
        if seconds < 1 {
            return Err(Errno::EINVAL);
        }
        self.change_ttl(caller, ino, Wanted::Seconds(seconds, how)).await
    }

    /// Has a file stay.
    ///
    /// # Errors
    /// ENODATA without a lease; else as [`Self::set_ttl`].
    pub(super) async fn remove_ttl(&self, caller: Caller, ino: u64) -> Answer<()> {
        self.change_ttl(caller, ino, Wanted::None).await
    }

    async fn change_ttl(&self, caller: Caller, ino: u64, wanted: Wanted) -> Answer<()> {
        let node = self.nodes.get(ino).ok_or(Errno::ESTALE)?;
        match node.place() {
            Place::File { .. } => self.check_writable()?,
            Place::Directory { .. } => return Err(Errno::EPERM),
            Place::Detached { .. } => return Err(Errno::ESTALE),
            Place::PastFile { .. } | Place::Hidden(_) => return Err(Errno::EROFS),
        }
        self.commit(&node, caller.uid).await?;
        for _ in 0..ATTEMPTS_MAX {
            let stored = self.stored_of(&node).await?;
            let lease = self.lease_for(&stored.kv, wanted).await?;
            if lease == stored.kv.lease || self.attach(caller, &node, &stored, lease).await? {
                return Ok(());
            }
            if lease != NO_LEASE {
                // If it cannot be given back it ends by itself.
                self.within(self.keys.lease_revoke(lease)).await.ok();
            }
        }
        Err(Errno::EAGAIN)
    }

    /// The lease that the file is to have: its own, which is renewed, or a new one.
    async fn lease_for(&self, kv: &KeyValue, wanted: Wanted) -> Answer<LeaseId> {
        let (seconds, how) = match wanted {
            Wanted::Seconds(seconds, how) => (seconds, how),
            Wanted::None if kv.lease == NO_LEASE => return Err(Errno::ENODATA),
            Wanted::None => return Ok(NO_LEASE),
        };
        match how {
            XattrSet::Create if kv.lease != NO_LEASE => return Err(Errno::EEXIST),
            XattrSet::Replace if kv.lease == NO_LEASE => return Err(Errno::ENODATA),
            XattrSet::Create | XattrSet::Replace | XattrSet::CreateOrReplace => {}
        }
        if kv.lease != NO_LEASE {
            let state = self.within(self.keys.lease_time_to_live(kv.lease, false)).await?;
            if state.is_some_and(|state| state.granted_seconds == seconds)
                && self.within(self.keys.lease_keep_alive(kv.lease)).await?.is_some()
            {
                return Ok(kv.lease);
            }
        }
        Ok(self.within(self.keys.lease_grant(LeaseId(0), seconds)).await?.0)
    }

    /// Puts the file on a lease, or off all. False if it has changed since it was read.
    async fn attach(
        &self,
        caller: Caller,
        node: &Arc<Node>,
        stored: &StoredFile,
        lease: LeaseId,
    ) -> Answer<bool> {
        let kv = &stored.kv;
        let defaults = self.options.defaults();
        let site = Site { key: &kv.key, root: &self.options.root, defaults: &defaults };
        let mut success = vec![Op::Put {
            key: kv.key.clone(),
            value: Bytes::new(),
            lease,
            prev_kv: false,
            ignore_value: true,
            ignore_lease: false,
        }];
        if stored.record.is_some() {
            // A time that was set by hand holds as long as nothing was put after it.
            let bytes = usize::try_from(kv.value_bytes).map_err(|_| Errno::EFBIG)?;
            success.push(site.record_op(&stored.attributes, bytes));
        }
        // The directory must not go with its last file.
        success.extend(self.keep_directory(&DirectoryKey::of_key(&kv.key).0));
        let compares = vec![
            Compare::create_revision(kv.key.clone(), kv.create_revision),
            Compare::mod_revision(kv.key.clone(), kv.mod_revision),
        ];
        let note = vec![Operation::Attributes(kv.key.clone())];
        let txn = Txn { compares, success, failure: Vec::new() };
        let answer = self.propose(caller.uid, note, txn).await.map_err(|error| errno(&error))?;
        if answer.succeeded {
            node.file.lock().drop_content();
        }
        Ok(answer.succeeded)
    }
}
