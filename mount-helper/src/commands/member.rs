//! `revfs member`: who the cluster consists of, what is wanted of each member and what it waits for.
//!
//! A real etcd does what it can: it has voters and learners, replaces nobody, and takes no force.

use clap::{Subcommand, ValueEnum};
use revfs_api::client::{Client, Member, MemberDetail, MemberRole, MemberState};
use revfs_api::keyspace::Error;
use serde_json::json;

use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Result};
use crate::output::Output;

/// Show the members of the cluster, add, replace and remove them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs member list
  revfs member add http://10.0.0.4:2380
  revfs member replace 8e9e05c52164694d http://10.0.0.4:2380
  revfs member remove 8e9e05c52164694d")]
pub(crate) struct MemberArgs {
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// List the members: ID, name, URLs, role that is wanted, state, and what each waits for
    #[command(
        long_about = "List the members: ID, name, peer URLs, client URLs, role that is wanted, state \
(unstarted, learns, votes, leads, leaves), entries of the log that it lacks, and what it waits for. Without a \
leader the list is what the node that is asked knows",
        after_help = "Examples:\n  revfs member list --json"
    )]
    List,
    /// Add a member: it counts once it has come up at its URL and keeps up
    #[command(after_help = "Examples:
  revfs member add http://10.0.0.4:2380
  revfs member add http://10.0.0.5:2380 --role standby")]
    Add {
        /// Where the other members find it
        #[arg(required = true, value_name = "PEER-URL")]
        peer_urls: Vec<String>,
        /// What is wanted of it
        #[arg(long, value_enum, default_value = "voter")]
        role: Role,
        /// As --role learner
        #[arg(long, conflicts_with = "role")]
        learner: bool,
    },
    /// Put a new member into the place of one that is dead, damaged or to go: its role, and then its vote
    #[command(
        long_about = "Put a new member into the place of one that is dead, damaged or to go. The new one \
gets the role of the old one. Once it has come up at its URL and keeps up, it votes in place of the old one, \
which is removed then. The URL may be the old one's: a machine that has lost its data",
        after_help = "Examples:\n  revfs member replace 8e9e05c52164694d http://10.0.0.4:2380"
    )]
    Replace {
        /// Who is replaced
        #[arg(value_parser = number, value_name = "OLD-ID")]
        id: u64,
        /// Where the other members find the new one
        #[arg(required = true, value_name = "PEER-URL")]
        peer_urls: Vec<String>,
    },
    /// Remove a member; refused if too few of the others are there
    #[command(after_help = "Examples:\n  revfs member remove 8e9e05c52164694d")]
    Remove {
        #[arg(value_parser = number, value_name = "ID")]
        id: u64,
        /// Remove it although too few of the other voters are there: nothing is acknowledged until more
        /// than half of them are, and if one that is there is lost before, acknowledged changes may be lost
        #[arg(long)]
        force: bool,
    },
    /// Change where the other members find one
    #[command(
        after_help = "Examples:\n  revfs member update 8e9e05c52164694d http://10.0.0.5:2380"
    )]
    Update {
        #[arg(value_parser = number, value_name = "ID")]
        id: u64,
        #[arg(required = true, value_name = "PEER-URL")]
        peer_urls: Vec<String>,
    },
    /// Let a learner vote
    #[command(after_help = "Examples:\n  revfs member promote 8e9e05c52164694d")]
    Promote {
        #[arg(value_parser = number, value_name = "ID")]
        id: u64,
    },
    /// Change what is wanted of a member
    #[command(after_help = "Examples:\n  revfs member role 8e9e05c52164694d standby")]
    Role {
        #[arg(value_parser = number, value_name = "ID")]
        id: u64,
        #[arg(value_enum)]
        role: Role,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Votes once it keeps up
    Voter,
    /// Receives everything, and votes when it is promoted
    Learner,
    /// Receives everything, and votes in place of a voter that is gone
    Standby,
    /// Receives everything for reads far away, and never votes
    ReadOnly,
}

impl From<Role> for MemberRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Voter => Self::Voter,
            Role::Learner => Self::Learner,
            Role::Standby => Self::Standby,
            Role::ReadOnly => Self::ReadOnly,
        }
    }
}

/// As the list shows it.
fn number(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16)
        .map_err(|_| "hexadecimal, as 'revfs member list' shows it".to_owned())
}

