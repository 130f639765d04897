//! Certificates that are replaced while the node runs. Whoever replaces several files may be caught in
//! the middle: then the pair does not fit, the old settings stay, and the next look finds the rest.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Tls, TlsOptions};

/// Renewed certificates are there days before the old ones end.
const PERIOD: Duration = Duration::from_secs(1);

/// How the files looked when they were read; files that are replaced, written or missing look different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

/// Device, inode, size, and the time of the last change in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

impl Stamps {
    pub(super) fn of(options: &TlsOptions) -> Self {
        let TlsOptions { certificate, key, trusted_authorities, revoked, .. } = options;
        let files = [Some(certificate), Some(key), trusted_authorities.as_ref(), revoked.as_ref()];
        Self(files.into_iter().flatten().map(|path| stamp(path)).collect())
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

/// Looks until nobody uses `tls` any more.
pub(super) fn spawn(tls: &Arc<Tls>, mut seen: Stamps) {
    let tls = Arc::downgrade(tls);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (tls, before) = (Weak::clone(&tls), seen.clone());
            match tokio::task::spawn_blocking(move || look(&tls, before)).await {
                Ok(Some(now)) => seen = now,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "certificates are not read again any more");
                    return;
                }
            }
        }
    });
}

/// Reads again if something changed; how the files look then. `None` if nobody uses `tls` any more.
fn look(tls: &Weak<Tls>, before: Stamps) -> Option<Stamps> {
    let tls = tls.upgrade()?;
    // First the look, then the reading: what changes in between is seen by the next look.
    let now = Stamps::of(&tls.options);
    if now != before {
        match tls.reload() {
            Ok(()) => {
                let certificate = tls.options.certificate.display();
                tracing::info!(%certificate, "certificates have changed: new connections use them");
            }
            Err(error) => {
                tracing::warn!(%error, "certificates have changed, but cannot be used: the old ones stay");
            }
        }
    }
    Some(now)
}
