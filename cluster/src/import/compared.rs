//! Compares what was imported with the file, row by row: what each key was at each revision.

use std::ops::ControlFlow;

use revfs_store::ImportedChange;
use revfs_store::types::{KeyValue, Revision};

use super::bolt::Bolt;
use super::rows::key_row;
use super::survey::{too_long, wrong};
use super::target::Target;
use super::{EtcdImportError, OnProgress, Progress, Survey};

/// The view is given up after so many rows.
const ROWS_PER_VIEW: u64 = 4_096;

/// Returns how many rows were compared.
pub(super) fn compare(
    target: &Target,
    bolt: &Bolt,
    survey: &Survey,
    progress: OnProgress<'_>,
) -> Result<u64, EtcdImportError> {
    let mut view = target.store.read_view()?;
    let (mut done, mut compared) = (0, 0);
    bolt.rows::<EtcdImportError>(b"key", &mut |row, value| {
        let read = key_row(row, value).map_err(|reason| wrong("key", row, reason))?;
        done += 1;
        if done % ROWS_PER_VIEW == 0 {
            view.renew()?;
            progress(Progress { stage: "comparing", done, total: survey.versions })?;
        }
        let Some(change) = read.change else { return Ok(ControlFlow::Continue(())) };
        let is_twice = target.twice.contains(&(read.revision, change.key.clone()));
        if is_twice || too_long(&change.key).is_some() {
            return Ok(ControlFlow::Continue(()));
        }
        let at = read.revision.max(survey.compacted);
        let found = view.get(at, &change.key, false);
        let found =
            found.map_err(|error| EtcdImportError::Differs { reason: error.to_string() })?;
        if read.revision < survey.compacted && is_superseded(found.as_ref(), read.revision) {
            return Ok(ControlFlow::Continue(()));
        }
        if !is_same(&change, found.as_ref(), read.revision) {
            let key = change.key.escape_ascii();
            let reason = format!("key \"{key}\" at revision {} is {found:?}", read.revision);
            return Err(EtcdImportError::Differs { reason });
        }
        compared += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(compared)
}

/// etcd had not yet removed the row of a compaction that it had begun.
fn is_superseded(found: Option<&KeyValue>, revision: Revision) -> bool {
    found.is_none_or(|kv| kv.mod_revision > revision)
}

fn is_same(change: &ImportedChange, found: Option<&KeyValue>, revision: Revision) -> bool {
    match (&change.put, found) {
        (None, None) => true,
        (Some(put), Some(kv)) => {
            kv.mod_revision == revision
                && kv.create_revision == put.create_revision
                && kv.version == put.version
                && kv.lease == put.lease
                && kv.value == put.value
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}
