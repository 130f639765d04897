//! `revfs txn`: a transaction, from a readable text or by a command that works in a mount.
//!
//! [`words`] and [`grammar`] read the text, [`answers`] prints what came of it; [`mounted`] runs the command.

mod answers;
mod grammar;
mod mounted;
mod words;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueHint;

use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Failure, Kind, Result};
use crate::origin::origin;
use crate::output::Output;

/// Change several files or keys in one step
///
/// With -- CMD: runs CMD in DIR, a directory of a mount, as if nobody else were there: it sees DIR
/// as it was when it began, and nobody sees its changes until it has exited with 0. Then all of them
/// become one revision, if nothing that it read or wrote has changed meanwhile (otherwise: exit code 3,
/// or CMD again with --retry). If CMD fails nothing has happened, and its exit code is ours. CMD finds
/// the transaction's copy of the mount in REVFS_TXN.
///
/// Without: a text of conditions and operations on keys. FILE (or standard input) has one statement a line:
///
///   if                            the conditions, all of which must hold
///     value|version|create|mod|lease RANGE =|!=|<|> OPERAND
///     exists KEY | absent RANGE
///   then                          what happens then; without `if` the first word may be left out
///     put KEY VALUE [lease ID|keep-lease] [prev]     append KEY VALUE
///     get RANGE [rev N] [limit N] [keys|count]       delete RANGE [prev]
///     move FROM TO    exchange A B    restore RANGE rev N    txn … end
///   else                          what happens otherwise
///
/// RANGE: KEY, prefix KEY, from KEY, range KEY END. What holds blanks is written "…" with
/// \n \t \" \\ \xHH. A comment begins with #. Exits 3 if the conditions do not hold.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  printf 'if absent /lock\\nthen put /lock me\\nelse get /lock\\n' | revfs txn
  revfs txn switch.txn --json
  revfs txn ~/revfs/app -- sh -c 'sed -i s/8/16/ limits && mv old new'
  revfs txn ~/revfs --retry 10 -- sh -c 'echo $(( $(cat n) + 1 )) > n'"
)]
pub(crate) struct TxnArgs {
    /// The text; left out or -: standard input. With a command: the directory that it works in
    #[arg(value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    file: Option<PathBuf>,

    /// Run CMD again, so many times at most, if something that it read or wrote has changed meanwhile
    #[arg(long, value_name = "N", default_value_t = 0, requires = "command")]
    retry: u32,

    /// What to run in DIR
    #[arg(last = true, value_name = "CMD", requires = "file")]
    command: Vec<OsString>,
}

/// Above what a transaction may change, escapes included.
const TEXT_BYTES_MAX: u64 = 1 << 30;

pub(crate) async fn run(args: TxnArgs, globals: &Globals, output: &mut Output) -> Result<ExitCode> {
    if let (Some(directory), false) = (&args.file, args.command.is_empty()) {
        return mounted::run(directory, &args.command, args.retry, output).await;
    }
    let path = args.file.filter(|path| path != Path::new("-"));
    let name = path.as_ref().map_or("standard input".to_owned(), |path| path.display().to_string());
    let text = read(path.as_deref(), &name)?;
    let txn = grammar::parse(&text).map_err(|wrong| {
        let (line, column) = (wrong.place.line, wrong.place.column);
        Failure::usage(format!("{name}: line {line}, column {column}: {}", wrong.reason))
            .hint("revfs txn --help shows the grammar")
    })?;
    let node = endpoint::open(globals, &[] as &[OsString], true).await?;
    let answer = node.keys.txn(txn.clone(), origin()).await;
    let answer = answer.asked(|| format!("run the transaction of {name}"))?;
    if output.json {
        output.document(&answers::document(&txn, &answer, false))?;
    } else {
        for line in answers::lines(&txn, &answer, 0) {
            output.line(&line)?;
        }
    }
    output.finish()?;
    let kind = Kind::Conflict;
    Ok(if answer.succeeded { ExitCode::SUCCESS } else { ExitCode::from(kind.exit_code()) })
}

fn read(path: Option<&Path>, name: &str) -> Result<String> {
    let failed = |error: io::Error| Failure::caused(format!("cannot read {name}"), &error);
    let input: Box<dyn Read> = match path {
        Some(path) => Box::new(File::open(path).map_err(failed)?),
        None => Box::new(io::stdin().lock()),
    };
    let mut bytes = Vec::new();
    input.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(Failure::usage(format!("{name} is larger than {TEXT_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        Failure::usage(format!("{name}: line {}: it is no UTF-8", line + 1))
            .hint("write such bytes as \\xHH in a string")
    })
}
