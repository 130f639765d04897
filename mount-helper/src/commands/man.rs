//! `revfs man`: the manual pages, made from what the command line itself says.

use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, ValueHint};
use clap_mangen::Man;

use crate::args::Cli;
use crate::error::{Failure, Result};
use crate::output::Output;

/// Print a manual page: of revfs, or of one of its commands
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs man mount | man -l -
  revfs man --all /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// The command; else the page of the program
    #[arg(value_name = "COMMAND")]
    command: Option<String>,

    /// Write all pages into this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "command")]
    all: Option<PathBuf>,
}

pub(crate) fn run(args: &ManArgs, output: &mut Output) -> Result<()> {
    if let Some(directory) = &args.all {
        for (name, page) in pages()? {
            write(directory, &name, &page)?;
        }
        return Ok(());
    }
    let name = args.command.as_ref().map_or("revfs".to_owned(), |name| format!("revfs-{name}"));
    let mut pages = pages()?.into_iter();
    let Some((_, page)) = pages.find(|(known, _)| *known == name) else {
        return Err(Failure::usage(format!("there is no page {name}"))
            .hint("revfs --help names the commands"));
    };
    output.bytes(&page)?;
    output.finish()
}

fn write(directory: &Path, name: &str, page: &[u8]) -> Result<()> {
    let path = directory.join(format!("{name}.1"));
    std::fs::write(&path, page)
        .map_err(|error| Failure::caused(format!("cannot write '{}'", path.display()), &error))
}

/// Name and text of each page.
fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut cli = Cli::command();
    cli.build();
    let commands: Vec<clap::Command> = cli
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| {
            let name: &'static str = Box::leak(format!("revfs-{}", command.get_name()).into());
            command.clone().name(name).display_name(name)
        })
        .collect();
    let mut pages = Vec::new();
    for command in [cli.clone().override_help(None)].into_iter().chain(commands) {
        let name = command.get_name().to_owned();
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        pages.push((name, page));
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page of `mount` is the one of mount(8)'s options too.
    #[test]
    fn every_command_has_a_page_that_names_its_options() {
        let pages = pages().unwrap();
        let text = |name: &str| {
            let (_, page) = pages.iter().find(|(known, _)| known == name).expect(name);
            String::from_utf8(page.clone()).unwrap()
        };
        let mount = text("revfs-mount");
        for option in crate::mount8::names() {
            let named = option.replace('-', "\\-");
            assert!(mount.contains(&named), "{option}");
        }
        assert!(mount.contains("fstab"));
        let shown = |command: &&clap::Command| !command.is_hide_set();
        for command in Cli::command().get_subcommands().filter(shown) {
            let named = format!("revfs\\-{}(1)", command.get_name().replace('-', "\\-"));
            assert!(text("revfs").contains(&named), "{named}");
        }
        assert_eq!(pages.len(), 1 + Cli::command().get_subcommands().filter(shown).count());
    }
}
