//! `revfs compact`: forgets history.

use revfs_api::keyspace::Error;
use serde_json::json;

use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Failure, Result};
use crate::moment::Moment;
use crate::output::Output;

/// Forget the history before a revision or a time
///
/// The state at that revision, and all that came after, stays. What is forgotten cannot be brought
/// back: revfs snapshot save keeps it in a file. What is forgotten already is no error. `revfs up --keep`
/// does this all the time.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs compact 4100
  revfs compact @-30d --physical")]
pub(crate) struct CompactArgs {
    /// A revision, or a time: @2026-11-22T10:00:00Z, @2026-11-22, @-2h, @-7d
    #[arg(value_name = "REV|@TIME")]
    moment: String,

    /// Return when the space is free again
    #[arg(long)]
    physical: bool,
}

pub(crate) async fn run(args: CompactArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let moment = Moment::parse(&args.moment)?;
    if moment == Moment::Now {
        return Err(Failure::usage("a revision or a time belongs here").hint("revfs compact 4100"));
    }
    let keys = endpoint::open(globals, &[], true).await?.keys;
    let asked = match &moment {
        Moment::Time(text) => keys.revision_at(crate::names::time(text)?).await,
        moment => Ok(moment.revision(&*keys).await?),
    };
    let compacted = match asked {
        Ok(revision) => keys.compact(revision, args.physical).await.map(|()| revision),
        Err(error) => Err(error),
    };
    let (revision, already) = match compacted {
        Ok(revision) => (revision, ""),
        // It is as it should be: what a timer forgets each day may have been forgotten.
        Err(Error::Compacted { requested, compacted })
            if requested == compacted || matches!(moment, Moment::Time(_)) =>
        {
            (compacted, " already")
        }
        Err(error) => {
            return Err(error).asked(|| match &moment {
                Moment::Revision(revision) => format!("compact to revision {revision}"),
                _ => format!("compact to {}", args.moment),
            });
        }
    };
    if output.json {
        output.document(&json!({ "compacted_revision": revision.0 }))?;
    } else {
        output.line(&format!("history begins at revision {revision}{already}"))?;
    }
    output.finish()
}
