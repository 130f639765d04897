//! `revfs alarm`: why a cluster refuses to store.

use clap::Subcommand;
use serde_json::json;

use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Result};
use crate::output::Output;

/// Show alarms, or take them back
///
/// NOSPACE: the quota or the disk is nearly full; deleting and compacting lift it by themselves on a
/// node of revfs. CORRUPT: members hold different data.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs alarm list
  revfs alarm disarm")]
pub(crate) struct AlarmArgs {
    #[command(subcommand)]
    command: AlarmCommand,
}

#[derive(Debug, Subcommand)]
enum AlarmCommand {
    /// List the alarms that are raised: member and name
    #[command(after_help = "Examples:\n  revfs alarm list --json")]
    List,
    /// Take all alarms back, and list them; one whose reason still holds comes again
    #[command(after_help = "Examples:\n  revfs alarm disarm")]
    Disarm,
}

pub(crate) async fn run(args: AlarmArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let client = endpoint::client(globals)?;
    let alarms = client.alarms().await.asked(|| "list the alarms".to_owned())?;
    let mut rows = Vec::new();
    for alarm in alarms {
        if matches!(args.command, AlarmCommand::Disarm) {
            let disarmed = client.disarm(&alarm).await;
            disarmed.asked(|| format!("disarm {} of {:x}", alarm.name, alarm.member_id))?;
        }
        let member = format!("{:x}", alarm.member_id);
        match output.json {
            true => output.document(&json!({ "member": member, "alarm": alarm.name }))?,
            false => rows.push(vec![member, alarm.name]),
        }
    }
    output.columns(&["member", "alarm"], &rows)?;
    output.finish()
}
