//! A node: one data directory, held by this process, and everything that runs on it.
//!
//! ```text
//! hold the directory ─► create what it lacks ─► open store, then log ─► replication ─► lead ─► serve
//! ```
//!
//! The log must reach what the store has committed, or the node does not start. It serves once it
//! leads and has applied all that the log held. [`Node::shutdown`] takes the way back: no new change,
//! those in flight end, replication stops, the store commits, the log gets its mark.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use revfs_api::KeySpace;
use revfs_store::Store;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::auth::{AuthTurns, Gate};
use crate::ballast::Ballast;
use crate::compaction_clock::{self, Retention};
use crate::config::{NodeConfig, StartError};
use crate::data_dir::{DataDir, Identity, Layout};
use crate::housekeeping::Housekeeping;
use crate::lease_clock::{LeaseBook, LeaseClock};
use crate::local::{Local, Parts};
use crate::log::{Log, OnNoSpace};
use crate::proposal::Proposer;
use crate::raft::{Pace, Raft, log_id_of};
use crate::upload::Uploads;

/// See the module. Dropped without [`Node::shutdown`], it stops as after a crash: nothing that was
/// acknowledged is lost.
pub struct Node {
    pub(crate) key_space: Arc<Local>,
    proposer: Arc<Proposer>,
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    data_dir: Arc<DataDir>,
}

/// Why a shutdown was not orderly. What was acknowledged is safe: the next start replays it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the node stopped, but not in order: {reason}")]
pub struct ShutdownError {
    pub reason: String,
}

/// The parts that are opened before replication starts.
struct Opened {
    data_dir: Arc<DataDir>,
    identity: Identity,
    store: Arc<Store>,
    log: Arc<Log>,
    ballast: Arc<Ballast>,
}

impl Node {
    /// Opens the data directory, or creates it as a cluster of one, and waits until it serves.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing that looks damaged or incomplete is ever replaced.
    pub async fn start(mut config: NodeConfig) -> Result<Self, StartError> {
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&opening)).await;
        let opened =
            opened.map_err(|error| StartError::Interrupted { reason: error.to_string() })??;
        let Opened { data_dir, identity, store, log, ballast } = opened;
        config.data_dir.clone_from(&data_dir.path);
        let book = Arc::new(LeaseBook::default());
        let (cluster, member) = (identity.cluster, identity.member);
        let auth_turns = Arc::new(AuthTurns::default());
        let told = (Arc::clone(&book), Arc::clone(&auth_turns));
        let pace = Pace {
            heartbeat_interval: config.heartbeat_interval,
            election_timeout: config.election_timeout,
            snapshot_entries: config.snapshot_entries,
        };
        let (raft_log, raft_store) = (Arc::clone(&log), Arc::clone(&store));
        let raft = Raft::start((cluster, member), raft_log, raft_store, told, pace).await?;
        raft.lead(config.start_timeout).await?;

        let proposer = Arc::new(Proposer::new(raft, log, Arc::clone(&store), &config));
        let (stop, stopped) = watch::channel(false);
        let mut tasks = start_tasks(&config, member, &proposer, ballast, &stopped);
        let leases =
            Arc::new(LeaseClock::new(book, Arc::clone(&proposer), config.election_timeout));
        tasks.push(tokio::spawn(Arc::clone(&leases).run(stopped.clone())));
        let endpoint = config.endpoint;
        let parts = Parts {
            store,
            proposer: Arc::clone(&proposer),
            uploads: Uploads::new(Arc::clone(&leases)),
            leases,
            reservations: Arc::default(),
            identity,
            endpoint,
            stop: stopped,
            copying: Arc::new(Semaphore::new(1)),
            auth_turns,
            gate: Gate::new(&config.auth),
        };
        let key_space = Arc::new(Local::new(parts));
        Ok(Self { key_space, proposer, tasks, stop, data_dir })
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
        self.stop.send_replace(true);
        let late = |_| ShutdownError { reason: "the deadline passed".to_owned() };
        tokio::time::timeout_at(deadline.into(), self.stop_and_close()).await.map_err(late)??;
        if drained {
            Ok(())
        } else {
            Err(ShutdownError { reason: "changes in flight had no answer in time".to_owned() })
        }
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
fn open(config: &NodeConfig) -> Result<Opened, StartError> {
    let data_dir = Arc::new(DataDir::hold(&config.data_dir)?);
    let layout = match data_dir.layout()? {
        Some(layout) => layout,
        None => create(&data_dir, config)?,
    };
    let ballast = Arc::new(Ballast::new(&data_dir.path, config.ballast_bytes));
    ballast.take(config.disk_free_min_bytes);
    let store = Store::open(&layout.store, config.store.clone())?;
    let committed = log_id_of(&store.committed())?;
    let (reserve, held) = (Arc::clone(&ballast), Arc::clone(&data_dir));
    let mut log_options = config.log.clone();
    log_options.on_no_space = OnNoSpace::new(move || {
        // The directory is held as long as the log lives, even if the node was dropped without a
        // shutdown: its writer may still be at work.
        let _: &DataDir = &held;
        reserve.release();
    });
    let log = Log::open(&layout.log, log_options, committed)?;
    let (store, log) = (Arc::new(store), Arc::new(log));
    Ok(Opened { data_dir, identity: layout.identity, store, log, ballast })
}

fn create(data_dir: &DataDir, config: &NodeConfig) -> Result<Layout, StartError> {
    let layout = data_dir.begin_creation()?;
    drop(Store::create(&layout.store, config.store.clone())?);
    Log::create(&layout.log, &config.log)?;
    data_dir.finish_creation(layout.identity)?;
    Ok(layout)
}
