//! `revfs role`: what users may do.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use bytes::Bytes;
use clap::{Subcommand, ValueEnum};
use revfs_api::client::Permission;
use revfs_api::keyspace::{KeyRange, prefix_end};
use serde_json::{Map, Value, json};

use super::user::list;
use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Failure, Result};
use crate::output::{Output, insert_bytes, readable};

/// Add, show and delete roles, and say what they permit
///
/// A role permits to read, to write, or both, each in a key, a prefix or a range of keys. The role root
/// permits everything.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs role add readers
  revfs role grant readers read --prefix /app/
  revfs role get readers")]
pub(crate) struct RoleArgs {
    #[command(subcommand)]
    command: RoleCommand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Read,
    Write,
    Readwrite,
}

#[derive(Clone, Debug, clap::Args)]
struct Range {
    /// The key, or where the range begins
    key: OsString,

    /// The first key behind the range
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    end: Option<OsString>,

    /// Every key that begins with KEY; '' = all
    #[arg(long, conflicts_with = "from_key")]
    prefix: bool,

    /// Every key from KEY on
    #[arg(long)]
    from_key: bool,
}

#[derive(Debug, Subcommand)]
enum RoleCommand {
    /// Add a role that permits nothing yet
    #[command(after_help = "Examples:\n  revfs role add readers")]
    Add { name: String },
    /// Delete a role
    #[command(visible_alias = "delete", after_help = "Examples:\n  revfs role del readers")]
    Del { name: String },
    /// Show what a role permits: read, write or readwrite, and where
    #[command(after_help = "Examples:\n  revfs role get readers")]
    Get { name: String },
    /// List the roles
    #[command(after_help = "Examples:\n  revfs role list")]
    List,
    /// Permit something to a role; what it had for the same range is replaced
    #[command(after_help = "Examples:\n  revfs role grant readers read --prefix /app/")]
    Grant {
        name: String,
        kind: Kind,
        #[command(flatten)]
        range: Range,
    },
    /// Take what a role had for a range
    #[command(after_help = "Examples:\n  revfs role revoke readers --prefix /app/")]
    Revoke {
        name: String,
        #[command(flatten)]
        range: Range,
    },
}

pub(crate) async fn run(args: RoleArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let client = endpoint::client(globals)?;
    let changed = match args.command {
        RoleCommand::List => {
            let roles = client.roles().await.asked(|| "list the roles".to_owned())?;
            return list(&roles, "role", output);
        }
        RoleCommand::Get { name } => {
            let permissions = client.role(&name).await.asked(|| format!("show role {name}"))?;
            return show(&permissions, output);
        }
        RoleCommand::Add { name } => {
            client.role_add(&name).await.asked(|| format!("add role {name}"))?;
            name
        }
        RoleCommand::Del { name } => {
            client.role_delete(&name).await.asked(|| format!("delete role {name}"))?;
            name
        }
        RoleCommand::Grant { name, kind, range } => {
            let (may_read, may_write) = (kind != Kind::Write, kind != Kind::Read);
            let permission = Permission { may_read, may_write, range: range.keys()? };
            let granted = client.role_grant(&name, &permission).await;
            granted.asked(|| format!("permit {} to role {name}", shown(&permission.range)))?;
            name
        }
        RoleCommand::Revoke { name, range } => {
            let range = range.keys()?;
            let revoked = client.role_revoke(&name, &range).await;
            revoked.asked(|| format!("take {} from role {name}", shown(&range)))?;
            name
        }
    };
    if output.json {
        output.document(&json!({ "role": changed }))?;
    }
    output.finish()
}

impl Range {
    fn keys(self) -> Result<KeyRange> {
        let key = Bytes::from(self.key.into_vec());
        if self.prefix {
            return Ok(KeyRange::prefix(&key));
        }
        if self.from_key {
            return Ok(KeyRange::From(key));
        }
        let Some(end) = self.end else { return Ok(KeyRange::Key(key)) };
        let end = Bytes::from(end.into_vec());
        if end <= key {
            let (key, end) = (readable(&key), readable(&end));
            return Err(Failure::usage(format!("the range from {key} to {end} is empty")));
        }
        Ok(KeyRange::Span { start: key, end })
    }
}

fn show(permissions: &[Permission], output: &mut Output) -> Result<()> {
    let mut rows = Vec::new();
    for permission in permissions {
        let kind = match (permission.may_read, permission.may_write) {
            (true, true) => "readwrite",
            (false, _) => "write",
            (true, false) => "read",
        };
        if output.json {
            let mut object = Map::new();
            object.insert("permission".into(), kind.into());
            insert_bytes(&mut object, "key", permission.range.start());
            match &permission.range {
                KeyRange::Key(_) => {}
                KeyRange::Span { end, .. } => insert_bytes(&mut object, "range_end", end),
                KeyRange::From(_) => insert_bytes(&mut object, "range_end", b"\0"),
            }
            output.document(&Value::Object(object))?;
        } else {
            rows.push(vec![kind.to_owned(), shown(&permission.range)]);
        }
    }
    output.columns(&["permission", "keys"], &rows)?;
    output.finish()
}

/// As the text of a transaction writes it.
fn shown(range: &KeyRange) -> String {
    match range {
        KeyRange::Key(key) => readable(key),
        KeyRange::From(start) => format!("from {}", readable(start)),
        KeyRange::Span { start, end } if prefix_end(start).as_ref() == Some(end) => {
            format!("prefix {}", readable(start))
        }
        KeyRange::Span { start, end } => format!("range {} {}", readable(start), readable(end)),
    }
}
