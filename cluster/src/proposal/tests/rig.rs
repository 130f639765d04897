//! Three members in one process, each on a disk that can be held up or fail. A change appends a word to a key,
//! so that it shows how often it was applied.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use revfs_api::KeySpace as _;
use revfs_api::keyspace::{Answer, Error, Op, Origin, Read, Result, Revision, Txn, TxnAnswer};
use revfs_store::{OpenError, StoreOptions};
use tempfile::TempDir;

use crate::log::{DiskOperation, Faults, LogOptions};
use crate::proposal::Proposer;
use crate::{Founders, Founding, Local, Node, NodeConfig, PeerListener, StartError};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Long enough that nobody is replaced who is only slow.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(2);

static CLUSTERS: AtomicU8 = AtomicU8::new(0);

/// Decides how flushes of one disk end.
#[derive(Default)]
pub(super) struct Disk {
    state: Mutex<DiskState>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum DiskState {
    #[default]
    Works,
    Held,
    Broken,
}

impl Disk {
    fn faults(self: &Arc<Self>) -> Faults {
        let disk = Arc::clone(self);
        Faults::new(move |operation, _| match operation {
            DiskOperation::Sync => disk.flush(),
            _ => Ok(()),
        })
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        while *state == DiskState::Held {
            self.changed.wait(&mut state);
        }
        match *state {
            DiskState::Broken => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        }
    }

    fn set(&self, state: DiskState) {
        *self.state.lock() = state;
        self.changed.notify_all();
    }

    /// Nothing becomes durable on it until it is released.
    pub(super) fn hold(&self) {
        self.set(DiskState::Held);
    }

    pub(super) fn release(&self) {
        self.set(DiskState::Works);
    }

    pub(super) fn break_down(&self) {
        self.set(DiskState::Broken);
    }
}

pub(super) struct Cluster {
    directory: TempDir,
    number: u8,
    proposal_timeout: Duration,
    /// The newest cluster version that each member speaks.
    pub(super) speaks: [u32; 3],
    pub(super) disks: [Arc<Disk>; 3],
    nodes: Vec<Option<Node>>,
}

impl Cluster {
    pub(super) async fn start(proposal_timeout: Duration) -> Self {
        Self::start_speaking(proposal_timeout, [1; 3]).await
    }

    pub(super) async fn start_speaking(proposal_timeout: Duration, speaks: [u32; 3]) -> Self {
        let mut cluster = Self {
            directory: tempfile::tempdir().unwrap(),
            number: CLUSTERS.fetch_add(1, Ordering::Relaxed),
            proposal_timeout,
            speaks,
            disks: Default::default(),
            nodes: vec![None, None, None],
        };
        for member in 0..3 {
            cluster.start_member(member).await;
        }
        cluster.wait_settled().await;
        cluster
    }

    /// Waits until all have told the cluster of themselves: then the log grows by what is proposed, and else
    /// only when another one leads.
    async fn wait_settled(&self) {
        let are_known = async || {
            let members = self.local(self.leader().await).members(true).await.ok()?;
            let is_known = |listed: &crate::Listed| {
                let own = (0..3).find(|&member| self.id(member) == listed.member.id)?;
                let version = self.speaks[own];
                (listed.member.instance.is_some() && listed.member.version == version).then_some(())
            };
            let known = members.iter().map(is_known).collect::<Option<Vec<()>>>()?;
            (known.len() == 3).then_some(())
        };
        wait_for("members that are known to each other", are_known).await;
    }

    /// No other test process, and no other cluster of this one, has these addresses.
    fn address(&self, member: usize) -> SocketAddr {
        let [.., high, low] = std::process::id().to_be_bytes();
        let last = self.number * 4 + u8::try_from(member).unwrap() + 1;
        SocketAddr::new(Ipv4Addr::new(127, high, low, last).into(), 2380)
    }

    pub(super) async fn start_member(&mut self, member: usize) {
        let mut config = NodeConfig::new(self.directory.path().join(format!("data-{member}")));
        config.ballast_bytes = 1 << 20;
        config.disk_free_min_bytes = 1 << 20;
        let faults = self.disks[member].faults();
        config.log = LogOptions { segment_bytes: 256 << 10, faults, ..LogOptions::default() };
        config.store = StoreOptions { map_bytes: 1 << 30, ..StoreOptions::default() };
        config.heartbeat_interval = Duration::from_millis(100);
        config.election_timeout = ELECTION_TIMEOUT;
        config.proposal_timeout = self.proposal_timeout;
        config.speaks = self.speaks[member];
        let url = |member| vec![format!("http://{}", self.address(member))];
        let members = (0..3).map(url).collect();
        config.founding =
            Founding::Together(Founders { token: "ends".to_owned(), members, own: member });
        config.peers.advertised = url(member);
        config.peers.listeners = vec![PeerListener { address: self.address(member), tls: None }];
        let started = async || match Node::start(config.clone()).await {
            // Somebody still asks the node that was stopped.
            Err(StartError::Store(OpenError::AlreadyOpen { .. }) | StartError::InUse { .. }) => {
                None
            }
            started => Some(started.unwrap()),
        };
        let node = wait_for("a data directory that nobody has open", started).await;
        self.nodes[member] = Some(node);
    }

