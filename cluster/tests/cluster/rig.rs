//! A cluster whose members can be stopped and started again, one by one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Answer, Error, Op, Origin, Read, Result, Revision, Txn, TxnAnswer};
use revfs_cluster::log::LogOptions;
use revfs_cluster::{
    Founders, Founding, Invitation, Local, Node, NodeConfig, PeerListener, StartError,
};
use revfs_store::{OpenError, StoreOptions};
use tempfile::TempDir;

/// As etcd's for peers; each member of each cluster has a loopback address of its own.
const PEER_PORT: u16 = 2380;

/// Waits for what takes elections.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static CLUSTERS: AtomicU16 = AtomicU16::new(0);

/// Clusters of up to eight addresses that share a port.
const CLUSTERS_OF_A_PORT: u16 = 31;

pub(crate) struct Cluster {
    directory: TempDir,
    addresses: Vec<SocketAddr>,
    token: String,
    tune: fn(&mut NodeConfig),
    /// So many of the addresses are founders'.
    founders: usize,
    invitations: Vec<Option<Invitation>>,
    nodes: Vec<Option<Node>>,
    spaces: Spaces,
}

/// The key spaces of the members that run, for tasks that go on while members come and go.
pub(crate) type Spaces = Arc<Mutex<Vec<Option<Arc<dyn KeySpace>>>>>;

/// No other test process, and no other cluster of this one, has these addresses.
fn addresses(count: u8) -> Vec<SocketAddr> {
    let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = std::process::id().to_be_bytes();
    let port = PEER_PORT + cluster / CLUSTERS_OF_A_PORT;
    let first = u8::try_from(cluster % CLUSTERS_OF_A_PORT * 8 + 1).expect("below 256");
    let address = |member| Ipv4Addr::new(127, high, low, first + member);
    (0..count).map(|member| SocketAddr::new(address(member).into(), port)).collect()
}

impl Cluster {
    /// Begins a cluster of so many members, at most seven.
    pub(crate) async fn start(count: u8) -> Self {
        Self::start_with(count, 0, |_| ()).await
    }

    /// The same, with addresses for more members.
    pub(crate) async fn start_with_room(founders: u8, more: u8) -> Self {
        Self::start_with(founders, more, |_| ()).await
    }

    /// The same with other settings.
    pub(crate) async fn start_with(founders: u8, more: u8, tune: fn(&mut NodeConfig)) -> Self {
        let mut cluster = Self::unstarted(founders, more, tune);
        for member in 0..usize::from(founders) {
            cluster.start_member(member).await;
        }
        cluster
    }

    /// The same before any of them is started.
    pub(crate) fn unstarted(founders: u8, more: u8, tune: fn(&mut NodeConfig)) -> Self {
        let count = founders + more;
        Self {
            directory: tempfile::tempdir().unwrap(),
            addresses: addresses(count),
            token: "test".to_owned(),
            tune,
            founders: founders.into(),
            invitations: vec![None; count.into()],
            nodes: (0..count).map(|_| None).collect(),
            spaces: Arc::new(Mutex::new(vec![None; count.into()])),
        }
    }

    pub(crate) fn config(&self, member: usize) -> NodeConfig {
        let mut config = NodeConfig::new(self.directory.path().join(format!("data-{member}")));
        config.ballast_bytes = 1 << 20;
        config.disk_free_min_bytes = 1 << 20;
        config.log = LogOptions { segment_bytes: 256 << 10, ..LogOptions::default() };
        config.store = StoreOptions { map_bytes: 1 << 30, ..StoreOptions::default() };
        config.heartbeat_interval = Duration::from_millis(50);
        config.election_timeout = Duration::from_millis(800);
        config.proposal_timeout = Duration::from_secs(5);
        let url = |address: &SocketAddr| vec![format!("http://{address}")];
        let founders = Founders {
            token: self.token.clone(),
            members: self.addresses[..self.founders].iter().map(url).collect(),
            own: member,
        };
        config.founding =
            self.invitations[member].map_or(Founding::Together(founders), Founding::Invited);
        config.peers.advertised = url(&self.addresses[member]);
        config.standby_after = Duration::from_secs(4);
        config.peers.listeners = vec![PeerListener { address: self.addresses[member], tls: None }];
        (self.tune)(&mut config);
        config
    }

    pub(crate) fn address(&self, member: usize) -> SocketAddr {
        self.addresses[member]
    }

    pub(crate) fn url(&self, member: usize) -> String {
        format!("http://{}", self.addresses[member])
    }

    /// The node will come up as somebody who was added.
    pub(crate) fn invite(&mut self, node: usize, member: u64) {
        let cluster = self.nodes.iter().flatten().next().unwrap().cluster_id();
        self.invitations[node] = Some(Invitation { cluster, member });
    }

    pub(crate) fn node(&self, member: usize) -> &Node {
        self.nodes[member].as_ref().unwrap()
    }

    pub(crate) fn set_token(&mut self, token: &str) {
        token.clone_into(&mut self.token);
    }

    pub(crate) async fn start_member(&mut self, member: usize) {
        self.start_member_with(member, |_| ()).await;
    }

    pub(crate) async fn start_member_with(
        &mut self,
        member: usize,
        tune: impl Fn(&mut NodeConfig),
    ) {
        let mut config = self.config(member);
        tune(&mut config);
        let started = async || match Node::start(config.clone()).await {
            // Somebody still asks the node that was stopped.
            Err(StartError::Store(OpenError::AlreadyOpen { .. })) => None,
            started => Some(started.unwrap()),
        };
        let node = wait_for("a data directory that nobody has open", started).await;
        self.spaces.lock().unwrap()[member] = Some(node.key_space());
        self.nodes[member] = Some(node);
    }

