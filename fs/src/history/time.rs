//! `@time/T`: a symlink to the revision that was current at T, asked anew at each use.

use std::time::Duration;

use bytes::Bytes;
use fuser::Errno;
use jiff::Timestamp;
use revfs_api::keyspace::{Revision, Time};

use crate::attributes::Kind;
use crate::errno::errno;
use crate::filesystem::{Answer, Filesystem, Found};
use crate::found::{Shown, file_attr};
use crate::history::parse_time_name;
use crate::node::{Hidden, Place};
use crate::path::DirectoryKey;

/// The revision of a store in which nothing has happened yet.
const EMPTY: Revision = Revision(1);

impl Filesystem {
    /// The revision that `@time/NAME` points to.
    pub(crate) async fn revision_named(&self, name: &[u8]) -> Answer<Revision> {
        let time =
            parse_time_name(name, Timestamp::now(), &self.options.time_zone).map_err(|error| {
                tracing::debug!(%error, "@time");
                Errno::ENOENT
            })?;
        let revision = self.within(self.keys.revision_at(time)).await?;
        // Before the first revision that anything made, the mount has no past to show.
        let is_before_all =
            revision <= EMPTY && self.ask(Revision::NONE, Vec::new()).await?.current > EMPTY;
        if is_before_all { Err(Errno::ESTALE) } else { Ok(revision) }
    }

    pub(crate) async fn lookup_time(&self, directory: &DirectoryKey, name: &[u8]) -> Answer<Found> {
        let shown = self.shown_time(0, name).await?;
        let name = Bytes::copy_from_slice(name);
        let hidden = Hidden::TimeLink { directory: directory.clone(), name };
        let node = self.node_of(&Place::Hidden(hidden));
        let mut attr = shown.attr;
        attr.ino = fuser::INodeNo(node.ino);
        Ok(Found { attr, entry_ttl: Duration::ZERO, attr_ttl: Duration::ZERO, node })
    }

    pub(crate) async fn shown_time(&self, ino: u64, name: &[u8]) -> Answer<Shown> {
        let revision = self.revision_named(name).await?;
        let time = match self.keys.stamp(revision).await {
            Ok(stamp) => stamp.time,
            Err(revfs_api::keyspace::Error::Invalid(_)) => Time(0),
            Err(error) => return Err(errno(&error)),
        };
        let target_bytes = format!("../@rev/{revision}").len() as u64;
        let effective = self.made_up(Kind::Symlink, 0o777, time);
        Ok(Shown { attr: file_attr(ino, target_bytes, &effective), ttl: Duration::ZERO })
    }
}
