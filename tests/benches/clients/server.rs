//! Servers, each a real process on the disk, alone or as members of one cluster.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use revfs_api::wire::etcdserverpb::StatusRequest;
use revfs_api::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use revfs_tests::{program, tools, wait};
use tonic::transport::Endpoint;

use crate::load::Outcome;

/// Far above what a start takes.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Far above what an end takes.
const STOP_LIMIT: Duration = Duration::from_secs(60);

const START_INTERVAL: Duration = Duration::from_millis(20);

/// One process; killed when dropped.
struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    child: Child,
}

/// The running members of a cluster, perhaps one.
pub(crate) struct Server {
    pub(crate) urls: Vec<String>,
    processes: Vec<Process>,
}

fn free_url() -> Outcome<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(format!("http://{}", listener.local_addr()?))
}

impl Process {
    fn start(program: PathBuf, arguments: Vec<String>) -> Outcome<Self> {
        let child = spawn(&program, &arguments)?;
        Ok(Self { program, arguments, child })
    }

    fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(program: &Path, arguments: &[String]) -> Outcome<Child> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| format!("{command:?}: {error}").into())
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    pub(crate) async fn etcd(data: &Path, members: usize) -> Outcome<Self> {
        tools::need(&["etcd"]);
        let settings = ["--log-level=error", "--quota-backend-bytes=8589934592"];
        Self::start(Path::new("etcd"), &settings, data, members).await
    }

    pub(crate) async fn revfs(data: &Path, members: usize) -> Outcome<Self> {
        let settings = ["serve", "--quota-backend-bytes=8589934592"];
        Self::start(program::revfs(), &settings, data, members).await
    }

    /// A server that answers at once.
    pub(crate) async fn null_handler() -> Outcome<Self> {
        let url = free_url()?;
        let address = url.trim_start_matches("http://").to_owned();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_null-handler"));
        let processes = vec![Process::start(program, vec![address])?];
        let begun = Instant::now();
        let mut turns = tokio::time::interval(START_INTERVAL);
        while Endpoint::from_shared(url.clone())?.connect().await.is_err() {
            if begun.elapsed() > START_LIMIT {
                return Err("the null handler does not listen".into());
            }
            turns.tick().await;
        }
        Ok(Self { urls: vec![url], processes })
    }

    async fn start(
        program: &Path,
        settings: &[&str],
        data: &Path,
        members: usize,
    ) -> Outcome<Self> {
        let urls = (0..members).map(|_| free_url()).collect::<Outcome<Vec<_>>>()?;
        let peers = (0..members).map(|_| free_url()).collect::<Outcome<Vec<_>>>()?;
        let founders: Vec<String> =
            peers.iter().enumerate().map(|(at, peer)| format!("m{at}={peer}")).collect();
        let founders = founders.join(",");
        let mut processes = Vec::new();
        for (at, (url, peer)) in urls.iter().zip(&peers).enumerate() {
            let mut arguments: Vec<String> =
                settings.iter().map(|&setting| setting.to_owned()).collect();
            arguments.extend([
                format!("--name=m{at}"),
                format!("--data-dir={}", data.join(format!("m{at}")).display()),
                format!("--listen-client-urls={url}"),
                format!("--advertise-client-urls={url}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster={founders}"),
            ]);
            processes.push(Process::start(program.to_owned(), arguments)?);
        }
        let mut server = Self { urls, processes };
        let begun = Instant::now();
        let mut turns = tokio::time::interval(START_INTERVAL);
        for member in 0..members {
            while !server.has_leader(member).await {
                let process = &mut server.processes[member];
                if let Some(status) = process.child.try_wait()? {
                    return Err(format!("{:?} ended at once: {status}", process.arguments).into());
                }
                if begun.elapsed() > START_LIMIT {
                    return Err(format!("{:?} has no leader", process.arguments).into());
                }
                turns.tick().await;
            }
        }
        Ok(server)
    }

    /// The ids of a member and of whom it takes for the leader.
    async fn status(&self, member: usize) -> Option<(u64, u64)> {
        let mut client = MaintenanceClient::connect(self.urls[member].clone()).await.ok()?;
        let status = client.status(StatusRequest {}).await.ok()?.into_inner();
        Some((status.header?.member_id, status.leader))
    }

    async fn has_leader(&self, member: usize) -> bool {
        self.status(member).await.is_some_and(|(_, leader)| leader != 0)
    }

    /// Waits for the member that says that it leads.
    pub(crate) async fn leader(&self) -> Outcome<usize> {
        let begun = Instant::now();
        let mut turns = tokio::time::interval(START_INTERVAL);
        while begun.elapsed() < START_LIMIT {
            for member in 0..self.urls.len() {
                if self.status(member).await.is_some_and(|(own, leader)| own == leader) {
                    return Ok(member);
                }
            }
            turns.tick().await;
        }
        Err(format!("none of {:?} leads", self.urls).into())
    }

    pub(crate) fn kill(&mut self, member: usize) {
        self.processes[member].kill();
    }

    /// Starts a killed member again and waits until it knows a leader.
    pub(crate) async fn restart(&mut self, member: usize) -> Outcome<()> {
        self.start_again(member)?;
        let begun = Instant::now();
        let mut turns = tokio::time::interval(START_INTERVAL);
        while !self.has_leader(member).await {
            if begun.elapsed() > START_LIMIT {
                return Err(format!("{} does not come back", self.urls[member]).into());
            }
            turns.tick().await;
        }
        Ok(())
    }

    /// Ends a member as systemd does, and waits until it has ended.
    pub(crate) fn stop(&mut self, member: usize) -> Outcome<()> {
        let child = &mut self.processes[member].child;
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        let ended = wait::ask(STOP_LIMIT, || child.try_wait().transpose());
        ended.ok_or("it did not end")??;
        Ok(())
    }

    /// Starts a member again that has ended, and waits for nothing.
    pub(crate) fn start_again(&mut self, member: usize) -> Outcome<()> {
        let Process { program, arguments, .. } = &self.processes[member];
        self.processes[member].child = spawn(program, arguments)?;
        Ok(())
    }

    pub(crate) fn anonymous_bytes(&self) -> u64 {
        self.processes.iter().map(|process| program::anonymous_bytes(process.child.id())).sum()
    }

    /// What its processes have used of the processors since their start.
    pub(crate) fn processor_time(&self) -> Duration {
        self.processes.iter().map(|process| program::processor_time(process.child.id())).sum()
    }
}
