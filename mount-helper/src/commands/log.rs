//! `revfs log`: the history of a file or a directory, newest first.

use std::ffi::OsString;

use bytes::Bytes;
use clap::ValueHint;
use revfs_api::KeySpace;
use revfs_api::keyspace::{ChangeKind, ChangesRequest, Error, Event, HistoryRequest, KeyRange};
use revfs_api::keyspace::{Revision, RevisionEvents, Stamp};
use serde_json::{Map, Value};

use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Failure, Result};
use crate::names::{key_of_record, record_key};
use crate::output::{Output, Progress, author_json, author_text, insert_bytes, time_exact};
use crate::output::{readable, time_local};
use crate::scan;
use crate::target::Target;

/// Show who changed a file or a directory, when, and at which revision
///
/// Newest first: revision, time, author, what happened, size, and for a directory the name. An
/// author in parentheses is what the client said of itself, not verified. What happened is one of
/// created, changed, moved (here, from another name), replaced (by a file moved over it), restored,
/// attributes (mode, owner, times) and deleted. A deleted file has a history too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs log ~/conf/app/limits
  revfs log ~/conf -n 5
  revfs log /app/ --json")]
pub(crate) struct LogArgs {
    /// A path inside a mount, or a key (/app; a directory that is gone: /app/)
    #[arg(value_hint = ValueHint::AnyPath)]
    path: OsString,

    /// Only the newest N revisions; 0 = all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    limit: usize,

    /// The argument is a key, never a path
    #[arg(short, long)]
    key: bool,
}

/// Revisions asked for at once.
const PAGE: usize = 200;

/// Revisions of the store looked at by one request, so that each is answered soon.
const SCAN: usize = 50_000;

/// One line.
#[derive(Debug)]
struct Row {
    stamp: Stamp,
    what: &'static str,
    key: Bytes,
    value_bytes: Option<u64>,
}

pub(crate) async fn run(args: LogArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let node = endpoint::open(globals, &[args.path], args.key).await?;
    let (keys, target) = (&*node.keys, &node.targets[0]);
    let at_most = target.revision.unwrap_or(Revision::NONE);
    let existing = scan::existing(keys, at_most, target).await?;
    let one_more = if args.limit == 0 { 0 } else { args.limit + 1 };
    let of_file = match target.file() {
        Some(key) if existing.directory.names == 0 => {
            file_history(keys, key, at_most, one_more).await?
        }
        _ => Vec::new(),
    };
    let is_file = !of_file.is_empty();
    let revisions = match is_file {
        true => of_file,
        false => directory_history(keys, target, at_most, one_more).await?,
    };
    if revisions.is_empty() && !matches!(target.key.as_ref(), b"" | b"/") {
        let shown = target.shown();
        return Err(Failure::not_found(format!("{shown} has no history: it never existed"))
            .hint("`revfs status` says since when history is kept"));
    }
    let is_cut = args.limit != 0 && revisions.len() > args.limit;
    let shown = if is_cut { &revisions[..args.limit] } else { &revisions[..] };
    let rows: Vec<Row> = shown.iter().flat_map(rows_of).collect();
    print(&rows, (!is_file).then(|| target.directory().as_bytes().clone()), output)?;
    output.finish()?;
    if is_cut && !output.json {
        eprintln!("revfs: older revisions are not shown; -n 0 shows all");
    }
    Ok(())
}

/// Versions of a key and of its side record, one entry a revision.
async fn file_history(
    keys: &dyn KeySpace,
    key: &Bytes,
    at_most: Revision,
    limit: usize,
) -> Result<Vec<RevisionEvents>> {
    let mut versions = Vec::new();
    for key in [key.clone(), record_key(key)] {
        let request = HistoryRequest { key, at_most, limit, keys_only: true };
        let shown = readable(&request.key);
        let found = keys.history(request).await.asked(|| format!("read the history of {shown}"))?;
        // A record alone is left over from something else.
        if versions.is_empty() && found.is_empty() {
            return Ok(Vec::new());
        }
        versions.extend(found);
    }
    versions.sort_by_key(|version| std::cmp::Reverse(version.stamp.revision));
    let mut revisions: Vec<RevisionEvents> = Vec::new();
    for version in versions {
        match revisions.last_mut() {
            Some(last) if last.stamp.revision == version.stamp.revision => {
                last.events.push(version.event);
            }
            _ => {
                let (stamp, events) = (version.stamp, vec![version.event]);
                revisions.push(RevisionEvents { stamp, events });
            }
        }
    }
    if limit != 0 {
        revisions.truncate(limit);
    }
    Ok(revisions)
}

/// The revisions that changed anything below, as far back as history goes.
async fn directory_history(
    keys: &dyn KeySpace,
    target: &Target,
    at_most: Revision,
    limit: usize,
) -> Result<Vec<RevisionEvents>> {
    let mut ranges: Vec<KeyRange> = target.ranges();
    ranges.extend(target.record_ranges());
    let progress = Progress::new();
    let mut found: Vec<RevisionEvents> = Vec::new();
    let (mut from, mut to) = (Revision(1), at_most);
    loop {
        let wanted = if limit == 0 { PAGE } else { PAGE.min(limit - found.len()) };
        let request = ChangesRequest {
            ranges: ranges.clone(),
            from,
            to,
            newest_first: true,
            limit: wanted,
            scan_limit: SCAN,
            keys_only: true,
        };
        let answer = match keys.changes(request).await {
            // History begins later: take what there is.
            Err(Error::Compacted { compacted, .. }) if from <= compacted => {
                from = if from < compacted { compacted } else { compacted.next() };
                continue;
            }
            answer => answer.asked(|| format!("read the history of {}", target.shown()))?,
        };
        found.extend(answer.revisions);
        match answer.next {
            Some(next) if limit == 0 || found.len() < limit => {
                progress.at(format!("looking at revision {next}"));
                to = next;
            }
            _ => return Ok(found),
        }
    }
}

