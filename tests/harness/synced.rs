//! What the disk takes to keep one group of a log: a few hundred bytes written into a file that was allocated in
//! advance, and synced.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

const FILE_BYTES: usize = 16 << 20;
const GROUP: [u8; 512] = [1; 512];

/// How long each of so many took, one after the other.
///
/// # Panics
/// If the disk does not take them, or there are more than the file holds.
#[must_use]
pub fn fdatasyncs(path: &Path, count: usize) -> Vec<Duration> {
    assert!(count <= FILE_BYTES / GROUP.len(), "{count} do not go into the file");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.expect("a file on the disk");
    file.write_all_at(&vec![0; FILE_BYTES], 0).expect("16 MiB of zeros");
    file.sync_all().expect("they are on the disk");
    let each = (0..).step_by(GROUP.len()).take(count).map(|offset| {
        let begun = Instant::now();
        file.write_all_at(&GROUP, offset).expect("a group");
        file.sync_data().expect("it is on the disk");
        begun.elapsed()
    });
    each.collect()
}
