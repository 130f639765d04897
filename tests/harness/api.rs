//! An API client of a running node, over its socket: what other machines and programs do to the key
//! space while a mount looks on.

use std::sync::Arc;

use revfs_api::KeySpace;
use revfs_api::client::{Endpoints, connect};
use revfs_api::keyspace::{Answer, Op, Origin, Read, Result, Revision, Txn, TxnAnswer};
use tokio::runtime::Runtime;

use crate::Mount;

pub struct Api {
    runtime: Runtime,
    remote: Arc<dyn KeySpace>,
}

impl Api {
    /// Connects to the node behind a mount.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn new(mount: &Mount) -> Self {
        let status = mount.status();
        let endpoint = status["endpoint"].as_str().expect("@status names the endpoint");
        Self::at(endpoint)
    }

    /// Connects to a node.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn at(endpoint: &str) -> Self {
        let endpoint: Endpoints = endpoint.parse().unwrap_or_else(|error| panic!("{error}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for the client");
        let remote = runtime.block_on(connect(&endpoint)).expect("the node answers");
        Self { runtime, remote }
    }

    /// Forgets history before `revision`.
    ///
    /// # Errors
    /// What the node answers.
    pub fn compact(&self, revision: u64, physical: bool) -> Result<()> {
        self.runtime.block_on(self.remote.compact(Revision(revision), physical))
    }

    /// The value of a key.
    ///
    /// # Panics
    /// If the node does not answer.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let read = self.remote.read(Revision::NONE, vec![Read::key(key.as_bytes().to_vec())]);
        let answer = self.runtime.block_on(read).unwrap_or_else(|error| panic!("{key}: {error}"));
        match answer.answers.into_iter().next() {
            Some(Answer::Range(range)) => range.kvs.into_iter().next().map(|kv| kv.value.to_vec()),
            other => panic!("a range was asked for: {other:?}"),
        }
    }

    /// One transaction of these operations.
    ///
    /// # Errors
    /// What the node answers.
    pub fn change(&self, operations: Vec<Op>) -> Result<TxnAnswer> {
        let txn = Txn { success: operations, ..Txn::default() };
        let origin = Origin { claimed: "api@test".to_owned(), ..Origin::default() };
        self.runtime.block_on(self.remote.txn(txn, origin))
    }

    /// Puts one key.
    ///
    /// # Panics
    /// If the node refuses.
    pub fn put(&self, key: &str, value: &str) {
        let put = Op::put(key.as_bytes().to_vec(), value.as_bytes().to_vec());
        self.change(vec![put]).unwrap_or_else(|error| panic!("put {key}: {error}"));
    }
}
