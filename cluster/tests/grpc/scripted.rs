//! A key space that says what a test wants, and a server of it. It stores nothing: a transaction is
//! counted and answered, the watch repeats what the test published.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use revfs_api::KeySpace;
use revfs_api::client::{Endpoint, Settings, connect_with};
use revfs_api::keyspace::{
    Answer, Capabilities, ChangeKind, ChangesAnswer, ChangesRequest, DirectoryAnswer, Error, Event,
    HistoryRequest, KeyRange, KeyValue, LeaseId, ListAnswer, Op, OpAnswer, Origin, RangeAnswer,
    Read, ReadAnswer, Result, Revision, RevisionEvents, Stamp, Status, Time, Txn, TxnAnswer,
    Version, Watch,
};
use revfs_cluster::grpc::{Drained, Listen, ServeHandle, serve};
use tokio::sync::{oneshot, watch};

pub(crate) struct Scripted {
    /// Transactions and reads that came.
    pub(crate) txns: AtomicUsize,
    pub(crate) reads: AtomicUsize,
    /// While it is closed, transactions and reads wait.
    gate: watch::Sender<bool>,
    /// What every call answers, if anything is set.
    error: Mutex<Option<Error>>,
    published: watch::Sender<Vec<RevisionEvents>>,
    /// Up to here there are revisions of which no watch is shown anything.
    idle: watch::Sender<Revision>,
    compacted: Mutex<Revision>,
    /// Seconds of each lease; none are granted if it is 0.
    lease_seconds: AtomicI64,
}

impl Scripted {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            txns: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            gate: watch::Sender::new(true),
            error: Mutex::new(None),
            published: watch::Sender::new(Vec::new()),
            idle: watch::Sender::new(Revision(1)),
            compacted: Mutex::new(Revision::NONE),
            lease_seconds: AtomicI64::new(0),
        })
    }

    pub(crate) fn close_gate(&self) {
        self.gate.send_replace(false);
    }

    pub(crate) fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    pub(crate) fn fail_with(&self, error: Error) {
        *self.error.lock() = Some(error);
    }

    pub(crate) fn grant_leases(&self, seconds: i64) {
        self.lease_seconds.store(seconds, Ordering::SeqCst);
    }

    pub(crate) fn compact_to(&self, revision: Revision) {
        *self.compacted.lock() = revision;
    }

    pub(crate) fn idle_to(&self, revision: Revision) {
        self.idle.send_replace(revision);
    }

    /// Publishes the next revision (2, 3, …) with `events` puts of `value_bytes` each.
    pub(crate) fn publish(&self, events: usize, value_bytes: usize) -> RevisionEvents {
        let revision = Revision(self.current().0 + 1);
        let event = |number: usize| Event {
            kind: ChangeKind::Put,
            kv: KeyValue {
                key: Bytes::from(format!("/key/{number}")),
                value: Bytes::from(vec![b'x'; value_bytes]),
                mod_revision: revision,
                ..KeyValue::default()
            },
        };
        let stamp = Stamp { revision, time: Time(5), ..Stamp::default() };
        let made = RevisionEvents { stamp, events: (0..events).map(event).collect() };
        self.published.send_modify(|all| all.push(made.clone()));
        made
    }

    fn current(&self) -> Revision {
        let idle = *self.idle.borrow();
        self.published.borrow().last().map_or(idle, |last| last.stamp.revision.max(idle))
    }

    async fn pass(&self) -> Result<()> {
        let mut gate = self.gate.subscribe();
        gate.wait_for(|&is_open| is_open).await.map(drop).expect("the gate lives as long as self");
        self.error.lock().clone().map_or(Ok(()), Err)
    }
}

fn answer(op: &Op) -> OpAnswer {
    match op {
        Op::Put { .. } => OpAnswer::Put { prev_kv: None },
        Op::Delete { .. } => OpAnswer::Delete { deleted: 1, prev_kvs: Vec::new() },
        Op::Range(_) => OpAnswer::Range(RangeAnswer::default()),
        Op::Txn(txn) => OpAnswer::Txn(TxnAnswer {
            succeeded: true,
            revision: Revision(2),
            changed: true,
            answers: txn.success.iter().map(answer).collect(),
        }),
        Op::Append { value, .. } => OpAnswer::Append { value_bytes: value.len() as u64 },
        Op::Move { .. } | Op::MoveKey { .. } | Op::Exchange { .. } => OpAnswer::Move { moved: 1 },
        Op::Restore { .. } => OpAnswer::Restore { put: 1, deleted: 2 },
    }
}

#[async_trait::async_trait]
impl KeySpace for Scripted {
    fn capabilities(&self) -> Capabilities {
        Capabilities { stamps: true, bulk: false, value_bytes_max: 12_345 }
    }

