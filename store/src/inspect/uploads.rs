//! The invariant of uploads: an upload has a lease, and says how much its parts hold.

use super::Inspector;
use super::invariants::{Judge, Report};
use crate::backup::OnProgress;
use crate::error::OpenError;
use crate::schema::{
    Tree, UploadState, decode_upload, decode_upload_ops, decode_upload_part, split_upload_row,
    upload_row,
};
use crate::types::LeaseId;

/// An upload whose parts are being counted.
struct Counted {
    upload: LeaseId,
    /// What its own row says; `None` if that cannot be read, which was reported.
    said: Option<UploadState>,
    found: UploadState,
}

impl Counted {
    fn settle(self, judge: &mut Judge<'_>) {
        let Self { upload, said, found } = self;
        if said.is_some_and(|said| said != found) {
            judge.wrong(&upload_row(upload), format!("its parts add up to {found:?}"));
        }
    }
}

impl Inspector {
    pub(super) fn check_uploads(
        &self,
        progress: OnProgress<'_>,
        report: Report<'_>,
    ) -> Result<(), OpenError> {
        let mut counted: Option<Counted> = None;
        self.walk(Tree::Uploads, progress, &mut *report, |judge, row, value| {
            let Some((upload, part)) = judge.read(split_upload_row(row)) else { return Ok(()) };
            if part.is_none() {
                if let Some(before) = counted.take() {
                    before.settle(judge);
                }
                if self.get(Tree::Leases, &upload_row(upload))?.is_none() {
                    judge.wrong(row, "its lease does not exist");
                }
                let said = judge.read(decode_upload(row, value));
                counted = Some(Counted { upload, said, found: UploadState::default() });
                return Ok(());
            }
            let ops = judge.read(decode_upload_ops(row, value));
            match counted.as_mut().filter(|counted| counted.upload == upload) {
                None => judge.wrong(row, "nothing counts the parts of this upload"),
                Some(counted) => match (ops, decode_upload_part(row, value)) {
                    (Some(ops), Ok(bytes)) => counted.found.add_part(&ops, bytes.len()),
                    // Reported; what it held is not known.
                    _ => counted.said = None,
                },
            }
            Ok(())
        })?;
        if let Some(last) = counted {
            last.settle(&mut Judge { tree: Tree::Uploads, report });
        }
        Ok(())
    }
}