pub(crate) async fn run(args: MemberArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let client = endpoint::client(globals)?;
    match args.command {
        MemberCommand::List => return list(&client, output).await,
        MemberCommand::Add { peer_urls, role, learner } => {
            let role = if learner { MemberRole::Learner } else { role.into() };
            let added = client.member_add(peer_urls.clone(), role).await;
            let id = added.asked(|| format!("add a member at {}", peer_urls.join(",")))?;
            say(output, &format!("added {id:x}; it counts once it has come up and keeps up"))?;
        }
        MemberCommand::Replace { id, peer_urls } => {
            let replaced = client.member_replace(id, peer_urls.clone()).await;
            let new = replaced.asked(|| format!("replace member {id:x}"))?;
            let urls = peer_urls.join(",");
            say(
                output,
                &format!("{new:x} takes its place once it has come up at {urls} and keeps up"),
            )?;
        }
        MemberCommand::Remove { id, force } => remove(&client, id, force).await?,
        MemberCommand::Update { id, peer_urls } => {
            let updated = client.member_update(id, peer_urls).await;
            updated.asked(|| format!("change where member {id:x} is found"))?;
        }
        MemberCommand::Promote { id } => {
            let promoted = client.member_set_role(id, MemberRole::Voter).await;
            promoted.asked(|| format!("promote member {id:x}"))?;
        }
        MemberCommand::Role { id, role } => {
            let role = MemberRole::from(role);
            let changed = client.member_set_role(id, role).await;
            changed.asked(|| format!("make member {id:x} a {}", role.name()))?;
        }
    }
    if let Err(failure) = list(&client, output).await {
        eprintln!(
            "revfs: warning: it is done, but the members are not shown\n{}",
            failure.render()
        );
    }
    Ok(())
}

fn say(output: &mut Output, text: &str) -> Result<()> {
    if output.json { Ok(()) } else { output.line(text) }
}

async fn remove(client: &Client, id: u64, force: bool) -> Result<()> {
    let is_needed = |error: &Error| matches!(error, Error::Invalid(words) if words.ends_with("not enough started members"));
    let removed = client.member_remove(id, force).await;
    let is_refused = removed.as_ref().is_err_and(is_needed);
    match removed.asked(|| format!("remove member {id:x}")) {
        Ok(None) => Ok(()),
        Ok(Some(warning)) => {
            eprintln!("revfs: warning: {warning}");
            Ok(())
        }
        Err(failure) if is_refused => Err(failure.hint(
            "without it too few voters are there, or none is left: see `revfs member list`, and bring back, \
             replace or remove those that are gone first; what --force costs stands in --help",
        )),
        Err(failure) => Err(failure),
    }
}

async fn list(client: &Client, output: &mut Output) -> Result<()> {
    let asked = || "list the members".to_owned();
    let rows = match client.members_in_detail(false).await {
        Ok(members) => rows_of(&members, output)?,
        Err(Error::Unsupported(_)) => rows_of_etcd(&client.members().await.asked(asked)?, output)?,
        Err(error @ (Error::NoQuorum { .. } | Error::Timeout(_) | Error::Unavailable { .. })) => {
            let known = client.members_in_detail(true).await.asked(asked)?;
            eprintln!("revfs: warning: no leader told what each waits for: {error}");
            rows_of(&known, output)?
        }
        Err(error) => return Err(error).asked(asked),
    };
    let names = ["id", "name", "peer urls", "client urls", "role", "state", "behind", "waits for"];
    output.columns(&names, &rows)?;
    output.finish()
}

fn state(member: &MemberDetail) -> &'static str {
    match member.state {
        MemberState::Pending => "unstarted",
        MemberState::Learns => "learns",
        MemberState::Votes if member.leads => "leads",
        MemberState::Votes => "votes",
        MemberState::Leaves => "leaves",
    }
}

/// Rows for people; documents are printed at once.
fn rows_of(members: &[MemberDetail], output: &mut Output) -> Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    for member in members {
        let (id, state) = (format!("{:x}", member.id), state(member));
        if output.json {
            output.document(&json!({
                "id": id, "name": member.name, "peer_urls": member.peer_urls,
                "client_urls": member.client_urls, "learner": member.state == MemberState::Learns,
                "role": member.role.name(), "state": state, "there": member.is_there,
                "behind": member.behind, "waits_for": member.waits_for,
                "instance": member.instance.map(|number| format!("{number:032x}")),
                "cluster_version": member.cluster_version,
                "replaces": member.replaces.map(|old| format!("{old:x}")),
            }))?;
            continue;
        }
        rows.push(vec![
            id,
            member.name.clone(),
            member.peer_urls.join(","),
            member.client_urls.join(","),
            member.role.name().to_owned(),
            state.to_owned(),
            member.behind.map(|entries| entries.to_string()).unwrap_or_default(),
            member.waits_for.clone().unwrap_or_default(),
        ]);
    }
    Ok(rows)
}

/// What a real etcd tells: one without a name has not come up.
fn rows_of_etcd(members: &[Member], output: &mut Output) -> Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    for member in members {
        let id = format!("{:x}", member.id);
        let role = if member.is_learner { "learner" } else { "voter" };
        let state = match (member.name.is_empty(), member.is_learner) {
            (true, _) => "unstarted",
            (false, true) => "learns",
            (false, false) => "votes",
        };
        if output.json {
            output.document(&json!({
                "id": id, "name": member.name, "peer_urls": member.peer_urls,
                "client_urls": member.client_urls, "learner": member.is_learner,
                "role": role, "state": state,
            }))?;
            continue;
        }
        let urls = [member.peer_urls.join(","), member.client_urls.join(",")];
        let rest = [role, state, "", ""].map(str::to_owned);
        rows.push([id, member.name.clone()].into_iter().chain(urls).chain(rest).collect());
    }
    Ok(rows)
}
