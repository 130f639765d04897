//! Concurrent clients of three members while members are killed, stopped, cut off, deaf, slow, short of disk,
//! wiped and replaced, and while their clocks step: what clients saw is linearizable, and agrees with the history,
//! revision by revision; watches show all of it, once and in order; leases last; all members end the same.
//!
//! `REVFS_SEED=N` repeats one run; `REVFS_HISTORIES=N` and `REVFS_HISTORY_SECONDS=S` make it a soak.

mod harm;
mod mixed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use revfs_api::client::Endpoints;
use revfs_api::keyspace::{ChangeKind, ChangesRequest, Error, KeyRange, Revision, RevisionEvents};
use revfs_api::wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_api::wire::etcdserverpb::watch_client::WatchClient;
use revfs_api::wire::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
    request_op, watch_request,
};
use revfs_api::wire::mvccpb::event::EventType;
use revfs_tests::dice::{Dice, SEED_VARIABLE};
use revfs_tests::history::{Action, History};
use revfs_tests::replay::{self, Held, Step, Watched};
use revfs_tests::{Cluster, wait};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use self::mixed::Notes;

const CLIENTS: u32 = 5;

/// Clients of several keys.
const MIXED: u32 = 3;

/// Runs at a time.
const SIDE_BY_SIDE: usize = 2;
const REGISTERS: usize = 5;
const MEMBERS: u8 = 3;

/// A client asks another member after this.
const CALL_LIMIT: Duration = Duration::from_secs(1);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| {
        text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}; give a number"))
    })
}

fn key(register: usize) -> Vec<u8> {
    format!("register/{register}").into_bytes()
}

fn connect(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect_timeout(CALL_LIMIT).timeout(CALL_LIMIT).connect_lazy()
}

/// What a member holds in a register, if it answers; `serializable`: whatever it has.
async fn read(channel: Channel, register: usize, serializable: bool) -> Option<Option<u64>> {
    let request =
        RangeRequest { key: key(register).into(), serializable, ..RangeRequest::default() };
    let answer = KvClient::new(channel).range(request).await.ok()?.into_inner();
    let value = |bytes: &[u8]| String::from_utf8_lossy(bytes).parse().expect("a number");
    Some(answer.kvs.first().map(|kv| value(&kv.value)))
}

fn put(register: usize, value: u64) -> PutRequest {
    let value = value.to_string().into_bytes().into();
    PutRequest { key: key(register).into(), value, ..PutRequest::default() }
}

async fn swap(channel: Channel, register: usize, expected: u64, value: u64) -> Option<bool> {
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Value.into(),
        key: key(register).into(),
        target_union: Some(TargetUnion::Value(expected.to_string().into_bytes().into())),
        ..Compare::default()
    };
    let put = request_op::Request::RequestPut(put(register, value));
    let request = TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp { request: Some(put) }],
        failure: Vec::new(),
    };
    KvClient::new(channel).txn(request).await.ok().map(|answer| answer.into_inner().succeeded)
}

/// One client: reads, writes and swaps at random members until it is told to end.
async fn client(
    number: u32,
    mut dice: Dice,
    addresses: Vec<String>,
    history: Arc<History>,
    ends: Arc<AtomicBool>,
) {
    let channels: Vec<Channel> = addresses.iter().map(|address| connect(address)).collect();
    let mut last_seen = None;
    let mut count = 0;
    while !ends.load(Ordering::Relaxed) {
        let at = usize::try_from(dice.below(channels.len() as u64)).expect("few members");
        let channel = channels[at].clone();
        let register = usize::try_from(dice.below(REGISTERS as u64)).expect("few registers");
        count += 1;
        // Each is written once.
        let value = u64::from(number) * 1_000_000 + count;
        let from = history.now();
        match (dice.below(4), last_seen) {
            (0 | 1, _) => {
                if let Some(seen) = read(channel, register, false).await {
                    history.note(number, register, Action::Read { seen }, from, true);
                    last_seen = seen.map(|seen| (register, seen));
                }
            }
            (2, Some((register, expected))) => {
                let swapped = swap(channel, register, expected, value).await;
                let action = Action::Swap { expected: Some(expected), value, swapped };
                history.note(number, register, action, from, swapped.is_some());
            }
            _ => {
                let done = KvClient::new(channel).put(put(register, value)).await.is_ok();
                history.note(number, register, Action::Write { value }, from, done);
            }
        }
    }
}

