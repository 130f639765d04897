//! Saving: what the node sends goes into a file without a name, which gets one when it is whole.
//!
//! Whatever kills the program before leaves nothing behind. Where the file system knows no files
//! without a name, the file is called `NAME.part` until then.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::linkat;
use revfs_cluster::restore::{self, Summary};

use super::{bytes, counting};
use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Failure, Result};
use crate::output::Progress;

pub(super) async fn save(file: &Path, of: Option<OsString>, globals: &Globals) -> Result<Summary> {
    let shown = file.display();
    if file.is_dir() {
        return Err(Failure::usage(format!("'{shown}' is a directory: name a file in it")));
    }
    let arguments: Vec<OsString> = of.into_iter().collect();
    let node = endpoint::open(globals, &arguments, false).await?;
    let what = || "back up the node".to_owned();
    let mut backup = node.keys.backup().await.asked(what)?;
    let unwritable = |error: io::Error| {
        Failure::caused(format!("cannot write '{shown}'"), &error)
            .hint("is there room for it? name a file on another disk")
    };
    let mut target = Target::open(file).map_err(unwritable)?;
    let progress = Progress::new();
    while let Some(part) = backup.next().await.asked(what)? {
        let stage = if part.is_copying() { "copying" } else { "receiving" };
        let (done, total) = (bytes(part.done_bytes), bytes(part.total_bytes));
        progress.at(format!("{stage}: {done} of {total}"));
        target.file.write_all(&part.chunk).map_err(unwritable)?;
    }
    target.file.sync_all().map_err(unwritable)?;
    let mut on_progress = counting(&progress, "checking");
    let summary = restore::verify(&target.path(), &mut on_progress);
    let summary = summary.map_err(|error| {
        Failure::caused("what the node sent is no whole snapshot: nothing was saved", &error)
            .hint("try again; if it stays so, look at the disk of the node")
    })?;
    target.name(file).map_err(unwritable)?;
    Ok(summary)
}

/// The file while it is being written.
struct Target {
    file: File,
    /// Where the file has a name already.
    part: Option<PathBuf>,
}

impl Target {
    fn open(file: &Path) -> io::Result<Self> {
        let parent = parent(file);
        let mut options = File::options();
        options.read(true).write(true).mode(0o600);
        let nameless = options.clone().custom_flags(OFlag::O_TMPFILE.bits()).open(parent);
        if let Ok(file) = nameless {
            return Ok(Self { file, part: None });
        }
        let path = part(file);
        let file = options.create(true).truncate(true).open(&path)?;
        Ok(Self { file, part: Some(path) })
    }

    /// A path at which the file can be read now.
    fn path(&self) -> PathBuf {
        match &self.part {
            Some(part) => part.clone(),
            None => PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd())),
        }
    }

    /// Gives the file its name, in place of an older one.
    fn name(&mut self, name: &Path) -> io::Result<()> {
        let part = part(name);
        if self.part.is_none() {
            // A program that was killed right here has left it.
            match fs::remove_file(&part) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let follow = AtFlags::AT_SYMLINK_FOLLOW;
            linkat(AT_FDCWD, &self.path(), AT_FDCWD, &part, follow)?;
            self.part = Some(part.clone());
        }
        fs::rename(&part, name)?;
        self.part = None;
        File::open(parent(name))?.sync_all()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            fs::remove_file(part).ok();
        }
    }
}

fn part(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    file.with_file_name(name)
}

fn parent(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
