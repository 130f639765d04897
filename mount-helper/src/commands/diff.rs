//! `revfs diff`: what changed below a path between two revisions, as a unified diff.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use bytes::Bytes;
use clap::ValueHint;
use revfs_api::KeySpace;
use revfs_api::keyspace::{KeyValue, Revision};
use revfs_fs::attributes::{Defaults, Effective, Record, effective_file};
use serde_json::{Map, Value};

use crate::args::Globals;
use crate::compare::{self, Candidate};
use crate::endpoint;
use crate::error::{Failure, Kind, Result};
use crate::moment::Moment;
use crate::names::record_key;
use crate::output::{Output, Progress, insert_bytes, readable};
use crate::scan;
use crate::target::Target;
use crate::unified::{Side, is_binary, unified};

/// Show what changed between two points of history, as diff -u
///
/// A and B are revisions (41), or times with an @ before them (@-2h, @2026-11-22); one that is left
/// out is now. Of a directory every file that differs is shown; files that are not text are only
/// named, and so are changes of mode and owner. The names are those that a mount has for the two
/// sides: app/@rev/41/limits. Exits 0, or with --exit-code 1 if there is a difference.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs diff 41..45 ~/conf/app
  revfs diff @-1h.. ~/conf          since an hour ago
  revfs diff 41 /app/limits         from revision 41 to now")]
pub(crate) struct DiffArgs {
    /// A..B: revisions, @times, or nothing for now
    #[arg(value_name = "A..B", allow_hyphen_values = true)]
    span: String,

    /// A path inside a mount, or a key
    #[arg(value_hint = ValueHint::AnyPath)]
    path: OsString,

    /// Lines of context
    #[arg(short = 'U', long, value_name = "N", default_value_t = 3)]
    unified: usize,

    /// Exit 1 if there is a difference
    #[arg(long)]
    exit_code: bool,

    /// PATH is a key, never a path
    #[arg(short, long)]
    key: bool,
}

/// A candidate with its values and records on both sides.
struct Difference {
    candidate: Candidate,
    before: Option<Version>,
    after: Option<Version>,
}

/// One side of a file.
struct Version {
    kv: KeyValue,
    attributes: Effective,
}

/// How the sides are called.
struct Labels<'a> {
    target: &'a Target,
    before: Revision,
    after: Revision,
}

pub(crate) async fn run(args: DiffArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let (from, to) = Moment::parse_span(&args.span)?;
    let node = endpoint::open(globals, &[args.path], args.key).await?;
    let (keys, target) = (&*node.keys, &node.targets[0]);
    if target.revision.is_some() {
        let shown = target.shown();
        return Err(Failure::usage(format!("'{shown}' names a revision of its own"))
            .hint("leave @rev out of the path: A..B says which revisions are compared"));
    }
    let before = from.fixed_revision(keys).await?;
    let after = to.fixed_revision(keys).await?;
    let candidates = compare::candidates(keys, target, before, after).await?;
    if candidates.is_empty() {
        ensure_existed(keys, target, before, after).await?;
    }
    let labels = Labels { target, before, after };
    let progress = Progress::new();
    let mut differs = false;
    let mut rest = candidates.as_slice();
    while !rest.is_empty() {
        let sizes: Vec<KeyValue> = rest.iter().map(larger).collect();
        let (now, later) = rest.split_at(scan::batch(&sizes));
        progress.at(format!("comparing {}", readable(&now[0].key)));
        for difference in fetch(keys, now, before, after).await? {
            differs |= print(&difference, &labels, args.unified, output)?;
        }
        rest = later;
    }
    output.finish()?;
    if differs && args.exit_code {
        return Err(Failure::new(Kind::Differs, "there is a difference"));
    }
    Ok(())
}

/// The side with the larger value: what bounds a batch.
fn larger(candidate: &Candidate) -> KeyValue {
    let sides = [&candidate.before, &candidate.after].into_iter().flatten();
    sides.max_by_key(|kv| kv.value_bytes).cloned().unwrap_or_default()
}

