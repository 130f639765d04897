//! The wire boundary of revfs.v1: its messages <-> the plain types of [`crate::keyspace`], both ways
//! and only here.
//!
//! Towards the wire nothing can fail. From the wire anything may come: what has no meaning is
//! [`Malformed`], never a panic and never a guess. Bounds that belong to the store (key length,
//! sizes, revisions) are checked by the store.

mod txn;

pub use txn::{txn_answer, txn_arguments, txn_request, txn_response};

use crate::keyspace::{
    Answer, Author, Capabilities, ChangeKind, ChangesAnswer, ChangesRequest, DirectoryAnswer,
    Error, Event, HistoryRequest, KeyRange, KeyValue, LeaseId, ListAnswer, ListEntry, ListRead,
    RangeAnswer, RangeRead, Read, ReadAnswer, Revision, RevisionEvents, Stamp, Status, Time,
    Version,
};
use crate::wire::revfs as wire;
use crate::wire::revfs::key_range::{Range as WireRange, Span};
use crate::wire::revfs::{answer, event, question};

/// Questions that one [`wire::ReadRequest`] may hold.
pub const QUESTIONS_MAX: usize = 10_000;

/// Ranges that one watch or one question for changes may name.
pub const RANGES_MAX: usize = 1_000;

/// Depth of nested transactions; prost refuses to decode messages about three times as deep.
pub const TXN_DEPTH_MAX: usize = 32;

/// A message from the wire that has no meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed revfs.v1.{message}: {reason}")]
pub struct Malformed {
    pub message: &'static str,
    pub reason: String,
}

impl Malformed {
    fn new(message: &'static str, reason: impl Into<String>) -> Self {
        Self { message, reason: reason.into() }
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Invalid(malformed.to_string())
    }
}

type Result<T> = std::result::Result<T, Malformed>;

fn required<T>(field: Option<T>, message: &'static str, name: &str) -> Result<T> {
    field.ok_or_else(|| Malformed::new(message, format!("{name} is missing")))
}

fn at_most(count: usize, max: usize, message: &'static str, unit: &str) -> Result<()> {
    if count > max {
        return Err(Malformed::new(message, format!("{count} {unit} are over the bound of {max}")));
    }
    Ok(())
}