    /// Why a member does not start.
    pub(crate) async fn refused_start(
        &self,
        member: usize,
        tune: fn(&mut NodeConfig),
    ) -> StartError {
        let mut config = self.config(member);
        tune(&mut config);
        let refused = async || match Node::start(config.clone()).await {
            // Somebody still asks the node that was stopped.
            Err(StartError::Store(OpenError::AlreadyOpen { .. })) => None,
            Err(error) => Some(error),
            Ok(_) => panic!("member {member} started"),
        };
        wait_for("a data directory that nobody has open", refused).await
    }

    pub(crate) async fn stop_member(&mut self, member: usize) {
        self.spaces.lock().unwrap()[member] = None;
        let node = self.nodes[member].take().unwrap();
        node.shutdown(PATIENCE).await.unwrap();
    }

    /// Ends it as a crash does: it tells nobody.
    pub(crate) fn drop_member(&mut self, member: usize) {
        self.spaces.lock().unwrap()[member] = None;
        drop(self.nodes[member].take().unwrap());
    }

    /// For the services of this member.
    pub(crate) fn local(&self, member: usize) -> Arc<Local> {
        self.nodes[member].as_ref().unwrap().local()
    }

    /// Its data directory is gone; it is stopped.
    pub(crate) fn wipe(&self, member: usize) {
        assert!(self.nodes[member].is_none());
        std::fs::remove_dir_all(self.config(member).data_dir).unwrap();
    }

    pub(crate) async fn stop(mut self) {
        for member in 0..self.nodes.len() {
            if self.nodes[member].is_some() {
                self.stop_member(member).await;
            }
        }
    }

    pub(crate) fn space(&self, member: usize) -> Arc<dyn KeySpace> {
        self.nodes[member].as_ref().unwrap().key_space()
    }

    pub(crate) fn spaces(&self) -> Spaces {
        Arc::clone(&self.spaces)
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|&member| self.nodes[member].is_some())
    }

    /// How often those that run have copied their store for another one.
    pub(crate) fn copies_made(&self) -> u64 {
        self.nodes.iter().flatten().map(Node::copies_made).sum()
    }

    pub(crate) async fn revision(&self, member: usize) -> u64 {
        self.space(member).status().await.unwrap().revision
    }

    /// The first and the last segment of the log of each that runs.
    pub(crate) fn segments(&self) -> Vec<(String, String)> {
        let of_member = |member: usize| {
            let files = std::fs::read_dir(self.config(member).data_dir.join("log")).unwrap();
            let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<_> = names.filter(|name| name.ends_with(".log")).collect();
            names.sort();
            (names.first().unwrap().clone(), names.last().unwrap().clone())
        };
        self.running().map(of_member).collect()
    }

    /// The member that leads, once all that run know it.
    pub(crate) async fn leader(&self) -> usize {
        let found = async || {
            let mut leaders = Vec::new();
            for member in self.running() {
                leaders.push(self.space(member).status().await.unwrap().leader_id);
            }
            let one = leaders[0];
            let is_known = one != 0 && leaders.iter().all(|&leader| leader == one);
            let id = |&member: &usize| self.nodes[member].as_ref().unwrap().member_id() == one;
            self.running().find(id).filter(|_| is_known)
        };
        wait_for("a leader that all know", found).await
    }

    /// A running member that does not lead.
    pub(crate) async fn follower(&self) -> usize {
        let leader = self.leader().await;
        self.running().find(|&member| member != leader).unwrap()
    }

    /// Waits until all that run show the same history.
    pub(crate) async fn agree(&self) {
        let members: Vec<usize> = self.running().collect();
        for &member in &members {
            let space = self.space(member);
            wait_for("a confirmed read", async || space.confirm().await.ok()).await;
        }
        let same = async || {
            let mut hashes = Vec::new();
            for &member in &members {
                let hash = self.space(member).hash_kv(Revision::NONE).await.unwrap();
                hashes.push((hash.hash, hash.revision));
            }
            hashes.iter().all(|hash| *hash == hashes[0]).then_some(())
        };
        wait_for("the same history on all members", same).await;
    }
}

/// For tests of something else than elections: on a busy machine nobody is replaced who is only slow.
pub(crate) fn patient(config: &mut NodeConfig) {
    config.election_timeout = Duration::from_secs(2);
}

/// Polls until there is something.
pub(crate) async fn wait_for<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < deadline, "there was not: {what}");
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn change(space: &Arc<dyn KeySpace>, op: Op) -> Result<TxnAnswer> {
    let txn = Txn { success: vec![op], ..Txn::default() };
    space.txn(txn, Origin { claimed: "test@host".to_owned(), note: Bytes::new() }).await
}

pub(crate) async fn put(space: &Arc<dyn KeySpace>, key: &str, value: &str) -> Result<TxnAnswer> {
    change(space, Op::put(key.to_owned(), value.to_owned())).await
}

/// What a member has, up to date or not.
pub(crate) async fn local_get(space: &Arc<dyn KeySpace>, key: &str) -> Option<Bytes> {
    let answer = space.read(Revision::NONE, vec![Read::key(key.to_owned())]).await.unwrap();
    let [Answer::Range(range)] = &answer.answers[..] else { panic!("{answer:?}") };
    range.kvs.first().map(|kv| kv.value.clone())
}

/// What was acknowledged anywhere.
pub(crate) async fn get(space: &Arc<dyn KeySpace>, key: &str) -> Result<Option<Bytes>, Error> {
    space.confirm().await?;
    Ok(local_get(space, key).await)
}
