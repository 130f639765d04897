//! The mount of a member: a local view, read from the member's own store.
//!
//! It comes after the services and goes before them: what is staged in it is committed through the node. Taken
//! away by others (`revfs umount`, umount(8)) it is gone, and the node serves on without it: who unmounts
//! a directory does not want a member of the cluster to end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_fs::filesystem::MountOptions;
use revfs_fs::local_names::PatternError;
use revfs_fs::mount::Mounted;
use revfs_fs::path::DirectoryKey;

use super::layers::Values;
use super::value::flag;
use crate::commands::up::data_dir::DataDir;
use crate::error::{Failure, Result};
use crate::mounting::promises::{CommitWord, ConsistencyWord, word};
use crate::mounting::{self, directory};
use crate::unmount::absolute;

/// Settings that say how it is mounted.
const DETAILS: [&str; 7] = [
    "mount-prefix",
    "mount-read-only",
    "mount-allow-other",
    "mount-consistency",
    "mount-commit",
    "mount-cas",
    "mount-local",
];

/// See the module.
pub(super) struct ViewPlan {
    pub(super) point: PathBuf,
    options: MountOptions,
}

impl ViewPlan {
    pub(super) fn new(values: &Values, data_dir: &Path) -> Result<Option<Self>> {
        let point = values.text("mount");
        if point.is_empty() {
            let said = DETAILS.iter().find(|name| values.is_said(name));
            return said.map_or(Ok(None), |name| {
                Err(Failure::usage(format!("{} says how, but not where", values.told(name)))
                    .hint("name the directory with mount"))
            });
        }
        let point = absolute(Path::new(point))?;
        directory::check_apart(data_dir, &point)?;
        let root = values.parsed("mount-prefix", |text| {
            let root = DirectoryKey::new(Bytes::copy_from_slice(text.as_bytes()));
            root.map_err(|error| format!("a directory of keys, as /registry/pods/; {error}"))
        })?;
        let options = MountOptions {
            root,
            read_only: values.parsed("mount-read-only", flag)?,
            consistency: values.parsed("mount-consistency", word::<ConsistencyWord>)?.meaning(),
            commit: values.parsed("mount-commit", word::<CommitWord>)?.meaning(),
            compare_and_swap: values.parsed("mount-cas", flag)?,
            local: values.parsed("mount-local", |text| {
                text.parse().map_err(|error: PatternError| {
                    format!("patterns of names, colons between them; {error}")
                })
            })?,
            ..mounting::options(values.parsed("mount-allow-other", flag)?)
        };
        Ok(Some(Self { point, options }))
    }

    /// Looks whether the directory will do, and makes it ready; a dead mount of an earlier node goes.
    pub(super) fn prepare(&self) -> Result<()> {
        directory::prepare(&self.point, directory::check(&self.point)?)
    }

    /// Mounts, and makes sure that the mount answers.
    pub(super) async fn start(&self, keys: Arc<dyn KeySpace>) -> Result<Mounted> {
        let mounted = mounting::start(&self.point, keys, self.options.clone()).await?;
        // If it fails the mount goes as it is dropped.
        mounting::check(&self.point, &[]).await?;
        tracing::info!(point = %self.point.display(), "the member's store is mounted");
        Ok(mounted)
    }
}

/// Waits until the mount is taken away, and ends what belonged to it; for ever if there is none.
pub(super) async fn gone(mounted: Option<&Mounted>, data: &DataDir) {
    let Some(mounted) = mounted else { return std::future::pending().await };
    let point = mounted.mount_point().display();
    match mounted.wait().await {
        Ok(()) => tracing::warn!("{point} was unmounted: the node serves on without a mount"),
        Err(error) => tracing::error!(%error, "the mount {point} broke: the node serves on"),
    }
    // What was staged is committed.
    if let Err(error) = mounted.unmount().await {
        tracing::warn!(%error, "the mount {point} did not end in order");
    }
    if let Err(error) = data.tell_unmounted() {
        tracing::warn!(%error, "'revfs umount {point}' may wait in vain");
    }
}
