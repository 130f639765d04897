//! Clients of several keys at once: transactions, locks, reads of the present and of the past, and a lease that is
//! kept. What they are told is noted with its revision, for the replay of the history.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use revfs_api::wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_api::wire::etcdserverpb::lease_client::LeaseClient;
use revfs_api::wire::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest,
    RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, request_op, response_op,
};
use revfs_tests::dice::Dice;
use revfs_tests::replay::{Held, Told, What};
use tonic::transport::Channel;

use super::connect;

const KEYS: u64 = 4;

const LOCK: &str = "mixed/lock";

const LEASE_SECONDS: i64 = 3;

/// Shared by all clients.
pub(super) struct Notes {
    begun: Instant,
    told: Mutex<Vec<Told>>,
    pub(super) ends: AtomicBool,
}

impl Notes {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            told: Mutex::default(),
            ends: AtomicBool::new(false),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn note(&self, began: u64, revision: i64, what: What) {
        let revision = u64::try_from(revision).expect("revisions are positive");
        let told = Told { began, ended: self.now(), revision, what };
        self.told.lock().expect("no client panics").push(told);
    }

    pub(super) fn told(&self) -> Vec<Told> {
        self.told.lock().expect("no client panics").clone()
    }

    fn end(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }
}

fn key(number: u64) -> String {
    format!("mixed/{number}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// That the key holds this, or is not there.
fn holds((key, value): &Held) -> Compare {
    let (target, union) = match value {
        Some(value) => (CompareTarget::Value, TargetUnion::Value(value.clone().into())),
        None => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
    };
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.clone().into(),
        target_union: Some(union),
        ..Compare::default()
    }
}

fn change((key, value): &Held) -> RequestOp {
    let key = key.clone().into();
    let request = match value {
        Some(value) => {
            let value = value.clone().into();
            request_op::Request::RequestPut(PutRequest { key, value, ..PutRequest::default() })
        }
        None => {
            let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
            request_op::Request::RequestDeleteRange(delete)
        }
    };
    RequestOp { request: Some(request) }
}

fn range(key: &str, revision: i64) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), revision, ..RangeRequest::default() }
}

fn read(key: &str) -> RequestOp {
    RequestOp { request: Some(request_op::Request::RequestRange(range(key, 0))) }
}

fn held(key: &str, answer: &RangeResponse) -> Held {
    (key.to_owned(), answer.kvs.first().map(|kv| text(&kv.value)))
}

/// What a transaction of reads has answered of these keys.
fn seen(keys: &[&str], answer: &TxnResponse) -> Vec<Held> {
    let one = |(key, response): (&&str, &response_op::Response)| match response {
        response_op::Response::ResponseRange(range) => Some(held(key, range)),
        _ => None,
    };
    let responses = answer.responses.iter().filter_map(|response| response.response.as_ref());
    keys.iter().zip(responses).filter_map(one).collect()
}

fn revision(answer: &TxnResponse) -> i64 {
    answer.header.as_ref().map_or(0, |header| header.revision)
}

/// One transaction, noted if it was answered: whether it changed what it was to, and what it saw if not.
async fn txn(
    notes: &Notes,
    channel: Channel,
    demanded: Vec<Held>,
    changes: Vec<Held>,
) -> Option<Result<i64, Vec<Held>>> {
    let keys: Vec<&str> = changes.iter().map(|(key, _)| key.as_str()).collect();
    let request = TxnRequest {
        compare: demanded.iter().map(holds).collect(),
        success: changes.iter().map(change).collect(),
        failure: keys.iter().map(|key| read(key)).collect(),
    };
    let began = notes.now();
    let answer = KvClient::new(channel).txn(request).await.ok()?.into_inner();
    let at = revision(&answer);
    if answer.succeeded {
        notes.note(began, at, What::Changed { demanded, changes });
        return Some(Ok(at));
    }
    let seen = seen(&keys, &answer);
    notes.note(began, at, What::Read(seen.clone()));
    Some(Err(seen))
}

