//! Wall clocks of processes that a test steps: a library that they preload adds what a file says.
//!
//! Only the wall clock moves, as when an operator or a time service sets it; what counts time goes on.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::tools;

const SOURCE: &str = include_str!("clock.c");

/// The library, built in a directory of the test.
pub struct Clocks {
    directory: PathBuf,
}

impl Clocks {
    /// # Panics
    /// If the library cannot be built.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        tools::need(&["cc"]);
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-x", "c", "-", "-o"]);
        command.arg(directory.join("clock.so")).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut input = child.stdin.take().expect("it is piped");
        std::io::Write::write_all(&mut input, SOURCE.as_bytes()).expect("cc reads it");
        drop(input);
        assert!(child.wait().expect("it is our child").success(), "{command:?} failed");
        Self { directory: directory.to_owned() }
    }

    fn file(&self, number: u8) -> PathBuf {
        self.directory.join(format!("clock-{number}"))
    }

    /// Variables of a process that has the clock of this number.
    ///
    /// # Panics
    /// If there is no room for its file.
    #[must_use]
    pub fn variables(&self, number: u8) -> [(&'static str, PathBuf); 2] {
        if !self.file(number).exists() {
            self.step(number, 0);
        }
        [("LD_PRELOAD", self.directory.join("clock.so")), ("SHIFTED_CLOCK", self.file(number))]
    }

    /// From now on the clock is so many seconds off.
    ///
    /// # Panics
    /// If its file cannot be written.
    #[expect(clippy::host_endian_bytes, reason = "it is C's own number, in memory on this machine")]
    pub fn step(&self, number: u8, seconds: i64) {
        let file = File::options().create(true).truncate(false).write(true).open(self.file(number));
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", self.file(number).display()));
        file.write_all_at(&seconds.to_ne_bytes(), 0).expect("eight bytes");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::Clocks;

    #[test]
    fn a_stepped_clock_is_off_by_what_was_said() {
        let directory = tempfile::tempdir().unwrap();
        let clocks = Clocks::new(directory.path());
        let off_by = |seconds: i64| {
            clocks.step(0, seconds);
            let mut command = Command::new("date");
            let output = command.arg("+%s").envs(clocks.variables(0)).output().unwrap();
            let shown: i64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            shown - i64::try_from(now).unwrap()
        };
        for seconds in [0, 3_600, -86_400] {
            assert!((seconds - 60..=seconds).contains(&off_by(seconds)), "{seconds}");
        }
    }
}
