//! Passwords: from a file, from a variable, or asked for on the terminal, where they are not shown.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::Path;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::error::{Failure, Result};

/// The first line of a file.
pub(crate) fn first_line(option: &str, file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::caused(format!("cannot read {option} '{}'", file.display()), &error)
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Asks whoever sits at the terminal; `None` if nobody does.
pub(crate) fn ask(question: &str) -> Result<Option<String>> {
    let failed =
        |error: &dyn std::error::Error| Failure::caused("cannot ask for a password", error);
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    let Ok(terminal) = File::options().read(true).write(true).open("/dev/tty") else {
        return Ok(None);
    };
    let silent = Silent::new(&terminal).map_err(|error| failed(&error))?;
    write!(&terminal, "{question}: ").map_err(|error| failed(&error))?;
    let mut line = String::new();
    let read = BufReader::new(&terminal).read_line(&mut line);
    drop(silent);
    // The user's own end of the line was not shown either.
    writeln!(&terminal).map_err(|error| failed(&error))?;
    read.map_err(|error| failed(&error))?;
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn new(terminal: &'a File) -> nix::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing.
        tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before).ok();
    }
}
