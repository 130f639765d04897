//! The words of a scenario.
//!
//! `KEY`, `PREFIX*`, `START..END` and `START..` are ranges; `""` is the empty key, `\0` a zero byte; `name=value` words
//! are options; `expire LEASE TERM` and `checkpoint TERM LEASE=SECONDS…` are a leader's. `part UPLOAD PART`,
//! operations, `end` sends a part; `commit UPLOAD PARTS` begins like a transaction without success. A transaction is `txn`, lines `if …`, `then`, operations, `else`, operations, `end`.

use bytes::Bytes;
use revfs_store::types::{
    Compare, CompareResult, CompareTarget, KeyRange, LeaseId, ListQuery, Op, RangeQuery, Revision,
    RevisionBounds, SortOrder, SortTarget, Time, Txn,
};
use revfs_store::{Body, UploadCommit};

use super::{auth, members};

#[derive(Debug)]
pub(super) enum Action {
    Apply(Body),
    /// What a user asks for, at an auth revision or the current one.
    As(String, Option<u64>, Box<Action>),
    Auth,
    Get(Revision, RangeQuery),
    List(Revision, ListQuery),
    Directory(Revision, Bytes),
    History(Bytes),
    Changes(Revision, Revision, KeyRange),
    At(Time),
    Hash(Revision),
    Revision,
    Leases(Option<LeaseId>, usize),
    Lease(LeaseId),
    Uploads,
    Members,
}

pub(super) struct Lines<'t> {
    lines: std::iter::Peekable<std::str::Lines<'t>>,
}

fn key(word: &str) -> Bytes {
    if word == "\"\"" { Bytes::new() } else { word.replace("\\0", "\0").into() }
}

pub(super) fn range(word: &str) -> KeyRange {
    if let Some(prefix) = word.strip_suffix('*') {
        return KeyRange::prefix(&key(prefix));
    }
    match word.split_once("..") {
        Some((start, "")) => KeyRange::From(key(start)),
        Some((start, end)) => KeyRange::Span { start: key(start), end: key(end) },
        None => KeyRange::Key(key(word)),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("{word} is not a number"))
}

/// The value of an option `name=…`.
fn option<'w>(words: &[&'w str], name: &str) -> Option<&'w str> {
    words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn revision(words: &[&str]) -> Revision {
    Revision(option(words, "rev").map_or(0, number))
}

/// `name=MIN-MAX`; 0 = no bound.
fn bounds(words: &[&str], name: &str) -> RevisionBounds {
    let Some((min, max)) = option(words, name).and_then(|word| word.split_once('-')) else {
        return RevisionBounds::default();
    };
    RevisionBounds { min: Revision(number(min)), max: Revision(number(max)) }
}

fn range_query(words: &[&str]) -> RangeQuery {
    RangeQuery {
        range: range(words[1]),
        at: Revision(option(words, "at").map_or(0, number)),
        limit: option(words, "limit").map_or(0, number),
        keys_only: words.contains(&"keys"),
        count_only: words.contains(&"count"),
        sort_target: match option(words, "sort") {
            None | Some("key") => SortTarget::Key,
            Some("version") => SortTarget::Version,
            Some("create") => SortTarget::CreateRevision,
            Some("mod") => SortTarget::ModRevision,
            Some("value") => SortTarget::Value,
            Some(other) => panic!("unknown sort target {other}"),
        },
        sort_order: match option(words, "order") {
            None => SortOrder::Unspecified,
            Some("up") => SortOrder::Ascend,
            Some("down") => SortOrder::Descend,
            Some(other) => panic!("unknown order {other}"),
        },
        mod_revisions: bounds(words, "mod"),
        create_revisions: bounds(words, "create"),
    }
}

fn list_query(words: &[&str]) -> ListQuery {
    ListQuery {
        directory: key(words[1]),
        after: option(words, "after").map(key).unwrap_or_default(),
        limit: option(words, "limit").map_or(0, number),
        with_values: true,
    }
}

