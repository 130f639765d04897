//! What a transaction answered, as text and as JSON.

use revfs_api::keyspace::{KeyValue, Op, OpAnswer, RangeAnswer, Txn, TxnAnswer};
use serde_json::{Map, Value, json};

use crate::commands::get;
use crate::output::{counted, readable};

/// One line for each fact, the operations' below the branch that ran; inner ones are indented.
pub(super) fn lines(txn: &Txn, answer: &TxnAnswer, depth: usize) -> Vec<String> {
    let blanks = "  ".repeat(depth);
    let branch = if answer.succeeded { "then" } else { "else" };
    let mut lines = vec![match depth {
        0 => format!("{branch}, revision {}", answer.revision),
        _ => format!("{blanks}{branch}"),
    }];
    for (op, answer) in ran(txn, answer).iter().zip(&answer.answers) {
        if let (Op::Txn(inner), OpAnswer::Txn(answer)) = (op, answer) {
            lines.extend(self::lines(inner, answer, depth + 1));
            continue;
        }
        let own = text(op, answer);
        lines.extend(own.into_iter().map(|line| format!("{blanks}{line}")));
    }
    lines
}

fn ran<'a>(txn: &'a Txn, answer: &TxnAnswer) -> &'a [Op] {
    if answer.succeeded { &txn.success } else { &txn.failure }
}

fn text(op: &Op, answer: &OpAnswer) -> Vec<String> {
    match answer {
        OpAnswer::Put { prev_kv } => {
            let Op::Put { key, .. } = op else { return Vec::new() };
            let was = prev_kv.as_ref().map(|kv| format!(", was {}", readable(&kv.value)));
            vec![format!("put {}{}", readable(key), was.unwrap_or_default())]
        }
        OpAnswer::Delete { deleted, prev_kvs } => {
            let first = format!("deleted {}", counted(*deleted, "key"));
            [first].into_iter().chain(prev_kvs.iter().map(pair)).collect()
        }
        OpAnswer::Range(range) => found(op, range),
        OpAnswer::Append { value_bytes } => {
            vec![format!("appended, now {}", counted(*value_bytes, "byte"))]
        }
        OpAnswer::Move { moved } => vec![format!("moved {}", counted(*moved, "key"))],
        OpAnswer::Restore { put, deleted } => {
            vec![format!("restored {}, deleted {deleted}", counted(*put, "key"))]
        }
        OpAnswer::Txn(_) => Vec::new(),
    }
}

fn found(op: &Op, range: &RangeAnswer) -> Vec<String> {
    let (keys_only, count_only) = match op {
        Op::Range(read) => (read.keys_only, read.count_only),
        _ => (false, false),
    };
    if count_only {
        return vec![counted(range.count, "key")];
    }
    let line = |kv: &KeyValue| if keys_only { readable(&kv.key) } else { pair(kv) };
    range.kvs.iter().map(line).collect()
}

/// As `revfs get` prints one of several.
fn pair(kv: &KeyValue) -> String {
    format!("{}\t{}", readable(&kv.key), readable(&kv.value))
}

pub(super) fn document(txn: &Txn, answer: &TxnAnswer, is_inner: bool) -> Value {
    let answers: Vec<Value> =
        ran(txn, answer).iter().zip(&answer.answers).map(|(op, answer)| of(op, answer)).collect();
    let mut document = Map::new();
    document.insert("succeeded".into(), answer.succeeded.into());
    if !is_inner {
        document.insert("revision".into(), answer.revision.0.into());
        document.insert("changed".into(), answer.changed.into());
    }
    document.insert("answers".into(), answers.into());
    document.into()
}

fn of(op: &Op, answer: &OpAnswer) -> Value {
    let kvs = |kvs: &[KeyValue], with_values| {
        kvs.iter().map(|kv| Value::Object(get::document(kv, with_values))).collect::<Vec<Value>>()
    };
    match answer {
        OpAnswer::Put { prev_kv } => {
            let prev = prev_kv.as_ref().map(|kv| get::document(kv, true));
            json!({ "put": { "prev": prev } })
        }
        OpAnswer::Delete { deleted, prev_kvs } => {
            json!({ "delete": { "deleted": deleted, "prev": kvs(prev_kvs, true) } })
        }
        OpAnswer::Range(range) => {
            let with_values = !matches!(op, Op::Range(read) if read.keys_only);
            let (count, more) = (range.count, range.more);
            json!({ "get": { "count": count, "more": more, "keys": kvs(&range.kvs, with_values) } })
        }
        OpAnswer::Append { value_bytes } => json!({ "append": { "value_bytes": value_bytes } }),
        OpAnswer::Move { moved } => json!({ "move": { "moved": moved } }),
        OpAnswer::Restore { put, deleted } => {
            json!({ "restore": { "put": put, "deleted": deleted } })
        }
        OpAnswer::Txn(inner) => match op {
            Op::Txn(txn) => json!({ "txn": document(txn, inner, true) }),
            _ => Value::Null,
        },
    }
}