/// Limits and counts: what does not fit into memory is as good as "very many".
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn number(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

impl From<KeyValue> for wire::KeyValue {
    fn from(kv: KeyValue) -> Self {
        Self {
            key: kv.key,
            value: kv.value,
            value_bytes: kv.value_bytes,
            create_revision: kv.create_revision.0,
            mod_revision: kv.mod_revision.0,
            version: kv.version,
            lease: kv.lease.0,
            time: kv.time.0,
            content_revision: kv.content_revision.0,
            content_time: kv.content_time.0,
            birth_revision: kv.birth_revision.0,
        }
    }
}

impl From<wire::KeyValue> for KeyValue {
    fn from(kv: wire::KeyValue) -> Self {
        Self {
            key: kv.key,
            value: kv.value,
            value_bytes: kv.value_bytes,
            create_revision: Revision(kv.create_revision),
            mod_revision: Revision(kv.mod_revision),
            version: kv.version,
            lease: LeaseId(kv.lease),
            time: Time(kv.time),
            content_revision: Revision(kv.content_revision),
            content_time: Time(kv.content_time),
            birth_revision: Revision(kv.birth_revision),
        }
    }
}

impl From<KeyRange> for wire::KeyRange {
    fn from(range: KeyRange) -> Self {
        let range = match range {
            KeyRange::Key(key) => WireRange::Key(key),
            KeyRange::Span { start, end } => WireRange::Span(Span { start, end }),
            KeyRange::From(start) => WireRange::From(start),
        };
        Self { range: Some(range) }
    }
}

impl TryFrom<wire::KeyRange> for KeyRange {
    type Error = Malformed;

    fn try_from(range: wire::KeyRange) -> Result<Self> {
        Ok(match required(range.range, "KeyRange", "range")? {
            WireRange::Key(key) => Self::Key(key),
            WireRange::Span(Span { start, end }) => Self::Span { start, end },
            WireRange::From(start) => Self::From(start),
        })
    }
}

fn ranges(ranges: Vec<wire::KeyRange>, message: &'static str) -> Result<Vec<KeyRange>> {
    at_most(ranges.len(), RANGES_MAX, message, "ranges")?;
    ranges.into_iter().map(KeyRange::try_from).collect()
}

impl From<RangeRead> for question::Range {
    fn from(read: RangeRead) -> Self {
        Self {
            range: Some(read.range.into()),
            limit: number(read.limit),
            keys_only: read.keys_only,
            count_only: read.count_only,
        }
    }
}

impl TryFrom<question::Range> for RangeRead {
    type Error = Malformed;

    fn try_from(read: question::Range) -> Result<Self> {
        Ok(Self {
            range: required(read.range, "Question.Range", "range")?.try_into()?,
            limit: size(read.limit),
            keys_only: read.keys_only,
            count_only: read.count_only,
        })
    }
}

impl From<Read> for wire::Question {
    fn from(read: Read) -> Self {
        let question = match read {
            Read::Range(range) => question::Question::Range(range.into()),
            Read::List(list) => question::Question::List(question::List {
                directory: list.directory,
                after: list.after,
                limit: number(list.limit),
                with_values: list.with_values,
            }),
            Read::Directory(directory) => question::Question::Directory(directory),
        };
        Self { question: Some(question) }
    }
}

/// A directory is a prefix that is empty or ends in `/`.
fn directory(prefix: bytes::Bytes, message: &'static str) -> Result<bytes::Bytes> {
    if prefix.last().is_some_and(|&last| last != b'/') {
        let text = prefix.escape_ascii();
        return Err(Malformed::new(message, format!("directory {text} does not end in /")));
    }
    Ok(prefix)
}

impl TryFrom<wire::Question> for Read {
    type Error = Malformed;

    fn try_from(read: wire::Question) -> Result<Self> {
        Ok(match required(read.question, "Question", "question")? {
            question::Question::Range(range) => Self::Range(range.try_into()?),
            question::Question::List(list) => Self::List(ListRead {
                directory: directory(list.directory, "Question.List")?,
                after: list.after,
                limit: size(list.limit),
                with_values: list.with_values,
            }),
            question::Question::Directory(prefix) => {
                Self::Directory(directory(prefix, "Question")?)
            }
        })
    }
}

/// A [`wire::ReadRequest`] from what [`crate::KeySpace::read`] takes.
#[must_use]
pub fn read_request(revision: Revision, reads: Vec<Read>) -> wire::ReadRequest {
    wire::ReadRequest {
        revision: revision.0,
        questions: reads.into_iter().map(Into::into).collect(),
    }
}

/// What [`crate::KeySpace::read`] takes from a [`wire::ReadRequest`].
///
/// # Errors
/// [`Malformed`] if a question has no meaning or there are more than [`QUESTIONS_MAX`].
pub fn read_arguments(request: wire::ReadRequest) -> Result<(Revision, Vec<Read>)> {
    at_most(request.questions.len(), QUESTIONS_MAX, "ReadRequest", "questions")?;
    let reads = request.questions.into_iter().map(Read::try_from).collect::<Result<_>>()?;
    Ok((Revision(request.revision), reads))
}

impl From<DirectoryAnswer> for wire::Directory {
    fn from(directory: DirectoryAnswer) -> Self {
        Self { names: directory.names, changed: directory.changed.0, time: directory.time.0 }
    }
}

impl From<wire::Directory> for DirectoryAnswer {
    fn from(directory: wire::Directory) -> Self {
        Self {
            names: directory.names,
            changed: Revision(directory.changed),
            time: Time(directory.time),
        }
    }
}

impl From<RangeAnswer> for wire::RangeAnswer {
    fn from(answer: RangeAnswer) -> Self {
        Self {
            kvs: answer.kvs.into_iter().map(Into::into).collect(),
            count: answer.count,
            more: answer.more,
        }
    }
}

impl From<wire::RangeAnswer> for RangeAnswer {
    fn from(answer: wire::RangeAnswer) -> Self {
        Self {
            kvs: answer.kvs.into_iter().map(Into::into).collect(),
            count: answer.count,
            more: answer.more,
        }
    }
}

impl From<ListEntry> for wire::ListEntry {
    fn from(entry: ListEntry) -> Self {
        Self {
            name: entry.name,
            kv: entry.kv.map(Into::into),
            directory: entry.directory.map(Into::into),
        }
    }
}

impl From<wire::ListEntry> for ListEntry {
    fn from(entry: wire::ListEntry) -> Self {
        Self {
            name: entry.name,
            kv: entry.kv.map(Into::into),
            directory: entry.directory.map(Into::into),
        }
    }
}

impl From<Answer> for wire::Answer {
    fn from(answer: Answer) -> Self {
        let answer = match answer {
            Answer::Range(range) => answer::Answer::Range(range.into()),
            Answer::List(list) => answer::Answer::List(wire::ListAnswer {
                entries: list.entries.into_iter().map(Into::into).collect(),
                more: list.more,
            }),
            Answer::Directory(directory) => answer::Answer::Directory(directory.into()),
        };
        Self { answer: Some(answer) }
    }
}

impl TryFrom<wire::Answer> for Answer {
    type Error = Malformed;

    fn try_from(answer: wire::Answer) -> Result<Self> {
        Ok(match required(answer.answer, "Answer", "answer")? {
            answer::Answer::Range(range) => Self::Range(range.into()),
            answer::Answer::List(list) => Self::List(ListAnswer {
                entries: list.entries.into_iter().map(Into::into).collect(),
                more: list.more,
            }),
            answer::Answer::Directory(directory) => Self::Directory(directory.into()),
        })
    }
}

impl From<ReadAnswer> for wire::ReadResponse {
    fn from(answer: ReadAnswer) -> Self {
        Self {
            revision: answer.revision.0,
            current: answer.current.0,
            answers: answer.answers.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::ReadResponse> for ReadAnswer {
    type Error = Malformed;

    fn try_from(response: wire::ReadResponse) -> Result<Self> {
        Ok(Self {
            revision: Revision(response.revision),
            current: Revision(response.current),
            answers: response.answers.into_iter().map(Answer::try_from).collect::<Result<_>>()?,
        })
    }
}

impl From<Stamp> for wire::Stamp {
    fn from(stamp: Stamp) -> Self {
        Self {
            revision: stamp.revision.0,
            time: stamp.time.0,
            principal: stamp.author.principal,
            claimed: stamp.author.claimed,
            note: stamp.note,
        }
    }
}

impl From<wire::Stamp> for Stamp {
    fn from(stamp: wire::Stamp) -> Self {
        Self {
            revision: Revision(stamp.revision),
            time: Time(stamp.time),
            author: Author { principal: stamp.principal, claimed: stamp.claimed },
            note: stamp.note,
        }
    }
}

impl From<Event> for wire::Event {
    fn from(event: Event) -> Self {
        let kind = match event.kind {
            ChangeKind::Put => event::Kind::Put,
            ChangeKind::Delete => event::Kind::Delete,
        };
        Self { kind: kind.into(), kv: Some(event.kv.into()) }
    }
}

impl TryFrom<wire::Event> for Event {
    type Error = Malformed;

    fn try_from(event: wire::Event) -> Result<Self> {
        let kind = match event.kind() {
            event::Kind::Put => ChangeKind::Put,
            event::Kind::Delete => ChangeKind::Delete,
            event::Kind::Unspecified => {
                return Err(Malformed::new("Event", format!("kind is {}", event.kind)));
            }
        };
        Ok(Self { kind, kv: required(event.kv, "Event", "kv")?.into() })
    }
}

impl From<RevisionEvents> for wire::RevisionEvents {
    fn from(revision: RevisionEvents) -> Self {
        Self {
            stamp: Some(revision.stamp.into()),
            events: revision.events.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::RevisionEvents> for RevisionEvents {
    type Error = Malformed;

    fn try_from(revision: wire::RevisionEvents) -> Result<Self> {
        Ok(Self {
            stamp: required(revision.stamp, "RevisionEvents", "stamp")?.into(),
            events: revision.events.into_iter().map(Event::try_from).collect::<Result<_>>()?,
        })
    }
}

impl From<HistoryRequest> for wire::HistoryRequest {
    fn from(request: HistoryRequest) -> Self {
        Self {
            key: request.key,
            at_most: request.at_most.0,
            limit: number(request.limit),
            keys_only: request.keys_only,
        }
    }
}

impl From<wire::HistoryRequest> for HistoryRequest {
    fn from(request: wire::HistoryRequest) -> Self {
        Self {
            key: request.key,
            at_most: Revision(request.at_most),
            limit: size(request.limit),
            keys_only: request.keys_only,
        }
    }
}

/// A [`wire::HistoryResponse`] from what [`crate::KeySpace::history`] answers.
#[must_use]
pub fn history_response(versions: Vec<Version>) -> wire::HistoryResponse {
    let versions = versions.into_iter().map(|version| wire::history_response::Version {
        event: Some(version.event.into()),
        stamp: Some(version.stamp.into()),
    });
    wire::HistoryResponse { versions: versions.collect() }
}

/// What [`crate::KeySpace::history`] answers from a [`wire::HistoryResponse`].
///
/// # Errors
/// [`Malformed`] if a version lacks its event or stamp.
pub fn history_answer(response: wire::HistoryResponse) -> Result<Vec<Version>> {
    let version = |version: wire::history_response::Version| {
        Ok(Version {
            event: required(version.event, "HistoryResponse.Version", "event")?.try_into()?,
            stamp: required(version.stamp, "HistoryResponse.Version", "stamp")?.into(),
        })
    };
    response.versions.into_iter().map(version).collect()
}

impl From<ChangesRequest> for wire::ChangesRequest {
    fn from(request: ChangesRequest) -> Self {
        Self {
            ranges: request.ranges.into_iter().map(Into::into).collect(),
            from: request.from.0,
            to: request.to.0,
            newest_first: request.newest_first,
            limit: number(request.limit),
            scan_limit: number(request.scan_limit),
            keys_only: request.keys_only,
        }
    }
}

impl TryFrom<wire::ChangesRequest> for ChangesRequest {
    type Error = Malformed;

    fn try_from(request: wire::ChangesRequest) -> Result<Self> {
        Ok(Self {
            ranges: ranges(request.ranges, "ChangesRequest")?,
            from: Revision(request.from),
            to: Revision(request.to),
            newest_first: request.newest_first,
            limit: size(request.limit),
            scan_limit: size(request.scan_limit),
            keys_only: request.keys_only,
        })
    }
}

impl From<ChangesAnswer> for wire::ChangesResponse {
    fn from(answer: ChangesAnswer) -> Self {
        Self {
            revisions: answer.revisions.into_iter().map(Into::into).collect(),
            next: answer.next.unwrap_or(Revision::NONE).0,
            current: answer.current.0,
        }
    }
}

impl TryFrom<wire::ChangesResponse> for ChangesAnswer {
    type Error = Malformed;

    fn try_from(response: wire::ChangesResponse) -> Result<Self> {
        let revisions = response.revisions.into_iter().map(RevisionEvents::try_from);
        Ok(Self {
            revisions: revisions.collect::<Result<_>>()?,
            next: Some(Revision(response.next)).filter(|&next| next != Revision::NONE),
            current: Revision(response.current),
        })
    }
}

/// A [`wire::StampResponse`] from what [`crate::KeySpace::stamp`] answers.
#[must_use]
pub fn stamp_response(stamp: Stamp) -> wire::StampResponse {
    wire::StampResponse { stamp: Some(stamp.into()) }
}

/// What [`crate::KeySpace::stamp`] answers from a [`wire::StampResponse`].
///
/// # Errors
/// [`Malformed`] if there is no stamp.
pub fn stamp_answer(response: wire::StampResponse) -> Result<Stamp> {
    Ok(required(response.stamp, "StampResponse", "stamp")?.into())
}

/// A [`wire::WatchRequest`] from what [`crate::KeySpace::watch`] takes.
#[must_use]
pub fn watch_request(ranges: Vec<KeyRange>, from: Revision) -> wire::WatchRequest {
    wire::WatchRequest { ranges: ranges.into_iter().map(Into::into).collect(), from: from.0 }
}

/// What [`crate::KeySpace::watch`] takes from a [`wire::WatchRequest`].
///
/// # Errors
/// [`Malformed`] if a range has no meaning, or there is none, or more than [`RANGES_MAX`].
pub fn watch_arguments(request: wire::WatchRequest) -> Result<(Vec<KeyRange>, Revision)> {
    if request.ranges.is_empty() {
        return Err(Malformed::new("WatchRequest", "no range is named"));
    }
    Ok((ranges(request.ranges, "WatchRequest")?, Revision(request.from)))
}

/// A [`wire::StatusResponse`] from what [`crate::KeySpace`] says of itself.
#[must_use]
pub fn status_response(status: Status, capabilities: Capabilities) -> wire::StatusResponse {
    wire::StatusResponse {
        backend: status.backend,
        version: status.version,
        endpoint: status.endpoint,
        data_dir: status.data_dir,
        process_id: status.process_id,
        cluster_id: status.cluster_id,
        member_id: status.member_id,
        leader_id: status.leader_id,
        raft_term: status.raft_term,
        raft_index: status.raft_index,
        applied_index: status.applied_index,
        committed_index: status.committed_index,
        revision: status.revision,
        compacted_revision: status.compacted_revision,
        history_since: status.history_since,
        store_bytes: status.store_bytes,
        store_bytes_in_use: status.store_bytes_in_use,
        log_bytes: status.log_bytes,
        disk_free_bytes: status.disk_free_bytes,
        read_only: status.read_only,
        capabilities: Some(wire::Capabilities {
            stamps: capabilities.stamps,
            bulk: capabilities.bulk,
            value_bytes_max: number(capabilities.value_bytes_max),
        }),
    }
}

/// What a node says of itself from a [`wire::StatusResponse`].
///
/// # Errors
/// [`Malformed`] if the capabilities are missing.
pub fn status_answer(response: wire::StatusResponse) -> Result<(Status, Capabilities)> {
    let capabilities = required(response.capabilities, "StatusResponse", "capabilities")?;
    let capabilities = Capabilities {
        stamps: capabilities.stamps,
        bulk: capabilities.bulk,
        value_bytes_max: size(capabilities.value_bytes_max),
    };
    let status = Status {
        backend: response.backend,
        version: response.version,
        endpoint: response.endpoint,
        data_dir: response.data_dir,
        process_id: response.process_id,
        cluster_id: response.cluster_id,
        member_id: response.member_id,
        leader_id: response.leader_id,
        raft_term: response.raft_term,
        raft_index: response.raft_index,
        applied_index: response.applied_index,
        committed_index: response.committed_index,
        revision: response.revision,
        compacted_revision: response.compacted_revision,
        history_since: response.history_since,
        store_bytes: response.store_bytes,
        store_bytes_in_use: response.store_bytes_in_use,
        log_bytes: response.log_bytes,
        disk_free_bytes: response.disk_free_bytes,
        read_only: response.read_only,
    };
    Ok((status, capabilities))
}