/// Between these lie the keys of all clients.
const FIRST: &[u8] = b"mixed/";
const BEHIND: &[u8] = b"register0";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Watches everything on one member, again and again where it was left, until it has seen the revision `last`, which is
/// known once all clients have ended. Tells how far it has come.
async fn watch(
    address: String,
    next: Arc<AtomicU64>,
    last: tokio::sync::watch::Receiver<Option<u64>>,
) -> Result<Watched, String> {
    let mut watched = Watched::default();
    loop {
        let create = WatchCreateRequest {
            key: FIRST.into(),
            range_end: BEHIND.into(),
            start_revision: i64::try_from(watched.next().max(2)).expect("revisions are small"),
            progress_notify: true,
            ..WatchCreateRequest::default()
        };
        let create = watch_request::RequestUnion::CreateRequest(create);
        let first = WatchRequest { request_union: Some(create) };
        let (requests, receiver) = tokio::sync::mpsc::channel(1);
        requests.send(first).await.expect("it has room");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = endpoint.connect_timeout(CALL_LIMIT).connect_lazy();
        let requests_of = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut client = WatchClient::new(channel);
        if let Ok(Ok(stream)) = tokio::time::timeout(CALL_LIMIT, client.watch(requests_of)).await {
            let mut stream = stream.into_inner();
            // A member that was cut off says nothing: it is asked again.
            while let Ok(Ok(Some(response))) =
                tokio::time::timeout(CALL_LIMIT, stream.message()).await
            {
                if response.compact_revision != 0 {
                    return Err(format!("{} is compacted already", watched.next()));
                }
                watched.take(response.events.into_iter().filter_map(event))?;
                next.store(watched.next(), Ordering::SeqCst);
            }
        }
        drop(requests);
        if last.borrow().is_some_and(|last| watched.next() > last) {
            return Ok(watched);
        }
        tokio::task::yield_now().await;
    }
}

fn event(event: revfs_api::wire::mvccpb::Event) -> Option<(u64, Held)> {
    let is_put = event.r#type() == EventType::Put;
    let kv = event.kv?;
    let value = is_put.then(|| text(&kv.value));
    Some((u64::try_from(kv.mod_revision).ok()?, (text(&kv.key), value)))
}

/// All that has happened, as far as it was asked for: it may be compacted since.
#[derive(Default)]
struct Past(Vec<Step>);

impl Past {
    fn newest(&self) -> u64 {
        self.0.last().map_or(1, |step| step.revision)
    }

    /// Asks a member for what came since.
    async fn go_on(&mut self, address: &str) -> Result<(), Error> {
        let endpoints: Endpoints = format!("http://{address}").parse().expect("an address");
        let keys = revfs_api::client::connect(&endpoints).await?;
        let mut from = Some(Revision(self.newest() + 1));
        while let Some(next) = from {
            let request = ChangesRequest {
                ranges: vec![KeyRange::of_interval(FIRST.into(), BEHIND.into())],
                from: next,
                to: Revision::NONE,
                newest_first: false,
                limit: 0,
                scan_limit: 0,
                keys_only: false,
            };
            let answer = match keys.changes(request).await {
                Err(Error::Future { .. }) => return Ok(()),
                answer => answer?,
            };
            self.0.extend(answer.revisions.into_iter().map(step));
            from = answer.next;
        }
        Ok(())
    }
}

fn step(revision: RevisionEvents) -> Step {
    let change = |event: revfs_api::keyspace::Event| {
        let value = (event.kind == ChangeKind::Put).then(|| text(&event.kv.value));
        (text(&event.kv.key), value)
    };
    Step {
        revision: revision.stamp.revision.0,
        time: revision.stamp.time.0,
        changes: revision.events.into_iter().map(change).collect(),
    }
}

type Watcher = JoinHandle<Result<Watched, String>>;

/// All that runs beside the faults.
struct Running {
    runtime: Runtime,
    addresses: Vec<String>,
    history: Arc<History>,
    ends: Arc<AtomicBool>,
    notes: Arc<Notes>,
    clients: Vec<JoinHandle<()>>,
    leases: JoinHandle<Vec<String>>,
    /// Each with the revision that it waits for.
    watchers: Vec<(Watcher, Arc<AtomicU64>)>,
    tell_last: tokio::sync::watch::Sender<Option<u64>>,
}

