//! The stores of a data directory: one is in use, the others are on their way in or out.
//!
//! ```text
//! incoming-N (grows) ─► store-N, whole ─► CURRENT names it, `installed` ─► the log has followed
//! ```
//!
//! A number is given once in the life of a process, to a copy and to the store that it becomes. Whatever
//! `CURRENT` does not name is a leftover: of a copy that was not finished, or of a store that was replaced
//! while somebody read it. The next start removes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::{CURRENT, Current, DataDir, Layout, STORE_PREFIX};
use crate::config::StartError;
use crate::log::LogId;

const INCOMING_PREFIX: &str = "incoming-";

/// Where a copy grows, and where the store will be that it becomes.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub(crate) incoming: PathBuf,
    pub(crate) store: PathBuf,
}

impl DataDir {
    /// Room for one more store.
    pub(crate) fn new_room(&self) -> Result<Room, StartError> {
        let of_entry = |name: &String| {
            let digits = name.strip_prefix(STORE_PREFIX).or(name.strip_prefix(INCOMING_PREFIX))?;
            digits.parse::<u64>().ok()
        };
        let found = self.entries()?.iter().filter_map(of_entry).max().unwrap_or(0);
        self.last_number.fetch_max(found, Ordering::Relaxed);
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Room {
            incoming: self.path.join(format!("{INCOMING_PREFIX}{number}")),
            store: self.path.join(format!("{STORE_PREFIX}{number}")),
        })
    }

    /// Puts `store` into use, durably. It stands at `installed`, where the log may not have arrived;
    /// without it, the log has.
    pub(crate) fn use_store(&self, store: &Path, installed: Option<LogId>) -> io::Result<()> {
        let name = store.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.write_durably(CURRENT, &Current::new(name, installed).to_text()).map_err(|error| {
            match error {
                StartError::Io { source, .. } => source,
                other => io::Error::other(other),
            }
        })
    }

    /// Removes what earlier processes left beside the store in use.
    pub(crate) fn remove_leftovers(&self, layout: &Layout) -> Result<(), StartError> {
        for name in self.entries()? {
            let path = self.path.join(&name);
            let removed = if name.starts_with(INCOMING_PREFIX) {
                fs::remove_file(&path)
            } else if name.starts_with(STORE_PREFIX) && path != layout.store {
                fs::remove_dir_all(&path)
            } else {
                continue;
            };
            removed.map_err(|error| StartError::io("remove", &path, error))?;
            tracing::info!(path = %path.display(), "removed what is no longer in use");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{DataDir, Identity};
    use crate::log::LogId;

    fn begin() -> (tempfile::TempDir, DataDir) {
        let directory = tempfile::tempdir().unwrap();
        let held = DataDir::hold(directory.path()).unwrap();
        let layout = held.begin_creation(Identity::random().unwrap()).unwrap();
        fs::create_dir(&layout.store).unwrap();
        held.finish_creation(layout.identity).unwrap();
        (directory, held)
    }

    #[test]
    fn the_store_in_use_is_the_one_that_current_names() {
        let (_directory, held) = begin();
        let before = held.layout().unwrap().unwrap();
        let room = held.new_room().unwrap();
        assert_eq!(room.store, held.path.join("store-2"));
        fs::create_dir(&room.store).unwrap();
        let installed = Some(LogId { term: 7, index: 4_000_000_000_000 });
        held.use_store(&room.store, installed).unwrap();
        let layout = held.layout().unwrap().unwrap();
        assert_eq!((&layout.store, layout.installed), (&room.store, installed));
        assert_eq!((layout.identity, &layout.log), (before.identity, &before.log));
        held.use_store(&room.store, None).unwrap();
        assert_eq!(held.layout().unwrap().unwrap().installed, None);
    }

    #[test]
    fn a_number_is_given_once() {
        let (_directory, held) = begin();
        let rooms: Vec<_> = (0..3).map(|_| held.new_room().unwrap().store).collect();
        let names = ["store-2", "store-3", "store-4"].map(|name| held.path.join(name));
        assert_eq!(rooms, names);
    }

    #[test]
    fn leftovers_are_removed_and_nothing_else() {
        let (_directory, held) = begin();
        for name in ["store-3", "store-4"] {
            fs::create_dir(held.path.join(name)).unwrap();
            fs::write(held.path.join(name).join("data.mdb"), "").unwrap();
        }
        fs::write(held.path.join("incoming-5"), "half").unwrap();
        fs::write(held.path.join("notes"), "not ours").unwrap();
        held.use_store(&held.path.join("store-3"), None).unwrap();
        let layout = held.layout().unwrap().unwrap();
        held.remove_leftovers(&layout).unwrap();
        let mut left = held.entries().unwrap();
        left.sort();
        let kept = ["CURRENT", "FORMAT", "LOCK", "identity", "log", "notes", "store-3"];
        assert_eq!(left, kept);
    }

    #[test]
    fn a_current_that_cannot_be_read_is_refused() {
        let (_directory, held) = begin();
        for text in ["store store-1\nlog log", "store store-1\nlog log\ninstalled 7\n", ""] {
            fs::write(held.path.join("CURRENT"), text).unwrap();
            assert!(held.layout().is_err(), "{text:?}");
        }
    }
}
