//! A key space that counts the questions put to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use revfs_api::KeySpace;
use revfs_api::keyspace::{
    Capabilities, ChangesAnswer, ChangesRequest, HistoryRequest, KeyRange, Origin, Read,
    ReadAnswer, Result, Revision, Stamp, Status, Time, Txn, TxnAnswer, Version, Watch,
};
use revfs_api::reservations::Reservations;
use revfs_fs::memory::Memory;

pub(crate) struct Counting {
    memory: Arc<Memory>,
    pub reads: AtomicUsize,
}

impl Counting {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        Self { memory, reads: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl KeySpace for Counting {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    fn reservations(&self) -> Option<Arc<Reservations>> {
        self.memory.reservations()
    }

    async fn read(&self, revision: Revision, reads: Vec<Read>) -> Result<ReadAnswer> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.memory.read(revision, reads).await
    }

    async fn history(&self, request: HistoryRequest) -> Result<Vec<Version>> {
        self.memory.history(request).await
    }

    async fn changes(&self, request: ChangesRequest) -> Result<ChangesAnswer> {
        self.memory.changes(request).await
    }

    async fn revision_at(&self, time: Time) -> Result<Revision> {
        self.memory.revision_at(time).await
    }

    async fn stamp(&self, revision: Revision) -> Result<Stamp> {
        self.memory.stamp(revision).await
    }

    async fn txn(&self, txn: Txn, origin: Origin) -> Result<TxnAnswer> {
        self.memory.txn(txn, origin).await
    }

    async fn watch(&self, ranges: Vec<KeyRange>, from: Revision) -> Result<Box<dyn Watch>> {
        self.memory.watch(ranges, from).await
    }

    async fn compact(&self, revision: Revision, physical: bool) -> Result<()> {
        self.memory.compact(revision, physical).await
    }

    async fn status(&self) -> Result<Status> {
        self.memory.status().await
    }
}
