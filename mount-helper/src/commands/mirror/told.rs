//! What a mirror or an import tells as it goes on, and how it fails.

use revfs_api::keyspace::Revision;
use revfs_api::mirror::{MirrorError, Step, Verified};
use serde_json::{Map, Value, json};

use crate::error::{Failure, Kind, Result};
use crate::output::{Output, Progress, counted, insert_bytes, readable};

/// Tells of a step; in JSON each is a document.
pub(in crate::commands) fn print(
    step: &Step,
    progress: &Progress,
    output: &mut Output,
) -> Result<()> {
    if output.json {
        output.document(&document(step))?;
        return output.finish();
    }
    match step {
        Step::Copying { revision, behind: None } => {
            output.line(&format!("comparing with revision {revision} of the source"))?;
        }
        Step::Copying { revision, behind: Some(key) } => {
            let key = readable(key);
            output.line(&format!(
                "going on behind '{key}', comparing with revision {revision} of the source"
            ))?;
        }
        Step::Compared { keys, changed } => {
            progress.at(format!("{} compared, {changed} changed", counted(*keys, "key")));
        }
        Step::Copied { changed, .. } => {
            output.line(&format!("{} changed", counted(*changed, "key")))?;
        }
        Step::Shows(revision) => progress.at(format!("the destination shows revision {revision}")),
        Step::Waiting { reason } => output.line(&format!("waiting: {reason}"))?,
    }
    output.finish()
}

fn document(step: &Step) -> Value {
    match step {
        Step::Copying { revision, behind } => {
            let mut object = Map::new();
            object.insert("copying".to_owned(), revision.0.into());
            if let Some(key) = behind {
                insert_bytes(&mut object, "behind", key);
            }
            object.into()
        }
        Step::Compared { keys, changed } => json!({ "compared_keys": keys, "changed": changed }),
        Step::Copied { revision, changed } => json!({ "copied": revision.0, "changed": changed }),
        Step::Shows(revision) => json!({ "shows": revision.0 }),
        Step::Waiting { reason } => json!({ "waiting": reason }),
    }
}

/// The last word: which revision the destination shows, and whether all was compared.
pub(in crate::commands) fn end(
    revision: Revision,
    verified: Option<&Verified>,
    output: &mut Output,
) -> Result<()> {
    if let Some(Verified { differs: Some(key), .. }) = verified {
        let key = readable(key);
        let message = format!("'{key}' differs from the source at its revision {revision}");
        return Err(Failure::new(Kind::Failure, message)
            .hint("does somebody else write there? run it again to change what differs"));
    }
    if output.json {
        let keys = verified.map(|verified| verified.keys);
        output.document(&json!({
            "done": revision.0, "compared": verified.is_some(), "compared_keys": keys,
        }))?;
    } else {
        let compared = match verified {
            None => String::new(),
            Some(Verified { keys, .. }) => {
                format!(", every key compared: {}", counted(*keys, "key"))
            }
        };
        output.line(&format!("the destination shows revision {revision}{compared}"))?;
    }
    output.finish()
}

/// `what` completes the sentence "cannot …".
pub(in crate::commands) fn failure(what: &str, error: &MirrorError) -> Failure {
    let failure = Failure::caused(format!("cannot {what}"), error);
    match error {
        MirrorError::KeySpace(_) | MirrorError::Record { .. } => failure,
        MirrorError::SameCluster { .. } => failure.of_kind(Kind::Usage),
        MirrorError::Loop { .. } => {
            failure.of_kind(Kind::Conflict).hint("end the mirror that goes the other way first")
        }
        MirrorError::NotEmpty { .. } => failure
            .of_kind(Kind::Conflict)
            .hint("name an empty place with --dest-prefix, or replace what is there: --overwrite"),
        MirrorError::OtherSource { .. } => failure
            .of_kind(Kind::Conflict)
            .hint("name another place with --dest-prefix, or take this one over: --overwrite"),
        MirrorError::Rival => failure
            .of_kind(Kind::Conflict)
            .hint("one that was started later has taken over; only one should run"),
        MirrorError::LeaseTaken { .. } => failure
            .of_kind(Kind::Conflict)
            .hint("`revfs lease revoke` it there, or leave leases behind: without --finish"),
        MirrorError::TooBig { .. } => {
            failure.hint("let the destination take larger ones: --max-txn-ops, --max-request-bytes")
        }
        MirrorError::LongKey { .. } => {
            failure.hint("`revfs import --to` with --skip-long-keys leaves such keys out")
        }
        MirrorError::GaveUp { .. } => failure
            .of_kind(Kind::Unreachable)
            .hint("run it again when both answer: it goes on where it was; --retries and --retry-for bound the wait"),
        MirrorError::Overtaken { .. } => failure
            .hint("let both keep their history for longer than a copy takes (auto-compaction-retention)"),
    }
}
