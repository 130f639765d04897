//! Changes as lines of JSON: `{"revision":41,"time":"…","author":{…},"kind":"write","path":"app/limits"}`.
//!
//! Each file that a revision changes is one line, by its path below the watched directory: `create`,
//! `write` or `delete`, or `attributes` if nothing but those changed. A directory that is made or removed
//! is one too, with a slash at its end, but not one that only comes and goes with the files in it. A
//! rename is a deletion and a creation of each file.
//!
//! What lies in a subdirectory is told only to who may list every directory on the way there, then
//! and, where it still is, now.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{
    Answer as KeyAnswer, ChangeKind, Event, Read, Revision, RevisionEvents, Stamp,
};
use serde_json::{Map, Value, json};

use super::Watching;
use crate::attributes::{Effective, RECORD_PREFIX};
use crate::filesystem::{Answer, Filesystem};
use crate::path::DirectoryKey;
use crate::resolve::{Seen, Standing, Subject};

/// Below it lies what is no file of a user's.
const OWN_PREFIX: &[u8] = b"\0revfs/";

/// The key of the file or directory that a change of `key` shows on; `None` if it shows on none.
pub(super) fn subject(key: &[u8]) -> Option<&[u8]> {
    match key.strip_prefix(RECORD_PREFIX) {
        Some(subject) => Some(subject),
        None => (!key.starts_with(OWN_PREFIX)).then_some(key),
    }
}

/// Directories that came, and those that went, with the markers of a revision.
#[derive(Default)]
struct Turned {
    came: HashSet<Bytes>,
    went: HashSet<Bytes>,
}

/// A change that is told.
struct Change {
    /// Of the file, or the prefix of the directory.
    key: Bytes,
    is_directory: bool,
    kind: &'static str,
}

impl Change {
    /// The directory in which it shows.
    fn parent(&self) -> DirectoryKey {
        let end = self.key.len() - usize::from(self.is_directory);
        DirectoryKey::of_key(&self.key.slice(..end)).0
    }
}

impl Filesystem {
    /// The changes of some revisions that the reader may know of.
    pub(super) async fn lines(
        &self,
        watching: &Watching,
        revisions: &[RevisionEvents],
    ) -> Answer<Bytes> {
        let mut lines = Vec::new();
        for events in revisions {
            let turned = self.turned(events).await?;
            let mut readable = HashMap::new();
            for change in changes(&events.events, &turned) {
                let revision = events.stamp.revision;
                if self.may_know(watching, &change, revision, &mut readable).await? {
                    let line = line(watching.directory(), &change, &events.stamp);
                    lines.extend_from_slice(line.to_string().as_bytes());
                    lines.push(b'\n');
                }
            }
        }
        Ok(lines.into())
    }

    /// Which markers are put where nothing was, and which are deleted where nothing is left.
    async fn turned(&self, events: &RevisionEvents) -> Answer<Turned> {
        let revision = events.stamp.revision;
        let of_kind = |kind| {
            let markers = events
                .events
                .iter()
                .filter(move |event| event.kind == kind && is_marker(event) && !is_again(event));
            markers.map(|event| event.kv.key.clone()).collect::<Vec<_>>()
        };
        let before = Revision(revision.0.saturating_sub(1));
        Ok(Turned {
            came: self.absent(before, of_kind(ChangeKind::Put)).await?,
            went: self.absent(revision, of_kind(ChangeKind::Delete)).await?,
        })
    }

    /// Those of some directories that are not there at a revision (if that is still known).
    async fn absent(&self, revision: Revision, directories: Vec<Bytes>) -> Answer<HashSet<Bytes>> {
        if directories.is_empty() {
            return Ok(HashSet::new());
        }
        let reads = directories.iter().cloned().map(Read::Directory).collect();
        let answers = match self.ask(revision, reads).await {
            Ok(answer) => answer.answers,
            Err(errno) if errno == Errno::ESTALE => return Ok(directories.into_iter().collect()),
            Err(errno) => return Err(errno),
        };
        let is_there = |answer: &KeyAnswer| matches!(answer, KeyAnswer::Directory(directory) if directory.names > 0);
        let found = directories.into_iter().zip(answers);
        Ok(found.filter(|(_, answer)| !is_there(answer)).map(|(key, _)| key).collect())
    }

