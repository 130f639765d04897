//! A real node, served on a socket and a TCP port.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use revfs_api::KeySpace;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_cluster::AuthConfig;
use revfs_cluster::grpc::{Address, Drained, Listen, ServeHandle, serve_node};
use revfs_cluster::{Node as Member, NodeConfig};
use tokio::sync::oneshot;
use tonic::transport::{Channel, Uri};

/// Far above what anything here takes.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Node {
    member: Member,
    handle: ServeHandle,
    stop: oneshot::Sender<()>,
    _directory: tempfile::TempDir,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::start_with(Listen::default()).await
    }

    pub(crate) async fn start_with(listen: Listen) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::start_in(directory, listen, AuthConfig::default()).await
    }

    /// With settings of authentication.
    pub(crate) async fn start_guarded(auth: AuthConfig) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::start_in(directory, Listen::default(), auth).await
    }

    /// With its data in memory where there is room: for long runs.
    pub(crate) async fn start_in_memory() -> Self {
        Self::start_in(crate::oracle::directory(), Listen::default(), AuthConfig::default()).await
    }

    async fn start_in(directory: tempfile::TempDir, listen: Listen, auth: AuthConfig) -> Self {
        let config =
            NodeConfig { ballast_bytes: 0, auth, ..NodeConfig::new(directory.path().join("data")) };
        let member = Member::start(config).await.expect("a new node starts");
        let listen = Listen {
            socket: Some(directory.path().join("socket")),
            tcp: vec!["127.0.0.1:0".parse().expect("an address")],
            ..listen
        };
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or_default() };
        let handle = serve_node(listen, member.local(), stopped).await.expect("both are free");
        Self { member, handle, stop, _directory: directory }
    }

    pub(crate) fn key_space(&self) -> Arc<dyn KeySpace> {
        self.member.key_space()
    }

    /// `host:port`
    pub(crate) fn address(&self) -> String {
        self.handle.tcp()[0].to_string()
    }

    /// Where [`Listen::listeners`] are.
    pub(crate) fn bound(&self) -> &[Address] {
        self.handle.bound()
    }

    pub(crate) fn socket(&self) -> &std::path::Path {
        self.handle.socket().expect("it was asked for")
    }

    pub(crate) async fn kv(&self) -> KvClient<Channel> {
        KvClient::connect(format!("http://{}", self.address())).await.expect("it answers")
    }

    /// A connection for any service.
    pub(crate) async fn channel(&self) -> Channel {
        let channel = Channel::from_shared(format!("http://{}", self.address()));
        channel.expect("an address").connect().await.expect("it answers")
    }

    /// A connection for any service through the socket in the data directory.
    pub(crate) async fn own_channel(&self) -> Channel {
        let path = self.socket().to_owned();
        let connect = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Channel::from_static("http://localhost");
        endpoint.connect_with_connector(connect).await.expect("it answers")
    }

    /// Stops and starts on the same data.
    pub(crate) async fn restart(self) -> Self {
        let Self { member, handle, stop, _directory: directory } = self;
        stop.send(()).expect("the server runs");
        handle.finished().await;
        member.shutdown(SHUTDOWN_LIMIT).await.expect("a clean shutdown");
        Self::start_in(directory, Listen::default(), AuthConfig::default()).await
    }

    /// Begins the shutdown, with streams that are open.
    pub(crate) fn signal(self) -> Stopping {
        self.stop.send(()).expect("the server runs");
        Stopping { member: self.member, handle: self.handle, _directory: self._directory }
    }

    pub(crate) async fn stop(self) {
        self.signal().finished().await;
    }
}

/// A node that drains.
pub(crate) struct Stopping {
    member: Member,
    handle: ServeHandle,
    _directory: tempfile::TempDir,
}

impl Stopping {
    pub(crate) async fn finished(self) {
        assert_eq!(self.handle.finished().await, Drained::Clean);
        self.member.shutdown(SHUTDOWN_LIMIT).await.expect("a clean shutdown");
    }
}