impl Running {
    fn start(cluster: &Cluster, dice: &mut Dice) -> Self {
        let addresses: Vec<String> = (0..MEMBERS).map(|member| cluster.client(member)).collect();
        let runtime = Runtime::new().expect("a runtime");
        let (history, notes) = (Arc::new(History::default()), Notes::new());
        let ends = Arc::new(AtomicBool::new(false));
        let (tell_last, last) = tokio::sync::watch::channel(None);
        let watcher = |address: &String| {
            let next = Arc::new(AtomicU64::new(1));
            let watch = watch(address.clone(), Arc::clone(&next), last.clone());
            (runtime.spawn(watch), next)
        };
        let watchers = addresses.iter().map(watcher).collect();
        let mut clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let dice = Dice::from_seed(dice.roll());
                let (history, ends) = (Arc::clone(&history), Arc::clone(&ends));
                runtime.spawn(client(number, dice, addresses.clone(), history, ends))
            })
            .collect();
        clients.extend((0..MIXED).map(|number| {
            let dice = Dice::from_seed(dice.roll());
            runtime.spawn(mixed::client(number, dice, addresses.clone(), Arc::clone(&notes)))
        }));
        let leases =
            mixed::lease(Dice::from_seed(dice.roll()), addresses.clone(), Arc::clone(&notes));
        let leases = runtime.spawn(leases);
        Self { runtime, addresses, history, ends, notes, clients, leases, watchers, tell_last }
    }

    /// Forgets what is noted and was seen by all watches.
    fn compact(&self, cluster: &Cluster, past: &mut Past, asked: u8) {
        let at = usize::from(asked);
        // Who does not answer now is asked another time.
        if self.runtime.block_on(past.go_on(&self.addresses[at])).is_err() {
            return;
        }
        let seen = self.watchers.iter().map(|(_, next)| next.load(Ordering::SeqCst)).min();
        let until = seen.map_or(0, |next| next - 1).min(past.newest());
        drop(cluster.run(&cluster.client(asked), &["compact", &until.to_string()]));
    }

    /// Ends the clients, and looks at what all of it has come to.
    fn end(mut self, cluster: &Cluster, past: &mut Past, seed: u64) {
        self.ends.store(true, Ordering::Relaxed);
        self.notes.ends.store(true, Ordering::Relaxed);
        for client in std::mem::take(&mut self.clients) {
            self.runtime.block_on(client).expect("no client panics");
        }
        let lost = self.runtime.block_on(self.leases).expect("no client panics");
        assert!(lost.is_empty(), "seed {seed}: {lost:?}");
        for register in 0..REGISTERS {
            let from = self.history.now();
            let seen = wait::until("last value", wait::LIMIT, || {
                self.runtime
                    .block_on(async { read(connect(&self.addresses[0]), register, false).await })
            });
            self.history.note(CLIENTS, register, Action::Read { seen }, from, true);
        }
        cluster.agree();
        let gone_on = self.runtime.block_on(past.go_on(&self.addresses[0]));
        gone_on.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        self.tell_last.send_replace(Some(past.newest()));
        for (watcher, _) in self.watchers {
            let watched = self.runtime.block_on(watcher).expect("no watcher panics");
            let agrees = watched.and_then(|watched| watched.agrees(&past.0));
            agrees.unwrap_or_else(|wrong| panic!("seed {seed}: a watch: {wrong}"));
        }
        let told = self.notes.told();
        let (answered, revisions) = (self.history.answered(), past.0.len());
        println!("seed {seed}: {answered} and {} answers, {revisions} revisions", told.len());
        assert!(answered > 20 && told.len() > 10, "seed {seed}: too few to say anything");
        assert_eq!(self.history.is_linearizable(), Some(true), "seed {seed}");
        replay::check(&past.0, &told).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
}

fn one_history(seed: u64, length: Duration) {
    println!("{SEED_VARIABLE}={seed}");
    let mut dice = Dice::from_seed(seed);
    let mut cluster = Cluster::to_be_harmed(MEMBERS, &[]);
    let (running, mut past) = (Running::start(&cluster, &mut dice), Past::default());
    let begun = Instant::now();
    let mut harms = Vec::new();
    while begun.elapsed() < length {
        harms.push(harm::harm(&mut cluster, &mut dice));
        let asked = u8::try_from(dice.below(u64::from(MEMBERS))).expect("few members");
        running.compact(&cluster, &mut past, asked);
    }
    println!("seed {seed}: {}", harms.join(", "));
    (0..MEMBERS).for_each(|member| cluster.wait_writable(member));
    running.end(&cluster, &mut past, seed);
}