    /// Whether the reader may list each directory from its own down to that of a change.
    async fn may_know(
        &self,
        watching: &Watching,
        change: &Change,
        revision: Revision,
        readable: &mut HashMap<DirectoryKey, bool>,
    ) -> Answer<bool> {
        if watching.reader.may_list_all() {
            return Ok(true);
        }
        let mut directory = change.parent();
        let watched = watching.directory();
        while directory != *watched && watched.contains(directory.as_bytes()) {
            let may = match readable.get(&directory) {
                Some(may) => *may,
                None => {
                    let may = self.may_list(watching, &directory, revision).await?;
                    readable.insert(directory.clone(), may);
                    may
                }
            };
            let (true, Some(above)) = (may, directory.parent()) else { return Ok(false) };
            directory = above;
        }
        Ok(true)
    }

    /// By what the directory is at a revision, or was before it went, and by what it is now if it is.
    async fn may_list(
        &self,
        watching: &Watching,
        directory: &DirectoryKey,
        revision: Revision,
    ) -> Answer<bool> {
        let before = Revision(revision.0.saturating_sub(1));
        let then = match self.was(directory, revision).await? {
            None => self.was(directory, before).await?,
            then => then,
        };
        let now = self.was(directory, Revision::NONE).await?;
        let may = |then: Effective| watching.reader.may_list(&then);
        Ok(then.is_some_and(may) && now.is_none_or(may))
    }

    /// A directory at a revision, if it was there and that is still known.
    async fn was(&self, directory: &DirectoryKey, revision: Revision) -> Answer<Option<Effective>> {
        match self.stands_at(revision, &Subject::Directory(directory.clone())).await {
            Ok(Seen { standing: Some(Standing::Directory(standing)), .. }) => {
                Ok((standing.answer.names > 0).then_some(standing.effective))
            }
            Err(errno) if errno != Errno::ESTALE => Err(errno),
            Ok(_) | Err(_) => Ok(None),
        }
    }
}

/// Of a deletion nobody knows what its value was.
fn is_marker(event: &Event) -> bool {
    let is_empty = event.kind == ChangeKind::Delete || event.kv.value_bytes == 0;
    event.kv.key.ends_with(b"/") && is_empty && !event.kv.key.starts_with(OWN_PREFIX)
}

/// A key that was there is put once more.
fn is_again(event: &Event) -> bool {
    event.kind == ChangeKind::Put && event.kv.create_revision != event.kv.mod_revision
}

/// What is told of a revision, in its order.
fn changes(events: &[Event], turned: &Turned) -> Vec<Change> {
    let kinds: Vec<_> = events.iter().map(|event| kind_of(event, turned)).collect();
    let told = events.iter().zip(&kinds).filter(|(_, kind)| kind.is_some());
    let told: HashSet<&[u8]> = told.map(|(event, _)| &event.kv.key[..]).collect();
    let change = |(event, kind): (&Event, &Option<&'static str>)| {
        let key = &event.kv.key;
        let record = key.strip_prefix(RECORD_PREFIX);
        match (kind, record) {
            (Some(kind), _) => {
                Some(Change { key: key.clone(), is_directory: is_marker(event), kind })
            }
            (None, Some(subject)) if !told.contains(subject) => Some(Change {
                key: key.slice(RECORD_PREFIX.len()..),
                is_directory: subject.ends_with(b"/"),
                kind: "attributes",
            }),
            (None, _) => None,
        }
    };
    events.iter().zip(&kinds).filter_map(change).collect()
}

