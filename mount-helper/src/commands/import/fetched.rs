//! A snapshot that a running etcd sends: beside the new data directory, as long as it is needed.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::args::Globals;
use crate::commands::status::bytes;
use crate::endpoint;
use crate::error::{Asked as _, Failure, Result};
use crate::output::Progress;

/// The file; it goes with this.
pub(super) struct Fetched(PathBuf);

impl Fetched {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // The next import from there takes its place.
        std::fs::remove_file(&self.0).ok();
    }
}

pub(super) async fn fetch(url: &str, data_dir: &Path, globals: &Globals) -> Result<Fetched> {
    let asked = || format!("receive a snapshot of {url}");
    let client = endpoint::client_of(url, globals)?;
    let mut snapshot = client.etcd_snapshot().await.asked(asked)?;
    let mut name = data_dir.file_name().unwrap_or_default().to_owned();
    name.push(".etcd");
    let path = data_dir.with_file_name(name);
    let unwritable = |error: std::io::Error| {
        Failure::caused(format!("cannot write '{}'", path.display()), &error)
            .hint("it lies beside the new data directory: is there room for both?")
    };
    let mut file = File::create(&path).map_err(unwritable)?;
    let fetched = Fetched(path.clone());
    let progress = Progress::new();
    let mut done = 0;
    while let Some((piece, left)) = snapshot.next().await.asked(asked)? {
        file.write_all(&piece).map_err(unwritable)?;
        done += u64::try_from(piece.len()).unwrap_or_default();
        progress.at(format!("receiving: {} of {}", bytes(done), bytes(done + left)));
    }
    file.flush().map_err(unwritable)?;
    Ok(fetched)
}
