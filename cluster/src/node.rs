//! A node: one data directory, held by this process, and everything that runs on it.
//!
//! ```text
//! hold the directory ─► create what it lacks ─► open store, then log ─► replication ─► take part ─► serve
//! ```
//!
//! The log must reach what the store has committed, or the node does not start. A node that is alone
//! serves once it leads and has applied all that the log held; one of several serves at once, and says
//! that there is no leader until there is one. [`Node::shutdown`] takes the way back: no new change,
//! those in flight end, another member takes the lead, replication stops, the store commits, the log
//! gets its mark.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use revfs_api::KeySpace;
use revfs_api::client::Settings;
use revfs_store::{LogBarrier, Store};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::auth::Gate;
use crate::ballast::Ballast;
use crate::compaction_clock::{self, Retention};
use crate::config::{NodeConfig, StartError};
use crate::data_dir::{DataDir, Identity, Layout};
use crate::divergence::{Comparison, Integrity, Points};
use crate::forced::go_on_alone;
use crate::founding::{Founding, Invitation};
use crate::housekeeping::Housekeeping;
use crate::leader_watch::LeaderWatch;
use crate::lease_clock::LeaseClock;
use crate::local::{Local, Parts};
use crate::log::{Log, OnNoSpace};
use crate::members::Reconciler;
use crate::peer::{self, Complaints, Forwarder, Met, PeerServer, PeerService, Peers};
use crate::proposal::Proposer;
use crate::raft::{Pace, Raft, Told, VersionError, check_version, log_id_of};
use crate::read_barrier::ReadBarrier;
use crate::snapshot::{Snapshots, open_log};
use crate::upload::Uploads;

/// See the module. Dropped without [`Node::shutdown`], it stops as after a crash: nothing that was
/// acknowledged is lost.
pub struct Node {
    pub(crate) key_space: Arc<Local>,
    proposer: Arc<Proposer>,
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    data_dir: Arc<DataDir>,
    peer_addresses: Vec<SocketAddr>,
    election_timeout: Duration,
}

/// Why a shutdown was not orderly. What was acknowledged is safe: the next start replays it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the node stopped, but not in order: {reason}")]
pub struct ShutdownError {
    pub reason: String,
}

/// A member was removed from its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("member {member:x} has been permanently removed from the cluster {cluster:016x}")]
pub struct Removal {
    pub cluster: u64,
    pub member: u64,
}

/// The parts that are opened before replication starts.
pub(crate) struct Opened {
    pub(crate) data_dir: Arc<DataDir>,
    pub(crate) identity: Identity,
    is_invited: bool,
    pub(crate) store: Arc<Store>,
    pub(crate) log: Arc<Log>,
    ballast: Arc<Ballast>,
}

