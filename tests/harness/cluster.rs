//! A cluster of real processes, each on a machine of its own ([`Network`]). Killed at the end.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::clock::Clocks;
use crate::network::Network;
use crate::serve::metric_at;
use crate::{mount, program, tools, wait};

/// An orderly end hands over first, and drains.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Room for ballast, log and store, and little more.
const SMALL_DISK: &str = "size=256m";

pub struct Cluster {
    pub network: Network,
    directory: TempDir,
    members: Vec<Option<Child>>,
    /// Machines whose member began the cluster; the others may join it.
    founders: u8,
    /// Further settings of all members.
    pub settings: Vec<String>,
    /// Each member mounts its store at [`Cluster::mount_point`].
    mounts: bool,
    clocks: Option<Clocks>,
    /// How each member was started last.
    came: Vec<Option<Vec<String>>>,
}

impl Cluster {
    /// Begins a cluster of so many members and waits until it has a leader.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start(members: u8) -> Self {
        let cluster = Self::with_room(members, members, &[]);
        cluster.wait_for_leader();
        cluster
    }

    /// Starts the first `founders` of so many machines; the others have no member yet.
    ///
    /// # Panics
    /// If a process does not start.
    #[must_use]
    pub fn with_room(founders: u8, machines: u8, settings: &[&str]) -> Self {
        Self::began(founders, machines, settings, false)
    }

    /// As [`Cluster::start`], and every member mounts its store.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn with_mounts(members: u8) -> Self {
        Self::with_mounts_that(members, &[])
    }

    /// As [`Cluster::with_mounts`], of which the first `founders` of so many machines begin the cluster.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn with_mounts_and_room(founders: u8, machines: u8) -> Self {
        let cluster = Self::began(founders, machines, &[], true);
        cluster.wait_for_leader();
        (0..founders).for_each(|member| cluster.wait_mounted(member));
        cluster
    }

    /// As [`Cluster::with_mounts`], with further settings.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn with_mounts_that(members: u8, settings: &[&str]) -> Self {
        let cluster = Self::began(members, members, settings, true);
        cluster.wait_for_leader();
        (0..members).for_each(|member| cluster.wait_mounted(member));
        cluster
    }

    /// As [`Cluster::start`]; the clocks of all can be stepped, and the disk of the last one filled.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn to_be_harmed(members: u8, settings: &[&str]) -> Self {
        let mut cluster = Self::began(0, members, settings, false);
        cluster.founders = members;
        cluster.clocks = Some(Clocks::new(cluster.directory.path()));
        let disk = cluster.data_dir(members - 1);
        std::fs::create_dir(&disk).expect("a mount point");
        let kind = Some("tmpfs");
        nix::mount::mount(kind, &disk, kind, MsFlags::empty(), Some(SMALL_DISK))
            .expect("root may mount");
        (0..members).for_each(|member| cluster.start_member(member));
        cluster.wait_for_leader();
        cluster
    }

    /// The clocks of a cluster that is [to be harmed](Cluster::to_be_harmed).
    ///
    /// # Panics
    /// If this one is not.
    #[must_use]
    pub fn clocks(&self) -> &Clocks {
        self.clocks.as_ref().expect("its clocks can be stepped")
    }

    fn began(founders: u8, machines: u8, settings: &[&str], mounts: bool) -> Self {
        tools::need(&["etcdctl"]);
        let mut cluster = Self {
            mounts,
            clocks: None,
            came: (0..machines).map(|_| None).collect(),
            network: Network::new(machines),
            directory: TempDir::with_prefix("revfs-cluster-").expect("a temporary directory"),
            members: (0..machines).map(|_| None).collect(),
            founders,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
        };
        for member in 0..founders {
            cluster.start_member(member);
        }
        cluster
    }

    /// `ADDRESS:2379`
    #[must_use]
    pub fn client(&self, member: u8) -> String {
        format!("{}:2379", self.network.address(member))
    }

    #[must_use]
    pub fn peer_url(&self, member: u8) -> String {
        format!("http://{}:2380", self.network.address(member))
    }

    /// Of all members that run, with commas between them.
    #[must_use]
    pub fn endpoints(&self) -> String {
        let clients: Vec<String> = self.running().map(|member| self.client(member)).collect();
        clients.join(",")
    }

    pub fn running(&self) -> impl Iterator<Item = u8> {
        let members = self.members.iter().zip(0..);
        members.filter(|(child, _)| child.is_some()).map(|(_, member)| member)
    }

    #[must_use]
    pub fn data_dir(&self, member: u8) -> PathBuf {
        self.directory.path().join(format!("m{member}"))
    }

    /// Where a member mounts its store, if members do.
    #[must_use]
    pub fn mount_point(&self, member: u8) -> PathBuf {
        self.directory.path().join(format!("m{member}-mount"))
    }

    /// Waits until a member's mount answers.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait_mounted(&self, member: u8) {
        let point = self.mount_point(member);
        wait::until_true("mount", wait::LIMIT, || {
            mount::is_mount_point(&point) && std::fs::read(point.join("@status")).is_ok()
        });
    }

    /// What a member has logged so far.
    ///
    /// # Panics
    /// If it never ran.
    #[must_use]
    pub fn log(&self, member: u8) -> String {
        let path = self.directory.path().join(format!("m{member}.log"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    }

    /// A whole number of a member's `/metrics`.
    fn metric(&self, member: u8, name: &str) -> u64 {
        let value = metric_at(&self.client(member), name);
        format!("{value:.0}").parse().unwrap_or_else(|error| panic!("{name} {value}: {error}"))
    }

    /// The last entry of a member's log.
    ///
    /// # Panics
    /// If it does not serve.
    #[must_use]
    pub fn last_index(&self, member: u8) -> u64 {
        self.metric(member, "etcd_server_proposals_committed_total")
    }

    /// The last entry that a member's log has given up; 0 if none.
    ///
    /// # Panics
    /// If it does not serve.
    #[must_use]
    pub fn purged(&self, member: u8) -> u64 {
        self.metric(member, "revfs_log_purged_index")
    }

    /// How often a member has copied its store for another one, since it was started.
    ///
    /// # Panics
    /// If it does not serve.
    #[must_use]
    pub fn copies_made(&self, member: u8) -> u64 {
        self.metric(member, "revfs_store_copies_total")
    }

    /// Waits until a member has given up the entry `index` of its log, or has noticed by itself that another one
    /// needs a copy: then it gives up no more.
    ///
    /// # Panics
    /// If it has not in time.
    pub fn wait_given_up(&self, member: u8, index: u64) {
        wait::until_true("entries that are given up", wait::LIMIT, || {
            self.purged(member) > index || self.copies_made(member) > 0
        });
    }

    /// The settings by which a founder is started.
    #[must_use]
    pub fn founder_settings(&self) -> Vec<String> {
        let founders = (0..self.founders).map(|at| format!("m{at}={}", self.peer_url(at)));
        vec![format!("--initial-cluster={}", founders.collect::<Vec<_>>().join(","))]
    }

    /// Starts a member as it was started last; one that never was, as a founder.
    pub fn start_member(&mut self, member: u8) {
        let came = self.came[usize::from(member)].clone();
        let settings = came.unwrap_or_else(|| self.founder_settings());
        self.start_with(member, &settings);
    }

    /// Starts a member with other settings than a founder has.
    ///
    /// # Panics
    /// If the process cannot be started.
    pub fn start_with(&mut self, member: u8, settings: &[String]) {
        let log = self.directory.path().join(format!("m{member}.log"));
        let log = File::options().create(true).append(true).open(&log).expect("a log");
        let mut command = self.network.command(member, program::revfs());
        command.args(["serve", "--name", &format!("m{member}"), "--data-dir"]);
        command.arg(self.data_dir(member));
        command.arg(format!("--listen-client-urls=http://{}", self.client(member)));
        command.arg(format!("--listen-peer-urls={}", self.peer_url(member)));
        command.args(settings).args(&self.settings);
        if let Some(clocks) = &self.clocks {
            command.envs(clocks.variables(member));
        }
        if self.mounts {
            command.arg(format!("--mount={}", self.mount_point(member).display()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.members[usize::from(member)] = Some(child);
        self.came[usize::from(member)] = Some(settings.to_vec());
    }

    fn pid(&self, member: u8) -> Pid {
        let child = self.members[usize::from(member)].as_ref().expect("the member runs");
        Pid::from_raw(i32::try_from(child.id()).expect("a process id"))
    }

    /// # Panics
    /// If it does not run.
    pub fn signal(&self, member: u8, signal: Signal) {
        kill(self.pid(member), signal)
            .unwrap_or_else(|error| panic!("{signal} m{member}: {error}"));
    }

    /// As a power cut would.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self, member: u8) {
        let mut child = self.members[usize::from(member)].take().expect("the member runs");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    /// As an operator would.
    ///
    /// # Panics
    /// If it does not end well.
    pub fn stop(&mut self, member: u8) {
        self.signal(member, Signal::SIGTERM);
        let mut child = self.members[usize::from(member)].take().expect("the member runs");
        let status = wait::until("an orderly end", STOP_LIMIT, || {
            child.try_wait().expect("it is our child")
        });
        assert!(status.success(), "m{member} ended with {status}:\n{}", self.log(member));
    }

    /// Waits until a member has ended by itself; how.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_ended(&mut self, member: u8) -> ExitStatus {
        let mut child = self.members[usize::from(member)].take().expect("the member runs");
        let ended = wait::ask(STOP_LIMIT, || child.try_wait().expect("it is our child"));
        ended.unwrap_or_else(|| {
            child.kill().expect("it is our child");
            panic!("m{member} did not end by itself:\n{}", self.log(member))
        })
    }

    /// A member's disk is lost; it does not run.
    ///
    /// # Panics
    /// If it cannot be removed.
    pub fn wipe(&self, member: u8) {
        assert!(self.members[usize::from(member)].is_none(), "m{member} runs");
        std::fs::remove_dir_all(self.data_dir(member)).expect("it can be removed");
    }

    /// A line of `revfs` to some members, ready to run.
    #[must_use]
    pub fn revfs(&self, endpoints: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program::revfs());
        command.args(arguments).arg("--endpoint").arg(endpoints);
        command.stdin(Stdio::null());
        command
    }

    /// A line of etcdctl to some members.
    ///
    /// # Panics
    /// If there is no etcdctl.
    #[must_use]
    pub fn run(&self, endpoints: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoints}"));
        command.args(["--dial-timeout=2s", "--command-timeout=10s"]).args(arguments);
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// The same, where it must succeed; what it prints.
    ///
    /// # Panics
    /// If it fails.
    #[expect(clippy::must_use_candidate, reason = "it is run for what it does")]
    pub fn ctl(&self, endpoints: &str, arguments: &[&str]) -> String {
        let output = self.run(endpoints, arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The member that leads by what `of` says of itself.
    fn says_it_leads(&self, of: u8) -> bool {
        let output = self.run(&self.client(of), &["endpoint", "status", "-w", "json"]);
        let Ok(status) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
            return false;
        };
        let status = &status[0]["Status"];
        let leader = &status["leader"];
        leader.as_u64().unwrap_or(0) != 0 && *leader == status["header"]["member_id"]
    }

    /// Waits until one of the members that run leads; which.
    ///
    /// # Panics
    /// If none does in time.
    #[expect(clippy::must_use_candidate, reason = "it is called to wait, too")]
    pub fn wait_for_leader(&self) -> u8 {
        wait::until("leader", wait::LIMIT, || {
            self.running().find(|&member| self.says_it_leads(member))
        })
    }

    /// Waits until a change through this member is acknowledged.
    ///
    /// # Panics
    /// If none is in time.
    pub fn wait_writable(&self, through: u8) {
        let client = self.client(through);
        wait::until_true("acknowledged change", wait::LIMIT, || {
            self.run(&client, &["put", "writable", "yes"]).status.success()
        });
    }

    /// Waits until all that run have the same history.
    ///
    /// # Panics
    /// If they have not in time.
    pub fn agree(&self) {
        wait::until_true("equal history", wait::LIMIT, || {
            let endpoints = self.endpoints();
            let output = self.run(&endpoints, &["endpoint", "hashkv", "-w", "json"]);
            let Ok(all) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
                return false;
            };
            let hashes: Vec<String> = all
                .as_array()
                .into_iter()
                .flatten()
                .map(|one| {
                    let hash = &one["HashKV"];
                    format!("{} {}", hash["hash"], hash["header"]["revision"])
                })
                .collect();
            !hashes.is_empty() && hashes.iter().all(|hash| *hash == hashes[0])
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            // An error means that it has ended already.
            child.kill().ok();
            child.wait().ok();
        }
        for (member, _) in (0..).zip(&self.members) {
            mount::detach(&self.mount_point(member));
            mount::detach(&self.data_dir(member));
        }
        if std::thread::panicking() {
            for member in (0..).zip(&self.members).map(|(member, _)| member) {
                let path = self.directory.path().join(format!("m{member}.log"));
                let log = std::fs::read_to_string(path).unwrap_or_default();
                let from = log.len().saturating_sub(4_000);
                let tail = log.get(from..).unwrap_or(&log);
                eprintln!("--- m{member} ---\n{tail}");
            }
        }
    }
}
