//! Going on alone from the data of one member, when most of the others are lost for good.
//!
//! The member keeps its number and everything in its store and log, and becomes a cluster of its own with
//! another id: a lost member that comes back all the same belongs to the old one, is refused, and can
//! neither outvote this one nor overwrite what was acknowledged since.

use std::sync::mpsc;

use revfs_store::Store;

use crate::config::StartError;
use crate::data_dir::{DataDir, Identity};
use crate::log::{Completion, Log, LogError};
use crate::raft::Alone;

/// Makes the member the only one of its cluster, unless it is already; returns who it is from now on.
/// What a crash leaves is completed when it is called again. Blocks.
///
/// # Errors
/// A log or a store that cannot be read or written.
pub(crate) fn go_on_alone(
    data_dir: &DataDir,
    identity: Identity,
    store: &Store,
    log: &Log,
) -> Result<Identity, StartError> {
    let failed = |error| StartError::io("go on alone in", &data_dir.path, error);
    let Some(Alone { vote, entries, others }) =
        Alone::plan(store, log, identity.member).map_err(failed)?
    else {
        tracing::info!("force-new-cluster: this member is alone already");
        return Ok(identity);
    };
    let random = Identity::random().map_err(failed)?;
    let identity = Identity { cluster: random.cluster, ..identity };
    // First: others that come back must find a stranger.
    data_dir.set_identity(identity)?;
    durably(|done| log.save_vote(vote, done))?;
    durably(|done| log.append(entries, done))?;
    let others: Vec<String> = others.iter().map(|id| format!("{id:x}")).collect();
    tracing::warn!(
        cluster = format_args!("{:016x}", identity.cluster),
        others = others.join(", "),
        "this member goes on alone, as a new cluster: wipe the data of the others before they join it"
    );
    Ok(identity)
}

fn durably(ask: impl FnOnce(Completion)) -> Result<(), LogError> {
    let (done, answer) = mpsc::channel();
    // The receiver lives until the answer has come.
    ask(Box::new(move |result| drop(done.send(result))));
    answer.recv().unwrap_or(Err(LogError::ShutDown))
}