impl Node {
    /// Opens the data directory, or creates it as a cluster of one, and waits until it serves. With
    /// `force_new_cluster` a member whose others are lost goes on alone, as a cluster with another id.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing that looks damaged or incomplete is ever replaced.
    pub async fn start(mut config: NodeConfig) -> Result<Self, StartError> {
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&opening)).await;
        let opened =
            opened.map_err(|error| StartError::Interrupted { reason: error.to_string() })??;
        let Identity { cluster, member, .. } = opened.identity;
        if opened.is_invited {
            config.founding = Founding::Invited(Invitation { cluster, member });
        }
        config.data_dir.clone_from(&opened.data_dir.path);
        Self::begin(config, opened).await
    }

    async fn begin(config: NodeConfig, opened: Opened) -> Result<Self, StartError> {
        let Opened { data_dir, identity, store, log, ballast, .. } = opened;
        let member = identity.member;
        let told = told(&store, member, config.speaks)?;
        let met = Arc::new(Met::default());
        let settings = peer_settings(&config);
        let peers = Arc::new(Peers::new(identity, settings, Arc::clone(&met)));
        let peer_server = PeerServer::bind(&config.peers.listeners).await?;
        let peer_addresses = peer_server.addresses.clone();
        let parts = (Arc::clone(&data_dir), Arc::clone(&store), Arc::clone(&log));
        let snapshots = Arc::new(Snapshots::new(parts, &config));
        let raft = Raft::start(Arc::clone(&peers), snapshots, told.clone(), pace(&config)).await?;

        let Told { leases: book, auth_turns, waiting, meters, points, integrity, .. } = told;
        let forwarder = Arc::new(Forwarder::new(waiting, 2 * config.election_timeout));
        let way = (Arc::clone(&peers), forwarder);
        let proposer = Proposer::new(raft.clone(), way, log, Arc::clone(&store), meters, &config);
        let proposer = Arc::new(proposer);
        let (stop, stopped) = watch::channel(false);
        let leases =
            Arc::new(LeaseClock::new(book, Arc::clone(&proposer), config.election_timeout));
        let own = (identity, Arc::clone(&data_dir));
        let way = (Arc::clone(&proposer), Arc::clone(&peers));
        let members = Arc::new(Reconciler::new(own, way, &config));
        let service = PeerService {
            members: Arc::clone(&members),
            points: Arc::clone(&points),
            own: identity,
            met,
            proposer: Arc::clone(&proposer),
            leases: Arc::clone(&leases),
            complaints: Complaints::default(),
        };
        let serving = tokio::spawn(peer::serve(peer_server, service, &stopped));
        let advertised = &config.peers.advertised;
        config.founding.begin(&raft, &peers, advertised, config.start_timeout).await?;
        let mut tasks = start_tasks(&config, member, &proposer, ballast, &stopped);
        tasks.push(serving);
        tasks.push(tokio::spawn(Arc::clone(&leases).run(stopped.clone())));
        let leader = LeaderWatch::new(Arc::clone(&proposer), config.election_timeout).await;
        let presence = leader.subscribe();
        tasks.push(tokio::spawn(leader.run(stopped.clone())));
        let (read_barrier, confirming) = ReadBarrier::new(Arc::clone(&proposer), stopped.clone());
        tasks.push(tokio::spawn(confirming));
        tasks.push(tokio::spawn(Arc::clone(&members).run(stopped.clone())));
        let (way, held) = ((Arc::clone(&proposer), peers), (points, Arc::clone(&integrity)));
        let comparison = Comparison::begin(&config, member, way, held).await?;
        tasks.push(tokio::spawn(comparison.run(stopped.clone())));
        let (election_timeout, endpoint) = (config.election_timeout, config.endpoint);
        let parts = Parts {
            store,
            proposer: Arc::clone(&proposer),
            uploads: Uploads::new(Arc::clone(&leases)),
            leases,
            read_barrier,
            members,
            integrity,
            reservations: Arc::default(),
            mounted: Mutex::default(),
            identity,
            endpoint,
            stop: stopped,
            copying: Arc::new(Semaphore::new(1)),
            auth_turns,
            gate: Gate::new(&config.auth),
            presence,
        };
        let key_space = Arc::new(Local::new(parts));
        Ok(Self { key_space, proposer, tasks, stop, data_dir, peer_addresses, election_timeout })
    }

    /// Where other members find this one: the bound addresses, in the order asked for.
    #[must_use]
    pub fn peer_addresses(&self) -> &[SocketAddr] {
        &self.peer_addresses
    }

    /// The key space of this node, on its own behalf: for a mount.
    #[must_use]
    pub fn key_space(&self) -> Arc<dyn KeySpace> {
        self.local()
    }

    /// The same for the services, which let others ask.
    #[must_use]
    pub fn local(&self) -> Arc<Local> {
        Arc::clone(&self.key_space)
    }

    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir.path
    }

    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.key_space.node.identity.cluster
    }

    #[must_use]
    pub fn member_id(&self) -> u64 {
        self.key_space.node.identity.member
    }

    /// Waits until the cluster has gone on without this member, for ever: the node is to be shut down,
    /// and its data directory is not started again.
    pub async fn removed(&self) -> Removal {
        let mut has_left = self.key_space.node.members.has_left();
        if has_left.wait_for(|has_left| *has_left).await.is_err() {
            // The node has ended without.
            std::future::pending::<()>().await;
        }
        Removal { cluster: self.cluster_id(), member: self.member_id() }
    }

    /// How often the store was copied for another member since the start.
    #[must_use]
    pub fn copies_made(&self) -> u64 {
        self.proposer.raft.copies_made()
    }

    /// Why the node takes nothing any more until it is started again, if so.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<str>> {
        self.proposer.failure()
    }

    /// Stops within `deadline`: see the module.
    ///
    /// # Errors
    /// If it did not stop in order or in time; the next start recovers.
    pub async fn shutdown(self, deadline: Duration) -> Result<(), ShutdownError> {
        let deadline = Instant::now() + deadline;
        let drained = self.proposer.drain(deadline).await;
        self.proposer.raft.hand_over(2 * self.election_timeout).await;
        self.stop.send_replace(true);
        let late = |_| ShutdownError { reason: "the deadline passed".to_owned() };
        tokio::time::timeout_at(deadline.into(), self.stop_and_close()).await.map_err(late)??;
        if !drained {
            tracing::warn!(
                "changes were in flight that no quorum has decided: their outcome is unknown"
            );
        }
        Ok(())
    }

    async fn stop_and_close(self) -> Result<(), ShutdownError> {
        for task in self.tasks {
            task.await.map_err(|error| ShutdownError { reason: error.to_string() })?;
        }
        self.proposer.raft.shutdown().await;
        let store = Arc::clone(&self.proposer.store);
        let log = Arc::clone(&self.proposer.log);
        let close = move || {
            let closed = store.close().map_err(|error| error.to_string());
            closed.and(log.close().map_err(|error| error.to_string()))
        };
        let closed = tokio::task::spawn_blocking(close).await.map_err(|error| error.to_string());
        self.data_dir.release();
        closed.and_then(|closed| closed).map_err(|reason| ShutdownError { reason })
    }
}