#[test]
fn what_clients_see_is_linearizable_whatever_fails() {
    let length = Duration::from_secs(number("REVFS_HISTORY_SECONDS", 20));
    if std::env::var_os(SEED_VARIABLE).is_some() {
        return one_history(number(SEED_VARIABLE, 0), length);
    }
    let mut dice = Dice::new("seeds of histories");
    let seeds: Vec<u64> = (0..number("REVFS_HISTORIES", 10)).map(|_| dice.roll() >> 16).collect();
    for some in seeds.chunks(SIDE_BY_SIDE) {
        std::thread::scope(|scope| {
            for &seed in some {
                scope.spawn(move || one_history(seed, length));
            }
        });
    }
}

/// So short a log that a member that was away for a moment is given the store.
const SHORT_LOG: [&str; 2] = ["--snapshot-count=20", "--snapshot-catchup-entries=10"];

/// How often a member has gone on with a store that it was given.
fn installs(cluster: &Cluster, member: u8) -> usize {
    cluster.log(member).matches("went on with the store of another member").count()
}

#[test]
fn what_clients_see_is_linearizable_while_members_are_given_the_store_and_history_is_forgotten() {
    let mut dice = Dice::new("installs");
    let seed = dice.roll() >> 16;
    let mut cluster = Cluster::to_be_harmed(MEMBERS, &SHORT_LOG);
    let (running, mut past) = (Running::start(&cluster, &mut dice), Past::default());
    // Now and then the one that leads.
    let away = u8::try_from(dice.below(u64::from(MEMBERS))).expect("few members");
    let (next, last) = ((away + 1) % MEMBERS, (away + 2) % MEMBERS);
    running.compact(&cluster, &mut past, away);
    cluster.kill(away);
    // No member that runs holds any more what it lacks.
    let index = cluster.last_index(next).max(cluster.last_index(last));
    for other in [next, last] {
        cluster.wait_given_up(other, index);
    }
    running.compact(&cluster, &mut past, next);
    cluster.start_member(away);
    wait::until_true("the store that it was given", wait::LIMIT, || installs(&cluster, away) > 0);
    running.compact(&cluster, &mut past, away);
    // And one that has lost everything.
    let before = installs(&cluster, last);
    cluster.wipe_and_rejoin(next, last, false);
    assert!(installs(&cluster, last) > before, "{}", cluster.log(last));
    running.compact(&cluster, &mut past, last);
    (0..MEMBERS).for_each(|member| cluster.wait_writable(member));
    running.end(&cluster, &mut past, seed);
}

#[test]
fn a_lease_that_is_taken_away_is_found_out() {
    let cluster = Cluster::start(1);
    let client = cluster.client(0);
    let (runtime, notes) = (Runtime::new().expect("a runtime"), Notes::new());
    let keeper = mixed::lease(Dice::from_seed(1), vec![client.clone()], Arc::clone(&notes));
    let keeper = runtime.spawn(keeper);
    let mut revoked = 0;
    wait::until_true("leases to revoke", wait::LIMIT, || {
        let listed = cluster.ctl(&client, &["lease", "list"]);
        for id in listed.lines().filter(|line| line.len() == 16) {
            revoked += u32::from(cluster.run(&client, &["lease", "revoke", id]).status.success());
        }
        revoked > 5
    });
    notes.ends.store(true, Ordering::Relaxed);
    let wrong = runtime.block_on(keeper).expect("it does not panic");
    assert!(!wrong.is_empty(), "nobody noticed");
}

#[test]
fn reads_that_ask_nobody_are_found_out() {
    let cluster = Cluster::start(MEMBERS);
    let leader = cluster.wait_for_leader();
    let other = (leader + 1) % MEMBERS;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let history = History::default();
    runtime.block_on(async {
        let write = async |value| {
            let from = history.now();
            let done =
                KvClient::new(connect(&cluster.client(other))).put(put(0, value)).await.is_ok();
            history.note(0, 0, Action::Write { value }, from, done);
            done
        };
        assert!(write(1).await);
        cluster.network.isolate(leader);
        let mut value = 2;
        while !write(value).await {
            value += 1;
        }
        let from = history.now();
        let stale = read(connect(&cluster.client(leader)), 0, true).await.expect("it answers");
        history.note(1, 0, Action::Read { seen: stale }, from, true);
    });
    assert_eq!(
        history.is_linearizable(),
        Some(false),
        "the member that was cut off showed the past"
    );
}
