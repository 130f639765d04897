//! One member of a simulation: the real log, store, state machine and replication over a directory of its own,
//! and the disk below them, which is as late as the dice say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;
use revfs_store::{StopPoint, Store, StoreOptions};
use tokio::sync::{Notify, oneshot};

use super::super::core::{Inner, Pace, Raft, config};
use super::super::log_store::LogStore;
use super::super::own_thread::OwnThread;
use super::super::state_machine::StateMachine;
use super::super::type_config::TypeConfig;
use super::Planted;
use super::checks::Checks;
use super::executor::{self, Party};
use super::log::WatchedLog;
use super::network::{Connections, Network, below, below_time};
use crate::config::NodeConfig;
use crate::founding::{Founders, Founding};
use crate::log::{Log, LogOptions};
use crate::node::{Opened, open, told};
use crate::snapshot::Snapshots;

/// No flush is quicker.
const FLUSH_MIN: Duration = Duration::from_micros(100);

/// Between two commits of the store.
const COMMITS_EVERY: Duration = Duration::from_millis(400);

/// What the members of one simulation share.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) network: Arc<Network>,
    pub(super) checks: Arc<Checks>,
    pub(super) pace: Pace,
    pub(super) planted: Option<Planted>,
    /// Who begins the cluster, with their addresses.
    pub(super) founders: BTreeMap<u64, String>,
}

/// What runs of a member between its start and its end.
struct Running {
    raft: Raft,
    log: Arc<Log>,
    store: Arc<Store>,
    snapshots: Arc<Snapshots>,
    party: Party,
}

/// See the module.
pub(super) struct Member {
    pub(super) id: u64,
    setting: Setting,
    config: NodeConfig,
    starts: u64,
    running: Option<Running>,
    /// The disk takes up to so long for a flush.
    flush_max: Arc<Mutex<Duration>>,
}

/// As many members as there are places; each with the same idea of all.
pub(super) fn founders(own: usize, count: usize) -> Founders {
    let members = (0..count).map(|place| vec![format!("http://m{place}:2380")]).collect();
    Founders { token: "simulated".to_owned(), members, own }
}

fn node_config(path: PathBuf, founders: Founders) -> NodeConfig {
    let never = Duration::from_secs(3_600);
    NodeConfig {
        founding: Founding::Together(founders),
        ballast_bytes: 0,
        disk_free_min_bytes: 0,
        copy_bytes_per_second: u64::MAX,
        log: LogOptions {
            segment_bytes: 64 << 10,
            spares_max: 1,
            is_by_hand: true,
            ..LogOptions::default()
        },
        // It commits when it is told to.
        store: StoreOptions {
            map_bytes: 256 << 20,
            max_readers: 16,
            commit_interval: never,
            commit_changes: usize::MAX,
            commit_bytes: usize::MAX,
            ..StoreOptions::default()
        },
        ..NodeConfig::new(path)
    }
}