/// No difference is an answer only for what was there.
async fn ensure_existed(
    keys: &dyn KeySpace,
    target: &Target,
    before: Revision,
    after: Revision,
) -> Result<()> {
    let is_root = matches!(target.key.as_ref(), b"" | b"/");
    let was_there = !scan::existing(keys, before, target).await?.is_absent();
    if is_root || was_there || !scan::existing(keys, after, target).await?.is_absent() {
        return Ok(());
    }
    let shown = target.shown();
    let message = format!("{shown} exists neither at revision {before} nor at {after}");
    Err(Failure::not_found(message).hint(format!("revfs log {shown} shows when it existed")))
}

async fn fetch(
    keys: &dyn KeySpace,
    candidates: &[Candidate],
    before: Revision,
    after: Revision,
) -> Result<Vec<Difference>> {
    let old = versions(keys, candidates, before).await?;
    let new = versions(keys, candidates, after).await?;
    let sides = candidates.iter().cloned().zip(old.into_iter().zip(new));
    Ok(sides.map(|(candidate, (before, after))| Difference { candidate, before, after }).collect())
}

async fn versions(
    keys: &dyn KeySpace,
    candidates: &[Candidate],
    revision: Revision,
) -> Result<Vec<Option<Version>>> {
    let wanted = |candidate: &Candidate| [candidate.key.clone(), record_key(&candidate.key)];
    let wanted: Vec<Bytes> = candidates.iter().flat_map(wanted).collect();
    let found = scan::values(keys, revision, wanted).await?;
    let version = |pair: &[Option<KeyValue>]| {
        let [Some(kv), record] = pair else { return None };
        // A record that cannot be read has no say; the mount reports it.
        let record = record.as_ref().and_then(|record| Record::read(record).ok());
        let attributes = effective_file(kv, record.as_ref(), &Defaults::default());
        Some(Version { kv: kv.clone(), attributes })
    };
    Ok(found.chunks(2).map(version).collect())
}

/// Whether anything differs.
fn print(
    difference: &Difference,
    labels: &Labels<'_>,
    context: usize,
    output: &mut Output,
) -> Result<bool> {
    let Difference { candidate, before, after } = difference;
    if candidate.is_marker() {
        return Ok(false);
    }
    let value = |side: &Option<Version>| side.as_ref().map(|side| side.kv.value.clone());
    let (old, new) = (value(before), value(after));
    let attributes = attributes_changed(before.as_ref(), after.as_ref());
    if old == new && attributes.is_empty() {
        return Ok(false);
    }
    let is_text = ![&old, &new].into_iter().flatten().any(|value| is_binary(value));
    let names = [
        labels.of(&candidate.key, labels.before, before.as_ref()),
        labels.of(&candidate.key, labels.after, after.as_ref()),
    ];
    let empty = Bytes::new();
    let text = if is_text {
        let old = Side { label: &names[0], content: old.as_ref().unwrap_or(&empty) };
        let new = Side { label: &names[1], content: new.as_ref().unwrap_or(&empty) };
        unified(&old, &new, context)
    } else {
        Vec::new()
    };
    if output.json {
        let document = document(difference, is_text, &attributes, &text);
        return output.document(&document).map(|()| true);
    }
    if !attributes.is_empty() {
        let name = readable(&labels.name(&candidate.key, None));
        output.line(&format!("Attributes of {name} differ: {}", attributes.join(", ")))?;
    }
    if is_text {
        output.bytes(&text)?;
        // An empty file that appears or vanishes has no lines to show.
        if text.is_empty() && old != new {
            let name = readable(&labels.name(&candidate.key, None));
            let what = if old.is_none() { "created" } else { "deleted" };
            output.line(&format!("Empty file {name} was {what}"))?;
        }
    } else if old != new {
        let [old, new] = names.map(|name| readable(without_time(&name)));
        output.line(&format!("Binary files {old} and {new} differ"))?;
    }
    Ok(true)
}

fn without_time(label: &[u8]) -> &[u8] {
    label.split(|&byte| byte == b'\t').next().unwrap_or(label)
}

