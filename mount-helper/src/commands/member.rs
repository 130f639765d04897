//! `revfs member`: who the cluster consists of.

use clap::Subcommand;
use serde_json::json;

use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Result};
use crate::output::Output;

/// Show the members of the cluster
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs member list")]
pub(crate) struct MemberArgs {
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// List the members: ID, name, peer URLs, client URLs, voter or learner
    #[command(after_help = "Examples:\n  revfs member list --json")]
    List,
}

pub(crate) async fn run(args: MemberArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let MemberCommand::List = args.command;
    let members = endpoint::client(globals)?.members().await;
    let members = members.asked(|| "list the members".to_owned())?;
    let mut rows = Vec::new();
    for member in members {
        let id = format!("{:x}", member.id);
        if output.json {
            output.document(&json!({
                "id": id, "name": member.name, "peer_urls": member.peer_urls,
                "client_urls": member.client_urls, "learner": member.is_learner,
            }))?;
            continue;
        }
        let role = if member.is_learner { "learner" } else { "voter" };
        let urls = [member.peer_urls.join(","), member.client_urls.join(",")];
        rows.push([id, member.name].into_iter().chain(urls).chain([role.to_owned()]).collect());
    }
    output.columns(&["id", "name", "peer urls", "client urls", "role"], &rows)?;
    output.finish()
}
