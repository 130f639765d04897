//! [`StoreOptions`]: what a store may take of its machine.

use std::sync::Arc;
use std::time::Duration;

use crate::durations::Durations;
use crate::schema::Tree;
use crate::watch::WatchOptions;

/// How a store uses its machine. None of this changes what apply answers.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Address space reserved for the file, and thereby its largest size.
    pub map_bytes: usize,
    /// Slots for read views that exist at once.
    pub max_readers: u32,
    /// The overlay is committed this long after its first change at the latest, …
    pub commit_interval: Duration,
    /// … or after so many rows …
    pub commit_changes: usize,
    /// … or bytes.
    pub commit_bytes: usize,
    /// Apply waits for the running commit while the overlay holds more.
    pub overlay_bytes_max: usize,
    /// A commit that found no space is tried again after so long.
    pub retry_interval: Duration,
    /// Who waits for a commit is told so when the log has not reached it for so long.
    pub log_wait_max: Duration,
    /// Keys whose old versions one batch of a physical compaction removes, when nothing else is to do.
    pub compaction_batch: usize,
    /// Pause between two batches of a physical compaction while nothing is applied.
    pub compaction_pause: Duration,
    /// A file of at most so many pages is checked whole before LMDB sees it, …
    pub check_whole_pages: usize,
    /// … a larger one up to so many, from the roots down: what opening costs does not follow its size.
    /// The default are the roots of all trees.
    pub check_pages_max: usize,
    pub watch: WatchOptions,
    /// Counts how long each commit took.
    pub commits: Arc<Durations>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            map_bytes: 1 << 40,
            max_readers: 1024,
            commit_interval: Duration::from_millis(100),
            commit_changes: 10_000,
            commit_bytes: 16 << 20,
            overlay_bytes_max: 8 << 20,
            retry_interval: Duration::from_millis(500),
            log_wait_max: Duration::from_secs(5),
            compaction_batch: 1_000,
            compaction_pause: Duration::from_millis(10),
            check_whole_pages: 1_024,
            check_pages_max: Tree::ALL.len() + 2,
            watch: WatchOptions::default(),
            commits: Arc::default(),
        }
    }
}