fn compare(words: &[&str]) -> Compare {
    let [_, target, keys, result, value] = words else {
        panic!("if TARGET KEY = VALUE: {words:?}")
    };
    let target = match *target {
        "version" => CompareTarget::Version(number(value)),
        "create" => CompareTarget::CreateRevision(Revision(number(value))),
        "mod" => CompareTarget::ModRevision(Revision(number(value))),
        "lease" => CompareTarget::Lease(LeaseId(number(value))),
        "value" => CompareTarget::Value(key(value)),
        other => panic!("unknown target {other}"),
    };
    let result = match *result {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        "<" => CompareResult::Less,
        ">" => CompareResult::Greater,
        other => panic!("unknown comparison {other}"),
    };
    Compare { range: range(keys), target, result }
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { lines: text.lines().peekable() }
    }

    /// The words of the next line that is neither empty nor a comment.
    fn words(&mut self) -> Option<Vec<&'t str>> {
        self.lines
            .by_ref()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| line.split_whitespace().collect())
    }

    pub(super) fn action(&mut self) -> Option<Action> {
        let words = self.words()?;
        Some(self.action_of(&words))
    }

    fn action_of(&mut self, words: &[&'t str]) -> Action {
        match words[0] {
            "as" => {
                let (user, at) = words[1].split_once('@').unwrap_or((words[1], ""));
                let at = (!at.is_empty()).then(|| number(at));
                let user = if user == "nobody" { "" } else { user };
                Action::As(user.to_owned(), at, Box::new(self.action_of(&words[2..])))
            }
            "auth" if words.len() == 1 => Action::Auth,
            "auth" | "user" | "role" => Action::Apply(Body::Auth(auth::change(words))),
            "members" => Action::Members,
            "member" => Action::Apply(Body::Member(members::change(words))),
            "compact" => Action::Apply(Body::Compact { revision: Revision(number(words[1])) }),
            "grant" => {
                let id = LeaseId(number(words[1]));
                let ttl_seconds = option(words, "ttl").map_or(60, number);
                Action::Apply(Body::LeaseGrant { id, ttl_seconds })
            }
            "expire" => {
                let (id, term) = (LeaseId(number(words[1])), number(words[2]));
                Action::Apply(Body::LeaseExpire { id, term })
            }
            "checkpoint" => {
                let remaining = words[2..].iter().map(|word| {
                    let (id, seconds) = word.split_once('=').expect("LEASE=SECONDS");
                    (LeaseId(number(id)), number(seconds))
                });
                let (term, remaining) = (number(words[1]), remaining.collect());
                Action::Apply(Body::LeaseCheckpoint { term, remaining })
            }
            "leases" => {
                let after = option(words, "after").map(|id| LeaseId(number(id)));
                Action::Leases(after, option(words, "limit").map_or(usize::MAX, number))
            }
            "lease" => Action::Lease(LeaseId(number(words[1]))),
            "revoke" => Action::Apply(Body::LeaseRevoke { id: LeaseId(number(words[1])) }),
            "get" => Action::Get(revision(words), range_query(words)),
            "list" => Action::List(revision(words), list_query(words)),
            "directory" => Action::Directory(revision(words), key(words[1])),
            "history" => Action::History(key(words[1])),
            "changes" => {
                let revision = |at: usize| Revision(number(words[at]));
                Action::Changes(revision(1), revision(2), range(words[3]))
            }
            "at" => Action::At(Time(number(words[1]))),
            "hash" => Action::Hash(revision(words)),
            "revision" => Action::Revision,
            "txn" => Action::Apply(Body::Txn(self.txn())),
            "part" => {
                let (upload, part) = (LeaseId(number(words[1])), number(words[2]));
                let ops = self.txn().success;
                Action::Apply(Body::UploadPart { upload, part, ops })
            }
            "commit" => {
                let (upload, parts) = (LeaseId(number(words[1])), number(words[2]));
                let Txn { compares, failure, .. } = self.txn();
                let commit = UploadCommit { upload, parts, compares, failure };
                Action::Apply(Body::UploadCommit(commit))
            }
            "uploads" => Action::Uploads,
            _ => {
                let op = self.op(words);
                Action::Apply(Body::Txn(Txn { success: vec![op], ..Txn::default() }))
            }
        }
    }

    fn txn(&mut self) -> Txn {
        let mut txn = Txn::default();
        let mut is_success = true;
        loop {
            let words = self.words().expect("a transaction ends with end");
            match words[0] {
                "end" => return txn,
                "if" => txn.compares.push(compare(&words)),
                "then" => is_success = true,
                "else" => is_success = false,
                _ => {
                    let op = self.op(&words);
                    if is_success { txn.success.push(op) } else { txn.failure.push(op) }
                }
            }
        }
    }

    fn op(&mut self, words: &[&str]) -> Op {
        let value =
            || words.get(2).filter(|word| !word.contains('=')).map_or(Bytes::new(), |w| key(w));
        match words[0] {
            "put" => Op::Put {
                key: key(words[1]),
                value: value(),
                lease: LeaseId(option(words, "lease").map_or(0, number)),
                prev_kv: words.contains(&"prev=yes"),
                ignore_value: words.contains(&"ignore=value"),
                ignore_lease: words.contains(&"ignore=lease"),
            },
            "delete" => Op::Delete { range: range(words[1]), prev_kv: words.contains(&"prev=yes") },
            "range" => Op::Range(range_query(words)),
            "append" => Op::Append { key: key(words[1]), value: value() },
            "move" => Op::Move { from: key(words[1]), to: key(words[2]) },
            "movekey" => Op::MoveKey { from: key(words[1]), to: key(words[2]) },
            "exchange" => Op::Exchange { a: key(words[1]), b: key(words[2]) },
            "restore" => {
                Op::Restore { range: range(words[1]), revision: Revision(number(words[2])) }
            }
            "txn" => Op::Txn(self.txn()),
            other => panic!("unknown command {other}"),
        }
    }
}