/// Connections to other members: one that is silent for an election is made anew.
fn peer_settings(config: &NodeConfig) -> Settings {
    Settings {
        connect_timeout: config.election_timeout,
        keep_alive_interval: config.election_timeout,
        keep_alive_timeout: config.election_timeout,
        tls: config.peers.tls.clone(),
        ..Settings::default()
    }
}

/// Who is told of what apply does.
pub(crate) fn told(store: &Arc<Store>, member: u64, speaks: u32) -> Result<Told, VersionError> {
    let integrity = Arc::new(Integrity::new(member));
    integrity.look(store)?;
    Ok(Told {
        leases: Arc::default(),
        auth_turns: Arc::default(),
        waiting: Arc::default(),
        meters: Arc::default(),
        points: Points::new(Arc::clone(store)),
        integrity,
        speaks,
    })
}

fn pace(config: &NodeConfig) -> Pace {
    Pace {
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        snapshot_entries: config.snapshot_entries,
        entries_kept: config.snapshot_catchup_entries,
    }
}

fn start_tasks(
    config: &NodeConfig,
    member: u64,
    proposer: &Arc<Proposer>,
    ballast: Arc<Ballast>,
    stopped: &watch::Receiver<bool>,
) -> Vec<JoinHandle<()>> {
    let housekeeping = Housekeeping {
        proposer: Arc::clone(proposer),
        ballast,
        log_bytes_max: config.log_bytes_max,
        member,
        quota_bytes: config.quota_bytes,
    };
    let mut tasks = vec![tokio::spawn(housekeeping.run(stopped.clone()))];
    for retention in Retention::all_of(config) {
        let clock = compaction_clock::run(retention, Arc::clone(proposer), stopped.clone());
        tasks.push(tokio::spawn(clock));
    }
    tasks
}

/// Holds and opens what is on disk; blocks.
pub(crate) fn open(config: &NodeConfig) -> Result<Opened, StartError> {
    let data_dir = Arc::new(DataDir::hold(&config.data_dir)?);
    let found = data_dir.layout()?;
    let is_new = found.is_none();
    let layout = match found {
        Some(layout) => {
            data_dir.check_not_removed(&layout.identity)?;
            layout
        }
        None => create(&data_dir, config)?,
    };
    let ballast = Arc::new(Ballast::new(&data_dir.path, config.ballast_bytes));
    data_dir.remove_leftovers(&layout)?;
    ballast.take(config.disk_free_min_bytes);
    let store = Store::open(&layout.store, config.store.clone())?;
    check_version(&store, config.speaks)?;
    let committed = log_id_of(&store.committed())?;
    let (reserve, held) = (Arc::clone(&ballast), Arc::clone(&data_dir));
    let mut log_options = config.log.clone();
    log_options.on_no_space = OnNoSpace::new(move || {
        // The directory is held as long as the log lives, even if the node was dropped without a
        // shutdown: its writer may still be at work.
        let _: &DataDir = &held;
        reserve.release();
    });
    let log = open_log(&data_dir, &layout, log_options, committed)?;
    let (store, log) = (Arc::new(store), Arc::new(log));
    store.set_log_barrier(Arc::clone(&log) as Arc<dyn LogBarrier>);
    let Layout { mut identity, is_invited, .. } = layout;
    if config.force_new_cluster && !is_new {
        identity = go_on_alone(&data_dir, identity, &store, &log)?;
    }
    Ok(Opened { data_dir, identity, is_invited, store, log, ballast })
}

fn create(data_dir: &DataDir, config: &NodeConfig) -> Result<Layout, StartError> {
    let identity = config.founding.identity();
    let identity = identity.map_err(|error| StartError::io("identify", &data_dir.path, error))?;
    let layout = data_dir.begin_creation(identity)?;
    drop(Store::create(&layout.store, config.store.clone())?);
    Log::create(&layout.log, &config.log)?;
    let is_invited = matches!(config.founding, Founding::Invited(_));
    if is_invited {
        data_dir.mark_invited()?;
    }
    data_dir.finish_creation(layout.identity)?;
    Ok(Layout { is_invited, ..layout })
}