/// Uses the keys until it is told to end.
pub(super) async fn client(number: u32, mut dice: Dice, addresses: Vec<String>, notes: Arc<Notes>) {
    let channels: Vec<Channel> = addresses.iter().map(|address| connect(address)).collect();
    let (mut count, mut newest) = (0_u64, 0);
    // What one key held when it was last seen.
    let mut last: Held = (key(0), None);
    while !notes.end() {
        let at = usize::try_from(dice.below(channels.len() as u64)).expect("few members");
        let channel = channels[at].clone();
        let first = dice.below(KEYS);
        let (one, other) = (key(first), key((first + 1) % KEYS));
        count += 2;
        let mut value = 0;
        let mut new = || {
            value += 1;
            Some(format!("{number}-{}", count + value))
        };
        match dice.below(6) {
            0 => {
                let changes = vec![(one.clone(), new()), (other, new())];
                if let Some(Ok(at)) = txn(&notes, channel, Vec::new(), changes.clone()).await {
                    (newest, last) = (at, changes[0].clone());
                }
            }
            1 => {
                let changes = vec![(last.0.clone(), new())];
                match txn(&notes, channel, vec![last.clone()], changes.clone()).await {
                    Some(Ok(_)) => last = changes[0].clone(),
                    Some(Err(seen)) => last = seen[0].clone(),
                    None => {}
                }
            }
            2 if last.1.is_some() => {
                let gone = (last.0.clone(), None);
                txn(&notes, channel, vec![last.clone()], vec![gone.clone()]).await;
                last = gone;
            }
            3 => lock(&notes, &channels, at, new()).await,
            4 if newest > 0 => past(&notes, channel, &one, newest).await,
            _ => {
                let keys = [one.as_str(), other.as_str()];
                let success = keys.iter().map(|key| read(key)).collect();
                let request = TxnRequest { success, ..TxnRequest::default() };
                let began = notes.now();
                if let Ok(answer) = KvClient::new(channel).txn(request).await {
                    let answer = answer.into_inner();
                    let seen = seen(&keys, &answer);
                    (newest, last) = (revision(&answer), seen[0].clone());
                    notes.note(began, newest, What::Read(seen));
                }
            }
        }
    }
}

async fn past(notes: &Notes, channel: Channel, key: &str, revision: i64) {
    let began = notes.now();
    // It may be compacted.
    if let Ok(answer) = KvClient::new(channel).range(range(key, revision)).await {
        let seen = vec![held(key, &answer.into_inner())];
        notes.note(began, revision, What::ReadPast(seen));
    }
}

/// Takes the lock if it is free, and gives it back.
async fn lock(notes: &Notes, channels: &[Channel], at: usize, own: Option<String>) {
    let (free, own) = ((LOCK.to_owned(), None), (LOCK.to_owned(), own));
    let taken = txn(notes, channels[at].clone(), vec![free.clone()], vec![own.clone()]).await;
    if matches!(taken, Some(Err(_))) {
        return;
    }
    // Until it is known that it is free of this one.
    for channel in channels.iter().cycle() {
        let freed = txn(notes, channel.clone(), vec![own.clone()], vec![free.clone()]).await;
        if freed.is_some() || notes.end() {
            return;
        }
    }
}

/// Keeps a lease and looks whether what hangs on it is there, as it must be for the whole time after each
/// acknowledged renewal; what was wrong.
pub(super) async fn lease(
    mut dice: Dice,
    addresses: Vec<String>,
    notes: Arc<Notes>,
) -> Vec<String> {
    let channels: Vec<Channel> = addresses.iter().map(|address| connect(address)).collect();
    let mut wrong = Vec::new();
    let mut any =
        || channels[usize::try_from(dice.below(channels.len() as u64)).expect("few")].clone();
    let mut count = 0;
    while !notes.end() {
        count += 1;
        let name = format!("mixed/leased-{count}");
        let grant = LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 };
        let Ok(granted) = LeaseClient::new(any()).lease_grant(grant).await else { continue };
        let granted = granted.into_inner();
        let put = PutRequest {
            key: name.clone().into(),
            value: format!("leased-{count}").into(),
            lease: granted.id,
            ..PutRequest::default()
        };
        if KvClient::new(any()).put(put).await.is_err() {
            continue;
        }
        // Until it is lost.
        let mut renewed: Option<Instant> = None;
        while !notes.end() {
            let asked = Instant::now();
            match keep_alive(any(), granted.id).await {
                Some(true) => renewed = Some(asked),
                Some(false) => break,
                None => {}
            }
            let answer = KvClient::new(any()).range(range(&name, 0)).await;
            let is_there = answer.map(|answer| !answer.into_inner().kvs.is_empty());
            let Some(since) = renewed.map(|renewed| renewed.elapsed()) else { continue };
            let time = u64::try_from(granted.ttl).map(Duration::from_secs).unwrap_or_default();
            match is_there {
                Ok(false) if since < time => {
                    wrong.push(format!("{name} is gone {since:?} after a renewal for {time:?}"));
                    break;
                }
                Ok(false) => break,
                Ok(true) | Err(_) => {}
            }
        }
    }
    wrong
}

/// Whether it lives on; `None` if nobody answered.
async fn keep_alive(channel: Channel, id: i64) -> Option<bool> {
    let requests = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
    let mut answers = LeaseClient::new(channel).lease_keep_alive(requests).await.ok()?.into_inner();
    let answer = tokio::time::timeout(super::CALL_LIMIT, answers.message()).await;
    answer.ok()?.ok()?.map(|answer| answer.ttl > 0)
}