fn attributes_changed(before: Option<&Version>, after: Option<&Version>) -> Vec<String> {
    let (Some(Version { attributes: old, .. }), Some(Version { attributes: new, .. })) =
        (before, after)
    else {
        return Vec::new();
    };
    let mut changes = Vec::new();
    if old.kind != new.kind {
        changes.push(format!("{:?} became {:?}", old.kind, new.kind));
    }
    if old.mode != new.mode {
        changes.push(format!("mode {:04o} became {:04o}", old.mode, new.mode));
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        let (uid, gid) = (new.uid, new.gid);
        changes.push(format!("owner {}:{} became {uid}:{gid}", old.uid, old.gid));
    }
    if old.xattrs != new.xattrs {
        changes.push("extended attributes".to_owned());
    }
    changes
}

impl Labels<'_> {
    /// The name of a file as a mount has it, in the past if a revision is given.
    fn name(&self, key: &Bytes, revision: Option<Revision>) -> Vec<u8> {
        let shown = self.target.shown.as_bytes();
        let trimmed = shown.strip_suffix(b"/").unwrap_or(shown);
        let at =
            revision.map_or_else(Vec::new, |revision| format!("@rev/{revision}/").into_bytes());
        let below = self.target.directory().path_of(key);
        let (directory, name) = match &below {
            Some(path) => ([trimmed, b"/"].concat(), path.as_os_str().as_bytes()),
            None => match trimmed.iter().rposition(|&byte| byte == b'/') {
                Some(slash) => (trimmed[..=slash].to_vec(), &trimmed[slash + 1..]),
                None => (Vec::new(), trimmed),
            },
        };
        [&directory, at.as_slice(), name].concat()
    }

    /// Name, tab, time; `/dev/null` for a file that does not exist on that side.
    fn of(&self, key: &Bytes, revision: Revision, version: Option<&Version>) -> Vec<u8> {
        let Some(version) = version else { return b"/dev/null".to_vec() };
        let mut label = self.name(key, Some(revision));
        // A line break in a name would end the header; diff quotes it as well.
        if label.iter().any(u8::is_ascii_control) {
            label = format!("\"{}\"", readable(&label)).into_bytes();
        }
        label.push(b'\t');
        label.extend_from_slice(crate::output::time_of_diff(version.attributes.mtime).as_bytes());
        label
    }
}

fn document(difference: &Difference, is_text: bool, attributes: &[String], text: &[u8]) -> Value {
    let Difference { candidate, before, after } = difference;
    let change = match (before, after) {
        (None, _) => "created",
        (_, None) => "deleted",
        (Some(before), Some(after)) if before.kv.value == after.kv.value => "attributes",
        (Some(_), Some(_)) => "changed",
    };
    let revision = |side: &Option<Version>| side.as_ref().map(|side| side.kv.mod_revision.0);
    let mut object = Map::new();
    insert_bytes(&mut object, "key", &candidate.key);
    object.insert("change".into(), change.into());
    object.insert("before_revision".into(), revision(before).into());
    object.insert("after_revision".into(), revision(after).into());
    object.insert("binary".into(), (!is_text).into());
    object.insert("attributes".into(), attributes.into());
    if is_text {
        insert_bytes(&mut object, "diff", text);
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn name(argument: &str, key: &'static str) -> String {
        let target = Target::key(OsStr::new(argument));
        let labels = Labels { target: &target, before: Revision(41), after: Revision(45) };
        let name = labels.name(&Bytes::from(key), Some(labels.before));
        String::from_utf8(name).unwrap()
    }

    #[test]
    fn the_sides_have_the_names_that_a_mount_gives_them() {
        assert_eq!(name("/app", "/app/sub/x"), "/app/@rev/41/sub/x");
        assert_eq!(name("/app/", "/app/sub/x"), "/app/@rev/41/sub/x");
        assert_eq!(name("/app/limits", "/app/limits"), "/app/@rev/41/limits");
        assert_eq!(name("/", "/x"), "/@rev/41/x");
        assert_eq!(name("limits", "limits"), "@rev/41/limits");
    }
}
