//! The log of a node in the background, bounded by size: a full one is set aside as `revfs.log.1`, in
//! place of the one before.
//!
//! Where the standard error of the process leads to the same file (a panic says there why), it follows.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

/// Two files of this size hold what led to most accidents, and no disk notices them.
const BYTES_MAX: u64 = 16 << 20;

#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl LogFile {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let file = append_to(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    fn set_aside(&mut self) -> io::Result<()> {
        fs::rename(&self.path, self.path.with_extension("log.1"))?;
        let file = append_to(&self.path)?;
        if is_stderr(&self.file) {
            nix::unistd::dup2_stderr(&file)?;
        }
        self.file = file;
        self.bytes = 0;
        Ok(())
    }
}

/// One line of the log is one call.
impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes >= BYTES_MAX && self.set_aside().is_err() {
            // On with the old one; another attempt when as much has been written again.
            self.bytes = 0;
        }
        let written = self.file.write(line)?;
        self.bytes += u64::try_from(written).unwrap_or(u64::MAX);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn append_to(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn is_stderr(file: &File) -> bool {
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let number = |file: &File| file.metadata().map(|own| (own.dev(), own.ino()));
    stderr.is_ok_and(|stderr| matches!((number(&stderr), number(file)), (Ok(a), Ok(b)) if a == b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_set_aside_while_it_is_written_and_the_one_before_goes() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) =
            (directory.path().join("revfs.log"), directory.path().join("revfs.log.1"));
        fs::write(&aside, "oldest\n").unwrap();
        let mut log = LogFile::open(path.clone()).unwrap();
        log.write_all(b"old\n").unwrap();
        log.bytes = BYTES_MAX;
        log.write_all(b"new\n").unwrap();
        log.write_all(b"newer\n").unwrap();
        assert_eq!(fs::read_to_string(&aside).unwrap(), "old\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\nnewer\n");
    }

    #[test]
    fn a_log_that_was_full_when_it_was_opened_is_set_aside_by_its_next_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revfs.log");
        File::create(&path).unwrap().set_len(BYTES_MAX).unwrap();
        let mut log = LogFile::open(path.clone()).unwrap();
        log.write_all(b"new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
    }

    #[test]
    fn a_log_that_cannot_be_set_aside_is_written_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revfs.log");
        fs::create_dir_all(directory.path().join("revfs.log.1/in the way")).unwrap();
        let mut log = LogFile::open(path.clone()).unwrap();
        log.bytes = BYTES_MAX;
        log.write_all(b"new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
    }
}
