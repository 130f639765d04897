//! Restoring: a data directory is made from a snapshot, for a cluster of one or for each member of a new
//! one.

use std::path::PathBuf;

use clap::ValueHint;
use revfs_cluster::Founders;
use revfs_cluster::restore::{self, Bump, RestoreOptions, Restored};

use super::{counting, document, sentence};
use crate::commands::serve::{advertised_urls, founders};
use crate::error::{Failure, Kind, Result};
use crate::output::{Output, Progress};

/// Far above what a cluster writes between a backup and its end.
const BUMP_DEFAULT: u64 = 1_000_000_000;

/// Make a new data directory from FILE
///
/// Everything is checked before the directory gets its name. It belongs to a new cluster: of one member,
/// to be started with `revfs up MOUNTPOINT --data-dir DIR` or `revfs serve --data-dir DIR`; or of those
/// that --initial-cluster names, each of which restores the same FILE with the same options and is then
/// started with its usual settings.
#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,

    /// The directory to make; it may exist if it is empty
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data_dir: PathBuf,

    /// Which of the members of --initial-cluster this is
    #[arg(long, value_name = "NAME", default_value = "default", requires = "initial_cluster")]
    name: String,

    /// The members of the new cluster: NAME=URL, separated by commas
    #[arg(long, value_name = "MEMBERS")]
    initial_cluster: Option<String>,

    /// Keeps clusters apart that have the same addresses after each other
    #[arg(
        long,
        value_name = "TOKEN",
        default_value = "etcd-cluster",
        requires = "initial_cluster"
    )]
    initial_cluster_token: String,

    /// Where the others find this member, if it should be checked that --initial-cluster says so
    #[arg(long, value_name = "URLS", requires = "initial_cluster")]
    initial_advertise_peer_urls: Option<String>,

    /// Go on so many revisions above that of FILE; 0 goes on as if nothing had been lost
    ///
    /// Whatever was written after the backup had revisions that the new cluster would otherwise give again,
    /// to other changes: who has seen one of them (a mount, a watch, a cache) would not notice that it is
    /// gone. Revisions between the backup's and the new one are answered as if they were compacted.
    #[arg(long, value_name = "N", default_value_t = BUMP_DEFAULT)]
    bump_revision: u64,

    /// Forget the history before the new revision: everyone who goes on from an older one begins anew
    #[arg(long)]
    mark_compacted: bool,
}

pub(super) fn run(args: &RestoreArgs, output: &mut Output) -> Result<()> {
    let bump = Bump { revisions: args.bump_revision, mark_compacted: args.mark_compacted };
    let options = RestoreOptions { founders: args.founders()?, bump };
    let (file, dir) = (args.file.display(), args.data_dir.display());
    let progress = Progress::new();
    let mut on_progress = counting(&progress, "restoring");
    let restored = restore::restore(&args.file, &args.data_dir, &options, &mut on_progress);
    drop(on_progress);
    drop(progress);
    let restored = restored.map_err(|error| {
        let failure = Failure::caused(format!("cannot restore '{file}' into '{dir}'"), &error);
        if error.is_taken() { failure.of_kind(Kind::Conflict) } else { failure }
    })?;
    args.report(&restored, output)
}

impl RestoreArgs {
    fn founders(&self) -> Result<Option<Founders>> {
        let Some(text) = &self.initial_cluster else { return Ok(None) };
        let wrong = |flag: &str, reason: String| Failure::usage(format!("{flag} wants {reason}"));
        let named = founders(text).map_err(|reason| wrong("--initial-cluster", reason))?;
        let Some(own) = named.iter().position(|(name, _)| *name == self.name) else {
            let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
            let names = names.join(", ");
            let message =
                format!("--initial-cluster has no member '{}'; it has {names}", self.name);
            return Err(Failure::usage(message).hint("say with --name which of them this is"));
        };
        if let Some(text) = &self.initial_advertise_peer_urls {
            let flag = "--initial-advertise-peer-urls";
            let mut said = advertised_urls(text).map_err(|reason| wrong(flag, reason))?;
            let mut listed = named[own].1.clone();
            said.sort();
            listed.sort();
            if said != listed {
                let message = format!(
                    "--initial-cluster finds '{}' at {}, but {flag} says {text}",
                    self.name,
                    listed.join(",")
                );
                return Err(Failure::usage(message).hint("say the same in both"));
            }
        }
        let members = named.into_iter().map(|(_, urls)| urls).collect();
        Ok(Some(Founders { token: self.initial_cluster_token.clone(), members, own }))
    }

    fn report(&self, restored: &Restored, output: &mut Output) -> Result<()> {
        let Restored { summary, revision, cluster_id, member_id } = restored;
        if output.json {
            let mut document = document(&self.file, summary);
            document["data_dir"] = self.data_dir.display().to_string().into();
            document["cluster_id"] = format!("{cluster_id:016x}").into();
            document["member_id"] = format!("{member_id:016x}").into();
            document["restored_revision"] = (*revision).into();
            output.document(&document)?;
        } else {
            let (file, dir) = (self.file.display(), self.data_dir.display());
            output.line(&format!("{file} restored into {dir}: {}", sentence(summary)))?;
            let history = match self.mark_compacted {
                true => ", and what was before it is forgotten",
                false => "",
            };
            output.line(&format!("it goes on at revision {revision}{history}"))?;
            match &self.initial_cluster {
                None => output.line(&format!("to start it: revfs up MOUNTPOINT --data-dir {dir}")),
                Some(_) => {
                    output.line(&format!("member {member_id:x} of the cluster {cluster_id:x}"))?;
                    let name = &self.name;
                    output
                        .line(&format!("to start it: revfs serve --name {name} --data-dir {dir} …"))
                }
            }?;
        }
        output.finish()
    }
}
