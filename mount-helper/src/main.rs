//! `revfs`: a replicated, versioned key-value store that you mount.
//!
//! One way through the program: [`args`] says what can be asked, [`commands`] does it, [`output`]
//! prints the answer, [`error`] prints what went wrong and decides the exit code. `up` runs a node and
//! its mount, `serve` a node for clients of the network; every other command is a client that finds the node ([`endpoint`], [`target`]) and works
//! only through [`revfs_api::KeySpace`].
//!
//! No thread is started before `up --daemon` has detached itself.

mod args;
mod child;
mod commands;
mod compare;
mod connection;
mod data_lock;
mod endpoint;
mod error;
mod guard;
mod lease_id;
mod log_file;
mod moment;
mod mount8;
mod mounting;
mod mounts;
mod names;
mod origin;
mod output;
mod password;
mod scan;
mod signals;
mod target;
mod turn;
mod unified;
mod unmount;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Mutex;

use clap::Parser as _;
use mimalloc::MiMalloc;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command, Globals};
use error::{Failure, Kind, Result};
use log_file::LogFile;
use output::Output;

/// A node allocates on one thread what it frees on another, at every request.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let words = match mount8::command_line(std::env::args_os()) {
        Ok(Some(words)) => words,
        Ok(None) => return ExitCode::SUCCESS,
        Err(failure) => return report(&failure, false),
    };
    let cli = match parse(words) {
        Ok(Ok(cli)) => cli,
        Ok(Err(failure)) => return report(&failure, asks_for_json()),
        Err(error) => return refuse(&error),
    };
    let json = cli.globals.json;
    match run(cli) {
        Ok(code) => code,
        Err(failure) => report(&failure, json),
    }
}

/// What `-o` says counts as if it had been said by options of their own.
fn parse(mut words: Vec<OsString>) -> Result<Result<Cli>, clap::Error> {
    let cli = Cli::try_parse_from(&words)?;
    let Command::Mount(args) = &cli.command else { return Ok(Ok(cli)) };
    match mount8::flags(args.options(), false) {
        Ok(flags) if flags.is_empty() => Ok(Ok(cli)),
        Ok(flags) => {
            let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
            words.splice(end..end, flags);
            Cli::try_parse_from(words).map(Ok)
        }
        Err(failure) => Ok(Err(failure)),
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { globals, command } = cli;
    let mut output = Output::new(globals.json);
    if let Command::Up(args) = command {
        return commands::up::run(args, &globals, &mut output);
    }
    if let Command::Mount(args) = command {
        return commands::mount::run(&args, &globals, &mut output);
    }
    if let Command::Serve(args) = command {
        commands::serve::run(args, &globals, &mut output)?;
        return Ok(ExitCode::SUCCESS);
    }
    start_log(globals.log.as_deref(), "warn")?;
    match command {
        Command::Completion(args) => commands::completion::run(&args, &mut output)?,
        Command::Man(args) => commands::man::run(&args, &mut output)?,
        Command::Umount(args) => commands::umount::run(&args, &mut output)?,
        Command::Inspect(args) => commands::inspect::run(&args, &mut output)?,
        Command::Recover(args) => commands::recover::run(&args, &mut output)?,
        Command::GuardMount(args) => guard::run(&args)?,
        client => return run_client(client, &globals, &mut output),
    }
    Ok(ExitCode::SUCCESS)
}

fn run_client(command: Command, globals: &Globals, output: &mut Output) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::caused("cannot start", &error))?;
    runtime.block_on(async {
        match command {
            Command::Txn(args) => return commands::txn::run(args, globals, output).await,
            Command::Watch(args) => return commands::watch::run(args, globals, output).await,
            Command::Lease(args) => return commands::lease::run(args, globals, output).await,
            Command::Lock(args) => return commands::lock::run(args, globals, output).await,
            Command::Elect(args) => return commands::elect::run(args, globals, output).await,
            Command::User(args) => commands::user::run(args, globals, output).await,
            Command::Role(args) => commands::role::run(args, globals, output).await,
            Command::Auth(args) => commands::auth::run(args, globals, output).await,
            Command::Alarm(args) => commands::alarm::run(args, globals, output).await,
            Command::Member(args) => commands::member::run(args, globals, output).await,
            Command::Compact(args) => commands::compact::run(args, globals, output).await,
            Command::Get(args) => commands::get::run(args, globals, output).await,
            Command::Put(args) => commands::put::run(args, globals, output).await,
            Command::Del(args) => commands::del::run(args, globals, output).await,
            Command::Ls(args) => commands::ls::run(args, globals, output).await,
            Command::Log(args) => commands::log::run(args, globals, output).await,
            Command::Diff(args) => commands::diff::run(args, globals, output).await,
            Command::Restore(args) => commands::restore::run(args, globals, output).await,
            Command::Stat(args) => commands::stat::run(args, globals, output).await,
            Command::Status(args) => commands::status::run(args, globals, output).await,
            Command::Import(args) => commands::import::run(args, globals, output).await,
            Command::Mirror(args) => commands::mirror::run(args, globals, output).await,
            Command::Snapshot(args) => commands::snapshot::run(args, globals, output).await,
            Command::Up(_)
            | Command::Mount(_)
            | Command::Serve(_)
            | Command::Umount(_)
            | Command::Inspect(_)
            | Command::Recover(_)
            | Command::Completion(_)
            | Command::Man(_)
            | Command::GuardMount(_) => unreachable!("they are no clients"),
        }?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Logs to standard error; `default` holds where neither --log nor RUST_LOG says otherwise.
fn start_log(filter: Option<&str>, default: &str) -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(log_filter(filter.unwrap_or(default))?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

/// As [`start_log`], to a file.
fn start_log_in(file: LogFile, filter: Option<&str>, default: &str) -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(log_filter(filter.unwrap_or(default))?)
        .with_writer(Mutex::new(file))
        .with_ansi(false)
        .init();
    Ok(())
}

pub(crate) fn log_filter(text: &str) -> Result<EnvFilter> {
    EnvFilter::try_new(text).map_err(|error| {
        Failure::caused(format!("--log '{text}' is no filter"), &error)
            .hint("for example: warn, info, or revfs_fs=debug,info")
            .of_kind(Kind::Usage)
    })
}

fn report(failure: &Failure, json: bool) -> ExitCode {
    if !failure.kind.is_silent() {
        let text = if json { failure.render_json() } else { failure.render() };
        // If standard error is closed too, the exit code has to say it all.
        std::io::stderr().write_all(text.as_bytes()).ok();
    }
    match mount8::is_helper() {
        true => mount8::exit_code(failure.kind),
        false => ExitCode::from(failure.kind.exit_code()),
    }
}

/// `--json`, as long as the words could not be read further.
fn asks_for_json() -> bool {
    std::env::args_os().skip(1).any(|argument| argument == "--json")
}

/// Help and version are answers, not errors; what clap refuses is a usage error.
fn refuse(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && asks_for_json() {
        let text = error.render().to_string();
        let message = text.trim().strip_prefix("error: ").unwrap_or(text.trim()).to_owned();
        return report(&Failure::usage(message), true);
    }
    match error.print() {
        Ok(()) if mount8::is_helper() => mount8::exit_code(Kind::Usage),
        Ok(()) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
        Err(error) => report(&Failure::from(error), false),
    }
}
