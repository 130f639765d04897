//! The two servers, each a real process on the disk.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use revfs_api::wire::etcdserverpb::StatusRequest;
use revfs_api::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use revfs_tests::{program, tools};

use crate::load::Outcome;

/// Far above what a start takes.
const START_LIMIT: Duration = Duration::from_secs(60);

const START_INTERVAL: Duration = Duration::from_millis(20);

/// A running server; killed when dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    child: Child,
}

fn free_url() -> Outcome<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(format!("http://{}", listener.local_addr()?))
}

impl Server {
    pub(crate) async fn etcd(data: &Path) -> Outcome<Self> {
        tools::need(&["etcd"]);
        let (url, peer) = (free_url()?, free_url()?);
        let mut command = Command::new("etcd");
        command.args(["--name=default", "--log-level=error", "--quota-backend-bytes=8589934592"]);
        command.arg("--data-dir").arg(data);
        command.arg(format!("--listen-client-urls={url}"));
        command.arg(format!("--advertise-client-urls={url}"));
        command.arg(format!("--listen-peer-urls={peer}"));
        command.arg(format!("--initial-advertise-peer-urls={peer}"));
        command.arg(format!("--initial-cluster=default={peer}"));
        Self::start(command, url).await
    }

    pub(crate) async fn revfs(data: &Path) -> Outcome<Self> {
        let url = free_url()?;
        let mut command = Command::new(program::revfs());
        command.args(["serve", "--quota-backend-bytes=8589934592"]);
        command.arg("--data-dir").arg(data);
        command.arg(format!("--listen-client-urls={url}"));
        command.arg(format!("--advertise-client-urls={url}"));
        Self::start(command, url).await
    }

    async fn start(mut command: Command, url: String) -> Outcome<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut server = Self { url, child };
        let begun = Instant::now();
        let mut turns = tokio::time::interval(START_INTERVAL);
        while !server.answers().await {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("{command:?} ended at once: {status}").into());
            }
            if begun.elapsed() > START_LIMIT {
                return Err(format!("{command:?} does not answer on {}", server.url).into());
            }
            turns.tick().await;
        }
        Ok(server)
    }

    /// Whether it has a leader by now.
    async fn answers(&self) -> bool {
        let Ok(mut client) = MaintenanceClient::connect(self.url.clone()).await else {
            return false;
        };
        client.status(StatusRequest {}).await.is_ok_and(|status| status.into_inner().leader != 0)
    }

    /// What its process has used of the processors since its start.
    pub(crate) fn processor_time(&self) -> Outcome<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in brackets may hold blanks; user and system time are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').ok_or("/proc/PID/stat has no name")?;
        let mut fields = fields.split_whitespace().skip(11);
        let mut ticks =
            || -> Outcome<u64> { Ok(fields.next().ok_or("/proc/PID/stat is too short")?.parse()?) };
        let ticks = ticks()? + ticks()?;
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?;
        let per_second = u32::try_from(per_second.ok_or("no clock ticks")?)?;
        Ok(Duration::from_secs(ticks) / per_second)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
