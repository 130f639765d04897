//! Answers as text, everything in them visible.

use revfs_store::types::{
    ChangeKind, ChangesResult, DirectoryState, Event, KeyValue, Lease, ListResult, OpAnswer,
    RangeResult, TxnAnswer,
};
use revfs_store::{Done, Outcome, ReadError};

pub(super) fn outcome(outcome: &Outcome) -> String {
    let result = match &outcome.result {
        Err(refusal) => format!("refused: {refusal}"),
        Ok(Done::Txn(answer)) => txn(answer),
        Ok(done) => format!("{done:?}"),
    };
    format!("[{}] {result}", outcome.revision)
}

fn txn(answer: &TxnAnswer) -> String {
    let branch = if answer.succeeded { "success" } else { "failure" };
    let answers: Vec<_> = answer.answers.iter().map(op).collect();
    let changed = if answer.changed { "" } else { ", nothing changed" };
    format!("{branch}({}){changed}", answers.join("; "))
}

fn op(answer: &OpAnswer) -> String {
    match answer {
        OpAnswer::Put { prev_kv: None } => "put".to_owned(),
        OpAnswer::Put { prev_kv: Some(old) } => format!("put over {}", kv(old)),
        OpAnswer::Delete { deleted, prev_kvs } if prev_kvs.is_empty() => {
            format!("deleted {deleted}")
        }
        OpAnswer::Delete { deleted, prev_kvs } => {
            let old: Vec<_> = prev_kvs.iter().map(kv).collect();
            format!("deleted {deleted}: {}", old.join(", "))
        }
        OpAnswer::Range(found) => {
            format!("range {{ {} }}", range(found.clone()).replace('\n', ", "))
        }
        OpAnswer::Txn(nested) => txn(nested),
        OpAnswer::Append { value_bytes } => format!("appended to {value_bytes} bytes"),
        OpAnswer::Move { moved } => format!("moved {moved}"),
        OpAnswer::Restore { put, deleted } => format!("restored {put}, deleted {deleted}"),
    }
}

pub(super) fn kv(kv: &KeyValue) -> String {
    let mut text = format!(
        "{}={:?} create {} mod {} version {}",
        kv.key.escape_ascii(),
        kv.value.escape_ascii().to_string(),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    );
    if kv.lease.0 != 0 {
        text += &format!(" lease {}", kv.lease.0);
    }
    if kv.content_revision != kv.mod_revision || kv.birth_revision != kv.create_revision {
        text += &format!(" content {} birth {}", kv.content_revision, kv.birth_revision);
    }
    text
}

pub(super) fn leases(leases: &[Lease]) -> String {
    let line = |lease: &Lease| {
        let Lease { id, ttl_seconds, remaining_seconds } = lease;
        format!("lease {} ttl {ttl_seconds} remaining {remaining_seconds}", id.0)
    };
    leases.iter().map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn range(found: RangeResult) -> String {
    let mut lines: Vec<_> = found.kvs.iter().map(kv).collect();
    lines.push(format!("count {}{}", found.count, if found.more { ", more" } else { "" }));
    lines.join("\n")
}

pub(super) fn directory(state: &DirectoryState) -> String {
    format!("{} names, changed {} at {}", state.names, state.changed, state.time.0)
}

pub(super) fn list(found: ListResult) -> String {
    let mut lines: Vec<_> = found
        .entries
        .iter()
        .map(|entry| {
            let mut text = format!("{:?}", entry.name.escape_ascii().to_string());
            if let Some(own) = &entry.kv {
                text += &format!(" {}", kv(own));
            }
            if let Some(own) = &entry.directory {
                text += &format!(" [{}]", directory(own));
            }
            text
        })
        .collect();
    lines.push(if found.more { "more" } else { "all" }.to_owned());
    lines.join("\n")
}

pub(super) fn event(event: &Event) -> String {
    match event.kind {
        ChangeKind::Put => format!("PUT {}", kv(&event.kv)),
        ChangeKind::Delete => {
            format!("DELETE {} mod {}", event.kv.key.escape_ascii(), event.kv.mod_revision)
        }
    }
}

pub(super) fn changes(found: ChangesResult) -> String {
    let lines = found.revisions.iter().map(|revision| {
        let events: Vec<_> = revision.events.iter().map(event).collect();
        let stamp = &revision.stamp;
        format!("{} at {}: {}", stamp.revision, stamp.time.0, events.join("; "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// An answer, or why there is none.
pub(super) fn read<T>(result: Result<T, ReadError>, show: impl FnOnce(T) -> String) -> String {
    match result {
        Ok(found) => show(found),
        Err(error) => format!("error: {error}"),
    }
}