/// What is told of a change of a user's key; `None` for what is no change of a file or directory.
fn kind_of(event: &Event, turned: &Turned) -> Option<&'static str> {
    let key = &event.kv.key;
    if key.starts_with(OWN_PREFIX) {
        return None;
    }
    if is_marker(event) {
        let came = turned.came.contains(key).then_some("create");
        return came.or_else(|| turned.went.contains(key).then_some("delete"));
    }
    Some(match event.kind {
        ChangeKind::Put if is_again(event) => "write",
        ChangeKind::Put => "create",
        ChangeKind::Delete => "delete",
    })
}

fn line(directory: &DirectoryKey, change: &Change, stamp: &Stamp) -> Value {
    let mut object = Map::new();
    object.insert("revision".into(), stamp.revision.0.into());
    if stamp.time.is_known()
        && let Ok(time) = jiff::Timestamp::from_nanosecond(i128::from(stamp.time.0))
    {
        object.insert("time".into(), format!("{time:.9}").into());
    }
    let author = &stamp.author;
    if !(author.principal.is_empty() && author.claimed.is_empty()) {
        let author = json!({ "principal": author.principal, "claimed": author.claimed });
        object.insert("author".into(), author);
    }
    object.insert("kind".into(), change.kind.into());
    let path = path_below(directory, change);
    match std::str::from_utf8(&path) {
        Ok(path) => object.insert("path".into(), path.into()),
        Err(_) => object.insert("path_escaped".into(), path.escape_ascii().to_string().into()),
    };
    object.into()
}

/// A directory's ends in a slash; the watched directory itself is `./`.
fn path_below(directory: &DirectoryKey, change: &Change) -> Vec<u8> {
    let path = |key: &[u8]| {
        let path = directory.path_of(key).unwrap_or_default();
        path.into_os_string().into_encoded_bytes()
    };
    match change.key.strip_suffix(b"/") {
        Some(_) if change.is_directory && change.key == directory.as_bytes() => b"./".to_vec(),
        Some(own) if change.is_directory => [path(own).as_slice(), b"/"].concat(),
        _ => path(&change.key),
    }
}

#[cfg(test)]
mod tests {
    use revfs_api::keyspace::{Author, Revision, Stamp, Time};
    use serde_json::json;

    use super::{Change, line, subject};
    use crate::path::DirectoryKey;

    #[test]
    fn a_line_says_what_happened_to_what() {
        let directory = DirectoryKey::new("/app/").unwrap();
        let author = Author { principal: String::new(), claimed: "ops@host".to_owned() };
        let time = Time(1_767_225_600_000_000_000);
        let stamp = Stamp { revision: Revision(41), time, author, ..Stamp::default() };
        let expected = json!({
            "revision": 41, "time": "2026-01-01T00:00:00.000000000Z", "kind": "write",
            "author": { "principal": "", "claimed": "ops@host" }, "path": "a/%2E",
        });
        let file = |key: &'static [u8], kind| Change { key: key.into(), is_directory: false, kind };
        assert_eq!(line(&directory, &file(b"/app/a/.", "write"), &stamp), expected);
        let nobody = Stamp { revision: Revision(42), ..Stamp::default() };
        for (key, is_directory, path) in [
            ("/app/", true, "./"),
            ("/app/sub/", true, "sub/"),
            ("/app/f", false, "f"),
            ("/app/sub/", false, "sub/%"),
        ] {
            let change = Change { key: key.into(), is_directory, kind: "delete" };
            let expected = json!({ "revision": 42, "kind": "delete", "path": path });
            assert_eq!(line(&directory, &change, &nobody), expected);
        }
        let odd = line(&directory, &file(b"/app/\xff", "create"), &nobody);
        assert_eq!(odd["path_escaped"], "\\xff");
    }

    #[test]
    fn keys_of_the_mounts_own_show_on_their_files_or_not_at_all() {
        assert_eq!(subject(b"/a/f"), Some(&b"/a/f"[..]));
        assert_eq!(subject(b"\0revfs/a/a/f"), Some(&b"/a/f"[..]));
        for own in [&b"\0revfs/r/a/f"[..], b"\0revfs/l/a/f\0\x30", b"\0revfs/r"] {
            assert_eq!(subject(own), None);
        }
    }
}