    async fn read(&self, revision: Revision, reads: Vec<Read>) -> Result<ReadAnswer> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.pass().await?;
        let answer = |read| match read {
            Read::Range(_) => Answer::Range(RangeAnswer { count: 7, ..RangeAnswer::default() }),
            Read::List(_) => Answer::List(ListAnswer { more: true, ..ListAnswer::default() }),
            Read::Directory(_) => {
                Answer::Directory(DirectoryAnswer { names: 3, ..DirectoryAnswer::default() })
            }
        };
        let answers = reads.into_iter().map(answer).collect();
        Ok(ReadAnswer { revision, current: self.current(), answers })
    }

    async fn history(&self, request: HistoryRequest) -> Result<Vec<Version>> {
        self.pass().await?;
        let kv = KeyValue { key: request.key, ..KeyValue::default() };
        let event = Event { kind: ChangeKind::Delete, kv };
        Ok(vec![Version { event, stamp: Stamp::default() }])
    }

    async fn changes(&self, request: ChangesRequest) -> Result<ChangesAnswer> {
        self.pass().await?;
        let revisions = self.published.borrow().clone();
        Ok(ChangesAnswer { revisions, next: Some(request.from), current: self.current() })
    }

    async fn revision_at(&self, time: Time) -> Result<Revision> {
        self.pass().await?;
        Ok(Revision(time.0.unsigned_abs()))
    }

    async fn stamp(&self, revision: Revision) -> Result<Stamp> {
        self.pass().await?;
        Ok(Stamp { revision, ..Stamp::default() })
    }

    async fn txn(&self, txn: Txn, _origin: Origin) -> Result<TxnAnswer> {
        self.txns.fetch_add(1, Ordering::SeqCst);
        self.pass().await?;
        let answers = txn.success.iter().map(answer).collect();
        Ok(TxnAnswer { succeeded: true, revision: Revision(2), changed: true, answers })
    }

    async fn watch(&self, _ranges: Vec<KeyRange>, from: Revision) -> Result<Box<dyn Watch>> {
        let compacted = *self.compacted.lock();
        if from < compacted {
            return Err(Error::Compacted { requested: from, compacted });
        }
        let (published, idle) = (self.published.subscribe(), self.idle.subscribe());
        Ok(Box::new(ScriptedWatch { next: from, published, idle }))
    }

    async fn compact(&self, _revision: Revision, _physical: bool) -> Result<()> {
        self.pass().await
    }

    async fn lease_grant(&self, id: LeaseId, _ttl_seconds: i64) -> Result<(LeaseId, i64)> {
        self.pass().await?;
        let seconds = self.lease_seconds.load(Ordering::SeqCst);
        if seconds == 0 { Err(Error::Unsupported("leases")) } else { Ok((id, seconds)) }
    }

    async fn lease_keep_alive(&self, _id: LeaseId) -> Result<Option<i64>> {
        self.pass().await?;
        Ok(Some(self.lease_seconds.load(Ordering::SeqCst)).filter(|&seconds| seconds > 0))
    }

    async fn status(&self) -> Result<Status> {
        Ok(Status { cluster_id: 11, member_id: 12, raft_term: 13, ..Status::default() })
    }
}

struct ScriptedWatch {
    next: Revision,
    published: watch::Receiver<Vec<RevisionEvents>>,
    idle: watch::Receiver<Revision>,
}

#[async_trait::async_trait]
impl Watch for ScriptedWatch {
    async fn next(&mut self) -> Result<RevisionEvents> {
        let next = self.next;
        let find = |all: &Vec<RevisionEvents>| {
            all.iter().find(|revision| revision.stamp.revision >= next).cloned()
        };
        let published = self.published.wait_for(|all| find(all).is_some()).await;
        let published = published.map_err(|_| Error::Unavailable { reason: "gone".into() })?;
        let revision = find(&published).expect("it was waited for");
        self.next = revision.stamp.revision.next();
        Ok(revision)
    }

    fn progress(&self) -> Revision {
        Revision(self.next.0.saturating_sub(1)).max(*self.idle.borrow())
    }
}

/// A served key space on a socket in a directory of its own.
pub(crate) struct Served {
    handle: ServeHandle,
    stop: oneshot::Sender<()>,
}

impl Served {
    pub(crate) async fn start(socket: &Path, keyspace: Arc<dyn KeySpace>) -> Self {
        let listen = Listen { drain_timeout: Duration::from_millis(300), ..on(socket) };
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or_default() };
        let handle = serve(listen, keyspace, stopped).await.expect("the socket is free");
        Self { handle, stop }
    }

    pub(crate) async fn stop(self) -> Drained {
        self.stop.send(()).expect("the server runs");
        self.handle.finished().await
    }

    /// The signal without the wait.
    pub(crate) fn signal(self) -> ServeHandle {
        self.stop.send(()).expect("the server runs");
        self.handle
    }
}

pub(crate) fn on(socket: &Path) -> Listen {
    Listen { socket: Some(socket.to_owned()), ..Listen::default() }
}

/// A directory and the path of a socket in it.
pub(crate) fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("socket");
    (directory, socket)
}

/// Short times, so that tests of failure end soon.
pub(crate) fn quick() -> Settings {
    Settings {
        call_timeout: Duration::from_secs(5),
        pause: Duration::from_millis(5),
        pause_max: Duration::from_millis(20),
        watch_patience: Duration::from_secs(5),
        ..Settings::default()
    }
}

pub(crate) async fn remote(socket: &Path, settings: Settings) -> Result<Arc<dyn KeySpace>> {
    connect_with(&Endpoint::Unix(socket.to_owned()).into(), settings).await
}

pub(crate) fn put() -> Txn {
    Txn { success: vec![Op::put("/key", "value")], ..Txn::default() }
}
