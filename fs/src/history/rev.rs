//! `@rev/`: the revisions that touched a directory, newest first, and the directory as of each.
//!
//! The listing walks back until it has [`HITS_MAX`] revisions, or has looked at [`SCAN_MAX`] revisions
//! of the store, or [`TIME_MAX`] has passed. If that cut it, its last entry is `older-than-N`, a
//! directory in which the listing goes on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fuser::{Errno, FileAttr};
use revfs_api::keyspace::{ChangesRequest, Error, KeyRange, Revision, Time};

use crate::attributes::record_key;
use crate::errno::errno;
use crate::filesystem::{Answer, Filesystem, Found};
use crate::found::{HIDDEN_TTL, Shown, file_attr, system_time};
use crate::history::RevName;
use crate::listing::{Entry, Listing, What};
use crate::node::{Hidden, Place, Tree};
use crate::path::DirectoryKey;
use crate::resolve::{Standing, Subject};

const HITS_MAX: usize = 100;
const SCAN_MAX: usize = 100_000;
const TIME_MAX: Duration = Duration::from_millis(100);
/// Revisions looked at between two looks at the clock.
const SCAN_STEP: usize = 5_000;

/// The revisions that a walk found, and where it would go on.
struct Walk {
    touched: Vec<(Revision, Time)>,
    next: Option<Revision>,
}

impl Filesystem {
    pub(crate) async fn lookup_revision(
        &self,
        directory: &DirectoryKey,
        name: &[u8],
    ) -> Answer<Found> {
        match RevName::parse(name).ok_or(Errno::ENOENT)? {
            RevName::At(revision) => {
                let hidden = Hidden::Revision { directory: directory.clone(), revision };
                let node = self.node_of(&Place::Hidden(hidden));
                let shown = self.shown_revision(node.ino, directory, revision).await;
                let shown = shown.inspect_err(|_| self.nodes.release(node.ino))?;
                // The one name on the way into the past that is asked for each time: a compaction
                // takes it away. All below it the kernel keeps for ever.
                let entry_ttl = Duration::ZERO;
                Ok(Found { attr: shown.attr, entry_ttl, attr_ttl: shown.ttl, node })
            }
            RevName::OlderThan(below) => {
                let hidden = Hidden::OlderRevisions { directory: directory.clone(), below };
                self.found_hidden(hidden).await
            }
        }
    }

    /// `@rev/N`: the directory as it was, dated by the commit.
    pub(crate) async fn shown_revision(
        &self,
        ino: u64,
        directory: &DirectoryKey,
        revision: Revision,
    ) -> Answer<Shown> {
        let subject = Subject::Directory(directory.clone());
        let Some(Standing::Directory(standing)) =
            self.stands(Tree::Past(revision), &subject).await?.standing
        else {
            return Err(Errno::ENOENT);
        };
        if !self.is_there(&standing) {
            return Err(Errno::ENOENT);
        }
        let attr = file_attr(ino, standing.answer.names, &standing.effective);
        let attr = match self.keys.stamp(revision).await {
            Ok(stamp) => dated(attr, stamp.time),
            // The first revision, of an empty store, has no stamp; and not every backend keeps them.
            Err(Error::Unsupported(_) | Error::Invalid(_)) => attr,
            Err(error) => return Err(errno(&error)),
        };
        Ok(Shown { attr, ttl: HIDDEN_TTL })
    }

    /// The listing of `@rev/`, or of `@rev/older-than-N/`.
    pub(crate) async fn list_revisions(
        &self,
        directory: &DirectoryKey,
        below: Option<Revision>,
    ) -> Answer<Listing> {
        self.confirm_present().await?;
        let walk = self.revisions_that_touched(directory, below).await?;
        let mut listing = Listing::default();
        for (revision, time) in walk.touched {
            let hidden = Hidden::Revision { directory: directory.clone(), revision };
            let name = Bytes::from(RevName::At(revision).to_string());
            let subject = Subject::Directory(directory.clone());
            let Some(Standing::Directory(standing)) =
                self.stands(Tree::Past(revision), &subject).await?.standing
            else {
                continue;
            };
            // At the revision that removed the directory there is none to show.
            if self.is_there(&standing) {
                let attr = file_attr(0, standing.answer.names, &standing.effective);
                let shown = Shown { attr: dated(attr, time), ttl: HIDDEN_TTL };
                listing.entries.push(Entry { name, what: What::Hidden { hidden, shown } });
            }
        }
        if let Some(next) = walk.next {
            let below = next.next();
            let hidden = Hidden::OlderRevisions { directory: directory.clone(), below };
            let shown = self.shown_hidden(0, &hidden).await?;
            let name = Bytes::from(RevName::OlderThan(below).to_string());
            listing.entries.push(Entry { name, what: What::Hidden { hidden, shown } });
        }
        Ok(listing)
    }

    /// Walks back from `below` (exclusive) or the present through the changes of a directory.
    async fn revisions_that_touched(
        &self,
        directory: &DirectoryKey,
        below: Option<Revision>,
    ) -> Answer<Walk> {
        let ranges = vec![directory.range(), KeyRange::prefix(&record_key(directory.as_bytes()))];
        let started = Instant::now();
        let mut walk = Walk { touched: Vec::new(), next: None };
        let mut to = match below {
            Some(Revision(0 | 1)) => return Ok(walk),
            Some(Revision(below)) => Revision(below - 1),
            None => Revision::NONE,
        };
        let mut from = Revision(1);
        let mut scanned = 0;
        while scanned < SCAN_MAX && started.elapsed() < TIME_MAX && walk.touched.len() < HITS_MAX {
            let request = ChangesRequest {
                ranges: ranges.clone(),
                from,
                to,
                newest_first: true,
                limit: HITS_MAX - walk.touched.len(),
                scan_limit: SCAN_STEP,
                keys_only: true,
            };
            let answer = match self.keys.changes(request).await {
                Ok(answer) => answer,
                Err(Error::Compacted { compacted, .. }) if from <= compacted => {
                    from = compacted.next();
                    continue;
                }
                // All that there was is compacted, or nothing was ever there.
                Err(Error::Future { .. }) => return Ok(walk),
                Err(error) => return Err(errno(&error)),
            };
            scanned += SCAN_STEP;
            walk.touched
                .extend(answer.revisions.iter().map(|own| (own.stamp.revision, own.stamp.time)));
            walk.next = answer.next.filter(|next| *next >= from);
            match walk.next {
                Some(next) => to = next,
                None => break,
            }
        }
        Ok(walk)
    }
}

fn dated(attr: FileAttr, time: Time) -> FileAttr {
    let time = system_time(time);
    FileAttr { mtime: time, atime: time, ctime: time, ..attr }
}
