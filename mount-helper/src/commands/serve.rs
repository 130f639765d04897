//! `revfs serve`: a node for clients of the network, without a mount, with etcd's settings.
//!
//! [`settings`] is the table of what can be said, [`layers`] finds what was said and where, [`value`] and
//! [`plan`] what it means and whether it fits together, [`serving`] does it.

mod arguments;
mod encryption;
mod layers;
mod logging;
mod plan;
mod serving;
mod settings;
mod value;

use std::collections::BTreeSet;

use clap::CommandFactory as _;

use crate::args::{Cli, Globals};
use crate::error::{Failure, Result};
use crate::output::Output;

pub(crate) use arguments::ServeArgs;
use layers::Values;
use plan::Plan;

pub(crate) fn run(args: ServeArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let values = Values::read(args, std::env::vars_os(), &other_variables())?;
    let plan = Plan::new(&values)?;
    logging::start(&plan.log, globals)?;
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
