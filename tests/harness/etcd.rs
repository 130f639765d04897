//! A real etcd of one member, as Debian packs it, and etcdctl to it. Killed at the end.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::{tools, wait};

/// Far above what a start takes.
const START_LIMIT: Duration = Duration::from_secs(60);

pub struct Etcd {
    child: Child,
    address: String,
    _directory: TempDir,
}

/// An address of this machine that nobody listens on at the moment.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").to_string()
}

impl Etcd {
    /// Starts one and waits until it has a leader.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn start() -> Self {
        tools::need(&["etcd", "etcdctl", "setpriv"]);
        let directory = TempDir::with_prefix("revfs-etcd-").expect("a temporary directory");
        let (address, peer) = (free_address(), free_address());
        let (client_url, peer_url) = (format!("http://{address}"), format!("http://{peer}"));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "etcd", "--name=one", "--log-level=error"]);
        command.arg("--data-dir").arg(directory.path());
        command.args([
            format!("--listen-client-urls={client_url}"),
            format!("--advertise-client-urls={client_url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster=one={peer_url}"),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut etcd = Self { child, address, _directory: directory };
        wait::until("etcd answers", START_LIMIT, || {
            let ended = etcd.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "etcd ended at once: {ended:?}");
            etcd.etcdctl(&["endpoint", "health"]).ok()
        });
        etcd
    }

    /// `http://host:port`
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn etcdctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", self.address));
        command.arg("--command-timeout=10s").args(arguments);
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Runs etcdctl, which must succeed. Its output.
    ///
    /// # Panics
    /// If it fails.
    #[expect(clippy::must_use_candidate, reason = "it is run for what it does")]
    pub fn ctl(&self, arguments: &[&str]) -> String {
        self.etcdctl(arguments).unwrap_or_else(|error| panic!("etcdctl {arguments:?}: {error}"))
    }

    /// Every key, in order.
    ///
    /// # Panics
    /// If etcdctl fails.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let listed = self.ctl(&["get", "--from-key", "", "--keys-only"]);
        listed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
