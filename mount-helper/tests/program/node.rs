//! A key space in memory behind a socket: all that the client commands see of a node.

use std::sync::Arc;
use std::time::Duration;

use revfs_api::KeySpace;
use revfs_api::keyspace::{Op, Origin, Revision, Txn};
use revfs_cluster::grpc::{Listen, ServeHandle, serve};
use revfs_fs::memory::Memory;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::command::{Prepared, command};

pub(crate) struct Node {
    pub(crate) keys: Arc<Memory>,
    endpoint: String,
    runtime: Runtime,
    _server: ServeHandle,
    _directory: TempDir,
}

impl Node {
    pub(crate) fn start() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let socket = directory.path().join("revfs.sock");
        let runtime = Runtime::new().expect("a runtime");
        let keys = Arc::new(Memory::default());
        let listen = Listen { socket: Some(socket.clone()), ..Listen::default() };
        let server = runtime.block_on(serve(listen, keys.clone(), std::future::pending()));
        let endpoint = format!("unix://{}", socket.display());
        let server = server.expect("the socket is free");
        Self { keys, endpoint, runtime, _server: server, _directory: directory }
    }

    /// A call of the program that asks this node. Arguments are separated by spaces.
    pub(crate) fn call(&self, line: &str) -> Prepared {
        command(line.split(' ')).variable("REVFS_ENDPOINT", &self.endpoint)
    }

    /// Puts keys past the program, all in one revision.
    pub(crate) fn put(&self, pairs: &[(&[u8], &[u8])]) {
        let put = |(key, value): &(&[u8], &[u8])| Op::put(key.to_vec(), value.to_vec());
        let txn = Txn { success: pairs.iter().map(put).collect(), ..Txn::default() };
        self.runtime.block_on(self.keys.txn(txn, Origin::default())).expect("it is put");
    }

    pub(crate) fn compact(&self, revision: u64) {
        let compacted = self.runtime.block_on(self.keys.compact(Revision(revision), true));
        compacted.expect("it is compacted");
    }

    /// The clock of the node goes on.
    pub(crate) fn pass(&self, time: Duration) {
        self.keys.advance(time);
    }
}
