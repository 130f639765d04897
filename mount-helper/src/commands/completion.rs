//! `revfs completion`: prints the completion script of a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::Result;
use crate::output::Output;

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs completion bash > ~/.local/share/bash-completion/completions/revfs
  revfs completion zsh > \"${fpath[1]}/_revfs\"
  revfs completion fish > ~/.config/fish/completions/revfs.fish")]
pub(crate) struct CompletionArgs {
    #[arg(value_name = "SHELL")]
    shell: Supported,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Supported {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(args: &CompletionArgs, output: &mut Output) -> Result<()> {
    let shell = match args.shell {
        Supported::Bash => Shell::Bash,
        Supported::Zsh => Shell::Zsh,
        Supported::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "revfs", &mut script);
    output.bytes(&script)?;
    output.finish()
}
