//! What is mounted: a cluster, or a backup that lies in a file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use revfs_api::KeySpace;
use revfs_api::client::{ETCD, Endpoints, Settings, connect_with};
use revfs_cluster::backup_keys::BACKUP;
use revfs_cluster::restore::verify;

use crate::commands::snapshot::counting;
use crate::endpoint;
use crate::error::{Asked as _, Failure, Kind, Result};
use crate::output::Progress;
use crate::unmount::absolute;

/// See the module.
pub(super) enum Source {
    Cluster(Endpoints),
    /// Its absolute path.
    Backup(PathBuf),
}

/// What answers behind a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    Revfs,
    Etcd,
    Backup,
}

impl Backend {
    pub(super) fn of(status: &revfs_api::keyspace::Status) -> Self {
        match status.backend.as_str() {
            ETCD => Self::Etcd,
            BACKUP => Self::Backup,
            _ => Self::Revfs,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Revfs => "revfs",
            Self::Etcd => ETCD,
            Self::Backup => BACKUP,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(endpoints) => endpoints.fmt(f),
            Self::Backup(file) => file.display().fmt(f),
        }
    }
}

impl Source {
    pub(super) fn new(text: &str) -> Result<Self> {
        if endpoint::is_backup(text) {
            return Ok(Self::Backup(absolute(Path::new(text))?));
        }
        let endpoints = text.parse().map_err(|error| {
            Failure::caused(format!("'{text}' names no cluster, and no file"), &error)
                .hint("http://host:2379, https://host:2379, host:2379, /path/revfs.sock; several with commas")
                .hint("or a file that `revfs snapshot save` made")
                .of_kind(Kind::Usage)
        })?;
        Ok(Self::Cluster(endpoints))
    }

    /// Reads all of a backup: a damaged one is refused before anything is mounted.
    pub(super) fn check(&self) -> Result<()> {
        let Self::Backup(file) = self else { return Ok(()) };
        let progress = Progress::new();
        let mut on_progress = counting(&progress, "checking");
        let verified = verify(file, &mut on_progress);
        let failed = |error| Failure::caused(format!("cannot mount '{}'", file.display()), &error);
        verified.map(drop).map_err(failed)
    }

    pub(super) async fn open(&self, settings: &Settings) -> Result<(Arc<dyn KeySpace>, Backend)> {
        let keys: Arc<dyn KeySpace> = match self {
            Self::Backup(file) => endpoint::open_backup(file)?,
            Self::Cluster(endpoints) => connect_with(endpoints, settings.clone())
                .await
                .asked(|| format!("reach the cluster at {endpoints}"))?,
        };
        let status = keys.status().await.asked(|| format!("reach the cluster at {self}"))?;
        Ok((keys, Backend::of(&status)))
    }
}
