//! The world of one simulation: its members, the network between them, and what clients were told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;
use revfs_store::types::Revision;

use super::super::core::Pace;
use super::super::membership::Change;
use super::super::type_config::TypeConfig;
use super::Planted;
use super::checks::Checks;
use super::clients::{Ledger, WORDS};
use super::executor;
use super::history::History;
use super::member::{Member, Setting, ask, founders};
use super::network::{Network, Weather, below};
use super::trace::Trace;

/// Within so long of the end of all harm the members agree and take changes.
const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// Between two looks at whether they do.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct World {
    pub(super) network: Arc<Network>,
    pub(super) checks: Arc<Checks>,
    pub(super) trace: Arc<Trace>,
    pub(super) members: Vec<tokio::sync::Mutex<Member>>,
    pub(super) ids: Vec<u64>,
    pub(super) history: History,
    pub(super) ledger: Mutex<Ledger>,
}

impl World {
    /// A world in which nothing has happened; its members keep their data below `directory`.
    pub(super) fn new(directory: &Path, trace: Arc<Trace>, planted: Option<Planted>) -> Self {
        let count = usize::try_from(3 + below(3)).expect("a few");
        let voters = if below(2) == 0 { 3 } else { count };
        let delay_max = Duration::from_micros(500 << below(7));
        let weather = Weather { delay_max, lost: 0 };
        let numbers: Vec<u64> = (0..count)
            .map(|own| founders(own, count))
            .map(|founders| {
                crate::founding::Founding::Together(founders).identity().expect("of them").member
            })
            .collect();
        let names: BTreeMap<u64, usize> =
            numbers.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        let network = Arc::new(Network::new(weather, Arc::clone(&trace)));
        let checks = Arc::new(Checks::new(Arc::clone(&trace), names));
        let pace = Pace {
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            snapshot_entries: 10 + below(60),
            entries_kept: below(20),
        };
        trace.line(&format!("{count} members, {voters} of them found the cluster; {pace:?}"));
        let begin = numbers[..voters].iter().enumerate();
        let setting = Setting {
            network: Arc::clone(&network),
            checks: Arc::clone(&checks),
            pace,
            planted,
            founders: begin.map(|(place, id)| (*id, format!("http://m{place}:2380"))).collect(),
        };
        let member = |place: usize| {
            let path = directory.join(format!("m{place}"));
            let member = Member::new(path, founders(place, count), setting.clone());
            tokio::sync::Mutex::new(member)
        };
        let members = (0..count).map(member).collect();
        let (history, ledger) = Default::default();
        Self { network, checks, trace, members, ids: numbers, history, ledger }
    }

    pub(super) fn say(&self, what: &str) {
        self.trace.line(what);
    }

    pub(super) async fn start(&self, place: usize) {
        let mut member = self.members[place].lock().await;
        if !member.is_running() {
            self.say(&format!("m{place} starts"));
            member.start().await;
        }
    }

    pub(super) async fn kill(&self, place: usize) {
        let mut member = self.members[place].lock().await;
        if member.is_running() {
            self.say(&format!("m{place} is killed"));
            member.kill();
        }
    }

    /// Who leads, as far as some member knows that leads itself.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |id: &u64| {
            self.network.running(*id).is_some_and(|(raft, _)| raft.status().leader == Some(*id))
        };
        // Of several the one in the newest term does.
        let term = |place: &usize| {
            self.network.running(self.ids[*place]).map(|(raft, _)| raft.status().term)
        };
        (0..self.ids.len()).filter(|place| leads(&self.ids[*place])).max_by_key(term)
    }

    /// All harm has ended: everyone runs, and after a while all that belong to the cluster hold the same.
    pub(super) async fn heal(&self) {
        self.say("all harm ends");
        self.network.heal();
        let delay_max = Duration::from_millis(2);
        self.network.set_weather(Weather { delay_max, lost: 0 });
        for place in 0..self.members.len() {
            self.members[place].lock().await.set_flush_max(Duration::from_millis(5));
            self.start(place).await;
        }
        let until = executor::here().now() + HEALED_WITHIN;
        while !self.agree().await {
            if self.checks.violation().is_some() {
                return;
            }
            if executor::here().now() > until {
                let standing = self.standing().await;
                return self.checks.violated(format!("no agreement in time: {standing}"));
            }
            self.settle().await;
            TypeConfig::sleep(LOOK_EVERY).await;
        }
        self.say("all agree");
    }

    /// Ends a change of the members whose leader was lost half way, as the reconciler does.
    async fn settle(&self) {
        let Some(leader) = self.leader() else { return };
        let Some(running) = self.network.running(self.ids[leader]) else { return };
        let seen = running.0.replication();
        if seen.is_joint {
            let within = Duration::from_secs(1);
            ask(running, within, |raft| async move { raft.change(&seen, Change::Settle).await })
                .await;
        }
    }

    async fn standing(&self) -> String {
        let mut text = String::new();
        for (place, member) in self.members.iter().enumerate() {
            let member = member.lock().await;
            let raft = member.raft().expect("all run");
            let applied = member.store().map_or(0, |store| store.applied().index);
            let (status, failure) = (raft.status(), raft.failure());
            text += &format!("m{place}: {status:?}, applied {applied}, {failure:?}; ");
        }
        text
    }

    /// Whether there is a leader, and all that replicate have applied all that it has.
    async fn agree(&self) -> bool {
        let Some((raft, _)) = self.leader().and_then(|place| self.network.running(self.ids[place]))
        else {
            return false;
        };
        let (last, replication) = (raft.status().last_index, raft.replication());
        drop(raft);
        if replication.is_joint || !replication.is_committed {
            return false;
        }
        for member in &self.members {
            let member = member.lock().await;
            let belongs = replication.addresses.contains_key(&member.id);
            let applied = member.store().map(|store| store.applied().index);
            if belongs && applied != Some(last) {
                return false;
            }
        }
        true
    }

    /// What members hold is the same, holds what was acknowledged once, and explains what clients saw.
    pub(super) async fn compare(&self) {
        let Some((raft, _)) = self.leader().and_then(|place| self.network.running(self.ids[place]))
        else {
            return self.checks.violated("nobody leads in the end".to_owned());
        };
        let replication = raft.replication();
        drop(raft);
        let mut hashes = BTreeMap::new();
        for (place, member) in self.members.iter().enumerate() {
            let member = member.lock().await;
            if !replication.addresses.contains_key(&member.id) {
                continue;
            }
            let store = member.store().expect("all run");
            let kv = store.hash_kv(Revision::NONE).expect("the store can be read");
            let own = store.own_hash().expect("the store can be read");
            let hash = (kv.hash, own.hash, own.position.index);
            self.say(&format!("m{place} holds {hash:x?} at {}", kv.current.0));
            hashes.insert(place, hash);
            let words = store.read_view().map(|view| view.get(Revision::NONE, WORDS, false));
            let words = words.expect("a view can be had").expect("it can be read");
            let text = words.map(|kv| kv.value.to_vec()).unwrap_or_default();
            let text = String::from_utf8(text).expect("words are text");
            if let Some(wrong) = self.ledger.lock().wrong_in(&text) {
                self.checks.violated(format!("m{place}: {wrong}"));
            }
        }
        if hashes.values().any(|hash| Some(hash) != hashes.values().next()) {
            self.checks.violated(format!("members differ: {hashes:x?}"));
        }
        if self.history.is_linearizable() != Some(true) {
            self.checks.violated("what clients saw is not linearizable".to_owned());
        }
    }
}
