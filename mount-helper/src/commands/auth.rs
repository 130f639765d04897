//! `revfs auth`: whether users have to log in.

use clap::Subcommand;
use serde_json::json;

use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Result};
use crate::output::Output;

/// Make users log in, or not
///
/// Before it is enabled there must be a user root with the role root: `revfs user add root`, `revfs user
/// grant root root`. From then on every request needs --user, or a certificate.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs auth enable
  revfs auth status --user root
  revfs auth disable --user root")]
pub(crate) struct AuthArgs {
    #[command(subcommand)]
    command: AuthCommand,
}

#[derive(Debug, Subcommand)]
enum AuthCommand {
    /// Ask for users from now on
    #[command(after_help = "Examples:\n  revfs auth enable")]
    Enable,
    /// Let everybody do everything from now on
    #[command(after_help = "Examples:\n  revfs auth disable --user root")]
    Disable,
    /// Show whether users are asked for, and the revision of users and roles
    #[command(after_help = "Examples:\n  revfs auth status")]
    Status,
}

pub(crate) async fn run(args: AuthArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let client = endpoint::client(globals)?;
    match args.command {
        AuthCommand::Enable => {
            client.auth_enable().await.asked(|| "enable authentication".to_owned())?;
            said(output, true)?;
        }
        AuthCommand::Disable => {
            client.auth_disable().await.asked(|| "disable authentication".to_owned())?;
            said(output, false)?;
        }
        AuthCommand::Status => {
            let status = client.auth_status().await;
            let status = status.asked(|| "ask whether authentication is enabled".to_owned())?;
            let (enabled, revision) = (status.enabled, status.revision);
            match output.json {
                true => output.document(&json!({ "enabled": enabled, "revision": revision }))?,
                false => output.line(&format!("{}, revision {revision}", word(enabled)))?,
            }
        }
    }
    output.finish()
}

fn said(output: &mut Output, enabled: bool) -> Result<()> {
    match output.json {
        true => output.document(&json!({ "enabled": enabled })),
        false => output.line(word(enabled)),
    }
}

fn word(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "disabled" }
}