impl Member {
    pub(super) fn new(path: PathBuf, founders: Founders, setting: Setting) -> Self {
        let config = node_config(path, founders);
        let id = config.founding.identity().expect("it is one of them").member;
        let flush_max = Arc::new(Mutex::new(Duration::from_millis(1 << below(8))));
        Self { id, setting, config, starts: 0, running: None, flush_max }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn set_flush_max(&self, time: Duration) {
        *self.flush_max.lock() = time;
    }

    pub(super) fn store(&self) -> Option<&Arc<Store>> {
        self.running.as_ref().map(|running| &running.store)
    }

    pub(super) fn raft(&self) -> Option<&Raft> {
        self.running.as_ref().map(|running| &running.raft)
    }

    pub(super) fn copies_made(&self) -> u64 {
        self.running.as_ref().map_or(0, |running| running.snapshots.copies.made())
    }

    /// Starts it on what its disk holds.
    pub(super) async fn start(&mut self) {
        self.starts += 1;
        let party = self.id.wrapping_mul(1_000).wrapping_add(self.starts);
        let Setting { network, checks, pace, planted, founders } = self.setting.clone();
        checks.started(self.id);
        let Opened { data_dir, identity, store, log, .. } =
            open(&self.config).expect("what a crash leaves can be opened");
        let told = told(&store, self.id, self.config.speaks).expect("the store can be read");
        let parts = (data_dir, Arc::clone(&store), Arc::clone(&log));
        let snapshots = Arc::new(Snapshots::new(parts, &self.config));
        let mut config = config(identity.cluster, pace);
        if planted == Some(Planted::LeaderRestored) {
            config.enable_leader_restore = Some(true);
        }
        let config = Arc::new(config.validate().expect("it is the real one"));
        let log_store = LogStore::new(Arc::clone(&log), self.id);
        let queued = Arc::new(Notify::new());
        let watched = WatchedLog {
            store: log_store.clone(),
            log: Arc::clone(&log),
            member: self.id,
            checks,
            planted,
            queued: Arc::clone(&queued),
        };
        let machine = StateMachine::new(Arc::clone(&snapshots), told).expect("it is the real one");
        let connections = Connections {
            network: Arc::clone(&network),
            own: self.id,
            snapshots: Arc::clone(&snapshots),
            answer_timeout: pace.election_timeout,
        };
        let (done, started) = oneshot::channel();
        let (id, kept) = (self.id, Arc::clone(&snapshots));
        let executor = executor::here();
        executor.spawn_in(party, async move {
            let inner = Inner::new(id, config, connections, watched, machine).await;
            let inner = inner.expect("replication starts on what a crash leaves");
            let learned = inner.metrics().borrow_watched().membership_config.membership().clone();
            log_store.learn(&learned);
            let raft = Raft::over(inner, kept, id, OwnThread::of_the_caller());
            if founders.contains_key(&id) {
                raft.initialise(founders).await.expect("replication goes on");
            }
            drop(done.send(raft));
        });
        let raft = started.await.expect("nobody kills it meanwhile");
        executor.spawn_in(party, flush(Arc::clone(&log), queued, Arc::clone(&self.flush_max)));
        executor.spawn_in(party, commit(Arc::clone(&store)));
        network.listen(self.id, raft.clone(), party);
        self.running = Some(Running { raft, log, store, snapshots, party });
    }

    /// Ends it as a crash does. Of what was not flushed, the disk has all or nothing.
    pub(super) fn kill(&mut self) {
        let Some(running) = self.running.take() else { return };
        let Running { raft, log, store, snapshots, party } = running;
        self.setting.network.hang_up(self.id);
        executor::here().kill(|whose| whose == party);
        if below(4) == 0 {
            log.write_queued();
        } else {
            log.lose_queued();
        }
        // It ends with a commit unless it is stopped before.
        store.stop_at(StopPoint::BeforeCommit);
        drop(raft);
        drop(snapshots);
        let store = Arc::into_inner(store).expect("nobody uses the store of who is dead");
        drop(store);
        drop(Arc::into_inner(log).expect("nobody uses the log of who is dead"));
    }
}

/// Does something on a member; `None` if it dies meanwhile, or has not done it in time.
pub(super) async fn ask<T, F>(
    (raft, party): (Raft, Party),
    within: Duration,
    what: impl FnOnce(Raft) -> F,
) -> Option<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (done, end) = oneshot::channel();
    let doing = what(raft);
    executor::here().spawn_in(party, async move { drop(done.send(doing.await)) });
    TypeConfig::timeout(within, end).await.ok()?.ok()
}

/// The disk: what is queued is written after a while.
async fn flush(log: Arc<Log>, queued: Arc<Notify>, max: Arc<Mutex<Duration>>) {
    loop {
        queued.notified().await;
        let max = *max.lock();
        TypeConfig::sleep(below_time(max) + FLUSH_MIN).await;
        log.write_queued();
    }
}

/// The committer's clock.
async fn commit(store: Arc<Store>) {
    loop {
        TypeConfig::sleep(below_time(COMMITS_EVERY)).await;
        store.commit().expect("the disk has room");
    }
}
