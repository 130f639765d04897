//! `revfs user`: who may log in, and with which roles.

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};
use serde_json::json;

use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Failure, Result};
use crate::output::Output;
use crate::password;

/// Add, show and delete users, and give them roles
///
/// A new password is asked for on the terminal, or comes from --new-password-file or the variable
/// REVFS_NEW_PASSWORD. It is never an argument: arguments are seen by all who may list processes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs user add alice
  revfs user grant alice readers
  revfs user get alice")]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Clone, Debug, clap::Args)]
struct NewPassword {
    /// File whose first line is the new password
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    new_password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user
    #[command(
        after_help = "Examples:\n  revfs user add alice\n  revfs user add host-7 --no-password"
    )]
    Add {
        name: String,
        /// The user comes with a certificate of that name, and cannot log in otherwise
        #[arg(long, conflicts_with = "new_password_file")]
        no_password: bool,
        #[command(flatten)]
        password: NewPassword,
    },
    /// Delete a user
    #[command(visible_alias = "delete", after_help = "Examples:\n  revfs user del alice")]
    Del { name: String },
    /// Show the roles of a user
    #[command(after_help = "Examples:\n  revfs user get alice")]
    Get { name: String },
    /// List the users
    #[command(after_help = "Examples:\n  revfs user list")]
    List,
    /// Give a user another password
    #[command(after_help = "Examples:\n  revfs user passwd alice")]
    Passwd {
        name: String,
        #[command(flatten)]
        password: NewPassword,
    },
    /// Give a role to a user
    #[command(after_help = "Examples:\n  revfs user grant alice readers")]
    Grant { name: String, role: String },
    /// Take a role from a user
    #[command(after_help = "Examples:\n  revfs user revoke alice readers")]
    Revoke { name: String, role: String },
}

pub(crate) async fn run(args: UserArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let client = endpoint::client(globals)?;
    let changed = match args.command {
        UserCommand::List => {
            let users = client.users().await.asked(|| "list the users".to_owned())?;
            return list(&users, "user", output);
        }
        UserCommand::Get { name } => {
            let roles = client.user(&name).await.asked(|| format!("show user {name}"))?;
            return list(&roles, "role", output);
        }
        UserCommand::Add { name, no_password, password } => {
            let password = if no_password { None } else { Some(password.get(&name)?) };
            let added = client.user_add(&name, password.as_deref()).await;
            added.asked(|| format!("add user {name}"))?;
            name
        }
        UserCommand::Del { name } => {
            client.user_delete(&name).await.asked(|| format!("delete user {name}"))?;
            name
        }
        UserCommand::Passwd { name, password } => {
            let set = client.set_password(&name, &password.get(&name)?).await;
            set.asked(|| format!("change the password of {name}"))?;
            name
        }
        UserCommand::Grant { name, role } => {
            let granted = client.user_grant(&name, &role).await;
            granted.asked(|| format!("give the role {role} to {name}"))?;
            name
        }
        UserCommand::Revoke { name, role } => {
            let revoked = client.user_revoke(&name, &role).await;
            revoked.asked(|| format!("take the role {role} from {name}"))?;
            name
        }
    };
    if output.json {
        output.document(&json!({ "user": changed }))?;
    }
    output.finish()
}

/// Names, one a line.
pub(crate) fn list(names: &[String], what: &str, output: &mut Output) -> Result<()> {
    for name in names {
        match output.json {
            true => output.document(&json!({ what: name }))?,
            false => output.line(&crate::output::readable(name.as_bytes()))?,
        }
    }
    output.finish()
}

impl NewPassword {
    fn get(&self, name: &str) -> Result<String> {
        let missing = || {
            Failure::usage(format!("no new password for {name}: nobody sits at the terminal"))
                .hint("--new-password-file FILE, or the variable REVFS_NEW_PASSWORD")
        };
        let password = match (&self.new_password_file, std::env::var("REVFS_NEW_PASSWORD")) {
            (Some(file), _) => password::first_line("--new-password-file", file)?,
            (None, Ok(password)) => password,
            (None, Err(_)) => {
                let first = password::ask(&format!("New password of {name}"))?;
                let first = first.ok_or_else(missing)?;
                if password::ask("Again")?.as_ref() != Some(&first) {
                    return Err(Failure::usage("the two passwords differ; nothing was changed"));
                }
                first
            }
        };
        if password.is_empty() {
            return Err(Failure::usage("the new password is empty")
                .hint("a user without one comes by certificate: user add NAME --no-password"));
        }
        Ok(password)
    }
}
