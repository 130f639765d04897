//! A real etcd of one member, with its data in memory where there is room, killed at the end.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use revfs_api::wire::etcdserverpb::StatusRequest;
use revfs_api::wire::etcdserverpb::maintenance_client::MaintenanceClient;

/// Far above what a start takes.
const START_LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Etcd {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

/// An address that nobody listens on at the moment.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").to_string()
}

/// In memory where there is room.
pub(crate) fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory")
}

impl Etcd {
    pub(crate) async fn start() -> Self {
        let directory = directory();
        let (address, peer) = (free_address(), free_address());
        let (client_url, peer_url) = (format!("http://{address}"), format!("http://{peer}"));
        let child = Command::new("etcd")
            .args(["--name=default", "--log-level=error", "--max-txn-ops=10000"])
            .arg("--data-dir")
            .arg(directory.path())
            .arg(format!("--listen-client-urls={client_url}"))
            .arg(format!("--advertise-client-urls={client_url}"))
            .arg(format!("--listen-peer-urls={peer_url}"))
            .arg(format!("--initial-advertise-peer-urls={peer_url}"))
            .arg(format!("--initial-cluster=default={peer_url}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts: it is in the package etcd-server");
        let mut etcd = Self { child, address, _directory: directory };
        let begun = Instant::now();
        while !answers(&client_url).await {
            let ended = etcd.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "etcd ended at once: {ended:?}");
            assert!(begun.elapsed() < START_LIMIT, "etcd does not answer on {client_url}");
            tokio::task::yield_now().await;
        }
        etcd
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

/// Whether it has a leader by now.
async fn answers(url: &str) -> bool {
    let Ok(mut client) = MaintenanceClient::connect(url.to_owned()).await else { return false };
    client.status(StatusRequest {}).await.is_ok_and(|status| status.into_inner().leader != 0)
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().expect("it runs until it is killed");
        self.child.wait().expect("it is our child");
    }
}