/// A line for each key that a revision changed; of a key with its side record one line.
fn rows_of(revision: &RevisionEvents) -> Vec<Row> {
    let by_mount = !revision.stamp.note.is_empty();
    let plain = |event: &&Event| key_of_record(&event.kv.key).is_none();
    let row = |event: &Event, key: Bytes, what: &'static str| {
        let value_bytes = (event.kind == ChangeKind::Put).then_some(event.kv.value_bytes);
        Row { stamp: revision.stamp.clone(), what, key, value_bytes }
    };
    let mut rows: Vec<Row> = revision
        .events
        .iter()
        .filter(plain)
        .map(|event| row(event, event.kv.key.clone(), what_happened(event, by_mount)))
        .collect();
    for event in &revision.events {
        let Some(key) = key_of_record(&event.kv.key) else { continue };
        if !rows.iter().any(|row| row.key == key) {
            let row = row(event, key, "attributes");
            rows.push(Row { value_bytes: None, ..row });
        }
    }
    rows
}

/// `by_mount`: the revision carries a mount's note, so that an older content was moved here; without
/// one it was `revfs restore` that brought it.
fn what_happened(event: &Event, by_mount: bool) -> &'static str {
    let content_is_older = event.kv.content_revision < event.kv.mod_revision;
    let is_new = event.kv.version == 1;
    match event.kind {
        ChangeKind::Delete => "deleted",
        ChangeKind::Put if content_is_older && !by_mount => "restored",
        ChangeKind::Put => match (is_new, content_is_older) {
            (true, false) => "created",
            (false, false) => "changed",
            (true, true) => "moved",
            (false, true) => "replaced",
        },
    }
}

/// `below`: the directory whose names are shown; none for a single file.
fn print(rows: &[Row], below: Option<Bytes>, output: &mut Output) -> Result<()> {
    if output.json {
        return rows.iter().try_for_each(|row| output.document(&document(row)));
    }
    let table = rows.iter().map(|row| {
        let size = row.value_bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
        let mut cells: Vec<Vec<u8>> = vec![
            row.stamp.revision.to_string().into_bytes(),
            time_local(row.stamp.time).into_bytes(),
            author_text(&row.stamp.author).into_bytes(),
            row.what.as_bytes().to_vec(),
            size.into_bytes(),
        ];
        if let Some(directory) = &below {
            let name = match row.key.strip_prefix(directory.as_ref()) {
                Some(b"") => b"./".as_slice(),
                Some(name) => name,
                None => &row.key,
            };
            cells.push(readable(name).into_bytes());
        }
        cells
    });
    output.table(&table.collect::<Vec<_>>())
}

fn document(row: &Row) -> Value {
    let mut object = Map::new();
    object.insert("revision".into(), row.stamp.revision.0.into());
    object.insert("time".into(), time_exact(row.stamp.time).into());
    object.insert("author".into(), author_json(&row.stamp.author));
    object.insert("change".into(), row.what.into());
    insert_bytes(&mut object, "key", &row.key);
    if let Some(bytes) = row.value_bytes {
        object.insert("value_bytes".into(), bytes.into());
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use revfs_api::keyspace::KeyValue;

    fn event(kind: ChangeKind, key: &[u8], version: u64, content: u64) -> Event {
        let key = Bytes::copy_from_slice(key);
        let (mod_revision, content_revision) = (Revision(9), Revision(content));
        let kv = KeyValue { key, version, mod_revision, content_revision, ..KeyValue::default() };
        Event { kind, kv }
    }

    #[test]
    fn a_side_record_is_a_line_of_its_own_only_without_its_file() {
        let events = vec![
            event(ChangeKind::Put, b"/a", 1, 9),
            event(ChangeKind::Put, &record_key(b"/a"), 1, 9),
            event(ChangeKind::Put, &record_key(b"/b"), 4, 9),
            event(ChangeKind::Put, b"/c", 1, 3),
            event(ChangeKind::Put, b"/d", 2, 9),
            event(ChangeKind::Delete, b"/e", 0, 0),
            event(ChangeKind::Put, b"/f", 2, 3),
        ];
        let stamp = Stamp { note: Bytes::from_static(b"of a mount"), ..Stamp::default() };
        let rows = rows_of(&RevisionEvents { stamp, events });
        let seen: Vec<(&str, &str)> =
            rows.iter().map(|row| (std::str::from_utf8(&row.key).unwrap(), row.what)).collect();
        let expected = [
            ("/a", "created"),
            ("/c", "moved"),
            ("/d", "changed"),
            ("/e", "deleted"),
            ("/f", "replaced"),
            ("/b", "attributes"),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn old_content_without_a_note_of_a_mount_was_restored() {
        let put = |version| what_happened(&event(ChangeKind::Put, b"/a", version, 3), false);
        assert_eq!((put(1), put(2)), ("restored", "restored"));
    }
}