    /// Ends it as a crash does: it tells nobody.
    pub(super) fn drop_member(&mut self, member: usize) {
        drop(self.nodes[member].take());
    }

    pub(super) async fn stop_member(&mut self, member: usize) {
        let node = self.nodes[member].take().unwrap();
        node.shutdown(PATIENCE).await.unwrap();
    }

    pub(super) async fn stop(mut self) {
        let nodes = self.nodes.drain(..).flatten().map(|node| node.shutdown(PATIENCE));
        for stopped in futures_util::future::join_all(nodes).await {
            stopped.unwrap();
        }
    }

    pub(super) fn local(&self, member: usize) -> Arc<Local> {
        self.nodes[member].as_ref().unwrap().local()
    }

    pub(super) fn proposer(&self, member: usize) -> Arc<Proposer> {
        Arc::clone(&self.local(member).node.proposer)
    }

    pub(super) fn id(&self, member: usize) -> u64 {
        self.nodes[member].as_ref().unwrap().member_id()
    }

    /// A member neither calls these nor answers them any more.
    pub(super) fn cut_off(&self, member: usize, from: HashSet<u64>) {
        self.proposer(member).way.peers.met().cut_off(from);
    }

    pub(super) fn last_index(&self, member: usize) -> u64 {
        self.proposer(member).raft.status().last_index
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..3).filter(|&member| self.nodes[member].is_some())
    }

    pub(super) fn others(&self, than: usize) -> [usize; 2] {
        [(than + 1) % 3, (than + 2) % 3]
    }

    /// The member that leads, once all that run know it and take changes.
    pub(super) async fn leader(&self) -> usize {
        let members: Vec<usize> = self.running().collect();
        self.leader_of(&members).await
    }

    /// The same of some of them.
    pub(super) async fn leader_of(&self, members: &[usize]) -> usize {
        wait_for("a leader that all know", async || {
            let known = members.iter().map(|&one| self.proposer(one).raft.status().leader);
            let known: HashSet<Option<u64>> = known.collect();
            let leader =
                members.iter().copied().find(|&one| known.contains(&Some(self.id(one))))?;
            if known.len() > 1 {
                return None;
            }
            for &member in members {
                change(&self.local(member), "ready;").await.ok()?;
            }
            Some(leader)
        })
        .await
    }

    /// How often a word was applied, as all that run agree.
    pub(super) async fn count(&self, word: &str) -> usize {
        let mut counts = HashSet::new();
        for member in self.running() {
            let local = self.local(member);
            wait_for("a confirmed read", async || local.confirm().await.ok()).await;
            let read = vec![Read::key("log".to_owned())];
            let answer = local.read(Revision::NONE, read).await.unwrap();
            let [Answer::Range(range)] = &answer.answers[..] else { panic!("{answer:?}") };
            let log = range.kvs.first().map(|kv| kv.value.to_vec()).unwrap_or_default();
            counts.insert(String::from_utf8(log).unwrap().matches(word).count());
        }
        assert_eq!(counts.len(), 1, "{word}: {counts:?}");
        counts.into_iter().next().unwrap()
    }
}

impl Drop for Cluster {
    /// A disk that is held would hold up the end of its node.
    fn drop(&mut self) {
        self.disks.iter().for_each(|disk| disk.release());
    }
}

pub(super) async fn wait_for<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < deadline, "there was not: {what}");
        tokio::task::yield_now().await;
    }
}

pub(super) async fn change(local: &Local, word: &str) -> Result<TxnAnswer> {
    let append = Op::Append { key: "log".into(), value: Bytes::copy_from_slice(word.as_bytes()) };
    let txn = Txn { success: vec![append], ..Txn::default() };
    local.txn(txn, Origin::default()).await
}

/// What the caller was told agrees with how often the change was applied, which is once at most.
pub(super) fn check(word: &str, told: &Result<TxnAnswer>, count: usize) {
    match told {
        Ok(_) => assert_eq!(count, 1, "{word} was acknowledged"),
        Err(Error::OutcomeUnknown { .. }) => assert!(count <= 1, "{word}: applied {count} times"),
        Err(error) => assert_eq!(count, 0, "{word} was refused for sure: {error}"),
    }
}

/// Why the caller was told that nobody knows.
pub(super) fn unknown(word: &str, told: &Result<TxnAnswer>) -> String {
    match told {
        Err(Error::OutcomeUnknown { reason }) => reason.clone(),
        told => panic!("{word}: {told:?}"),
    }
}
