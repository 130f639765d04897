//! Uploads: parts by their number, until a commit or the end of the lease.

use revfs_store::types::{LeaseId, Op, Txn};
use revfs_store::{Command, Done, Refusal, UploadCommit};

use super::form::form;
use super::{Reference, count};

impl Reference {
    pub(super) fn keep_part(
        &mut self,
        upload: LeaseId,
        part: u32,
        ops: &[Op],
    ) -> Result<Done, Refusal> {
        if !self.leases.contains_key(&upload.0) {
            return Err(Refusal::LeaseNotFound);
        }
        ops.iter().try_for_each(form)?;
        let parts = self.uploads.entry(upload.0).or_default();
        let held = parts.entry(part).or_insert_with(|| ops.to_vec());
        if held != ops {
            return Err(Refusal::UploadPartDiffers { part });
        }
        Ok(Done::UploadKept { parts: u32::try_from(parts.len()).unwrap() })
    }

    pub(super) fn commit_upload(
        &mut self,
        own: &UploadCommit,
        time: i64,
        command: &Command,
    ) -> Result<Done, Refusal> {
        let UploadCommit { upload, parts, compares, failure } = own;
        let Some(held) = self.uploads.get(&upload.0) else {
            return Err(Refusal::UploadNotFound { upload: *upload });
        };
        if let Some(part) = (0..*parts).find(|part| !held.contains_key(part)) {
            return Err(Refusal::UploadPartMissing { part, parts: *parts });
        }
        if let Some((&part, _)) = held.range(parts..).next() {
            return Err(Refusal::UploadPartUnexpected { part, parts: *parts });
        }
        let success = held.values().flatten().cloned().collect();
        let txn = Txn { compares: compares.clone(), success, failure: failure.clone() };
        let answer = self.txn(&txn, time, command)?;
        self.uploads.remove(&upload.0);
        Ok(Done::Txn(answer))
    }

    /// What a commit would run, if exactly its parts are there.
    pub(super) fn uploaded(&self, own: &UploadCommit) -> Option<Vec<Op>> {
        let held = self.uploads.get(&own.upload.0)?;
        let numbers: Vec<u32> = held.keys().copied().collect();
        let is_whole = numbers == (0..own.parts).collect::<Vec<_>>();
        is_whole.then(|| held.values().flatten().cloned().collect())
    }

    /// The uploads under way and how many parts each has.
    pub(crate) fn uploads(&self) -> Vec<(LeaseId, u64)> {
        self.uploads.iter().map(|(&id, parts)| (LeaseId(id), count(parts.len()))).collect()
    }
}
