//! `revfs serve`: a node for clients of the network, with etcd's settings, and its mount where one is wanted.
//!
//! [`settings`] is the table of what can be said, [`layers`] finds what was said and where, [`value`] and
//! [`plan`] what it means and whether it fits together, [`serving`] does it; [`view`] is the mount, [`unit`] tells systemd.

mod arguments;
mod encryption;
mod joining;
mod layers;
mod logging;
mod members;
mod open_files;
mod plan;
mod serving;
mod settings;
mod unit;
mod value;
mod view;

use std::collections::BTreeSet;

use clap::CommandFactory as _;

use crate::args::{Cli, Globals};
use crate::error::{Failure, Result};
use crate::output::Output;

pub(crate) use arguments::ServeArgs;
use layers::Values;
pub(in crate::commands) use members::founders;
use plan::Plan;
pub(in crate::commands) use value::advertised_urls;

pub(crate) fn run(args: ServeArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let prints_unit = args.systemd_unit;
    let values = Values::read(args, std::env::vars_os(), &other_variables())?;
    let plan = Plan::new(&values)?;
    if prints_unit {
        let unit = unit::text(&values, &plan, values.config_file())?;
        if output.json {
            output.document(&serde_json::json!({ "unit": unit }))?;
        } else {
            output.bytes(unit.as_bytes())?;
        }
        return output.finish();
    }
    logging::start(&plan.log, globals)?;
    open_files::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::caused("cannot start", &error))?;
    runtime.block_on(serving::run(plan, output))
}

/// Variables that commands other than this one look at.
fn other_variables() -> BTreeSet<String> {
    fn of(command: &clap::Command, into: &mut BTreeSet<String>) {
        let variables = command.get_arguments().filter_map(clap::Arg::get_env);
        into.extend(variables.map(|name| name.to_string_lossy().into_owned()));
        command.get_subcommands().for_each(|command| of(command, into));
    }
    let mut names = BTreeSet::new();
    of(&Cli::command(), &mut names);
    names
}
