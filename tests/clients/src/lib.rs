//! A node in this process, served on a TCP port.

use std::time::Duration;

use revfs_cluster::grpc::{Drained, Listen, ServeHandle, serve_node};
use revfs_cluster::{Node as Member, NodeConfig};
use tokio::sync::oneshot;

/// Far above what anything here takes.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

pub struct Node {
    member: Member,
    handle: ServeHandle,
    stop: oneshot::Sender<()>,
    _directory: tempfile::TempDir,
}

impl Node {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config =
            NodeConfig { ballast_bytes: 0, ..NodeConfig::new(directory.path().join("data")) };
        let member = Member::start(config).await.expect("a new node starts");
        let tcp = vec!["127.0.0.1:0".parse().expect("an address")];
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or_default() };
        let handle = serve_node(Listen { tcp, ..Listen::default() }, member.local(), stopped).await;
        let handle = handle.expect("the port is free");
        Self { member, handle, stop, _directory: directory }
    }

    /// `host:port`
    #[must_use]
    pub fn address(&self) -> String {
        self.handle.tcp()[0].to_string()
    }

    /// Stops in order, which nobody who is connected may hinder.
    pub async fn stop(self) {
        self.stop.send(()).expect("the server runs");
        assert_eq!(self.handle.finished().await, Drained::Clean);
        self.member.shutdown(SHUTDOWN_LIMIT).await.expect("a clean shutdown");
    }
}
