//! What is measured, each the same on both servers.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use revfs_api::wire::etcdserverpb::range_request::{SortOrder, SortTarget};
use revfs_api::wire::etcdserverpb::{Compare, PutRequest, RangeRequest, TxnRequest, compare};

use crate::load::{Done, KEYS, Load, Outcome, VALUE_BYTES, key, put, put_op, value};
use crate::table::Goal;
use crate::unread;
use crate::versions;
use crate::watching;

type Run = for<'l> fn(&'l Load, Duration) -> Pin<Box<dyn Future<Output = Outcome<Done>> + 'l>>;

type Prepare = for<'l> fn(&'l Load) -> Pin<Box<dyn Future<Output = Outcome<()>> + 'l>>;

pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) goal: Goal,
    pub(crate) run: Run,
    /// The null handler can answer it.
    pub(crate) has_floor: bool,
    /// What must be there, made once before.
    pub(crate) prepare: Option<Prepare>,
    /// Another line about the same samples.
    pub(crate) also: Option<(&'static str, Goal)>,
}

impl Workload {
    pub(crate) const fn new(name: &'static str, goal: Goal, run: Run) -> Self {
        Self { name, goal, run, has_floor: false, prepare: None, also: None }
    }

    const fn with_floor(mut self) -> Self {
        self.has_floor = true;
        self
    }

    const fn after(mut self, prepare: Prepare) -> Self {
        self.prepare = Some(prepare);
        self
    }

    const fn also(mut self, name: &'static str, goal: Goal) -> Self {
        self.also = Some((name, goal));
        self
    }
}

pub(crate) const MANY: usize = 64;
const RANGE_KEYS: usize = 1_000;

pub(crate) const WORKLOADS: &[Workload] = &[
    Workload::new("put, 64 clients", Goal::Rate { at_least: 1.6 }, |load, length| {
        Box::pin(puts(load, USUAL, length))
    })
    .with_floor()
    .also("… server CPU of a put (or, in seconds, of 1,000,000)", Goal::Processor { at_most: 0.5 }),
    Workload::new("put, 1 client: latency", Goal::Latency { at_most: 0.8 }, |load, length| {
        Box::pin(puts(load, Size { clients: 1, ..USUAL }, length))
    })
    .with_floor(),
    Workload::new("get linearizable, 64 clients", Goal::Rate { at_least: 1.7 }, |load, length| {
        Box::pin(gets(load, USUAL, RangeRequest::default(), length))
    })
    .with_floor(),
    Workload::new("get serializable, 64 clients", Goal::Rate { at_least: 1.7 }, |load, length| {
        let request = RangeRequest { serializable: true, ..Default::default() };
        Box::pin(gets(load, USUAL, request, length))
    }),
    Workload::new(
        "get at an old revision, 64 clients",
        Goal::Rate { at_least: 1.7 },
        |load, length| Box::pin(gets_of_the_past(load, length)),
    ),
    Workload::new(
        "range of 1,000 keys, 64 clients",
        Goal::Rate { at_least: 3.0 },
        |load, length| Box::pin(ranges(load, length)),
    )
    .with_floor(),
    Workload::new(
        "range of 1,000 keys with 100 versions each at an old revision: server CPU, 64 clients",
        Goal::Processor { at_most: 0.4 },
        |load, length| Box::pin(versions::ranges(load, length)),
    )
    .after(|load| Box::pin(versions::fill(load))),
    Workload::new(
        "transaction of 10 puts, 64 clients",
        Goal::Rate { at_least: 2.0 },
        |load, length| Box::pin(txns(load, length)),
    )
    .with_floor(),
    Workload::new(
        "compare and swap, 64 clients on 64 keys",
        Goal::Rate { at_least: 1.6 },
        |load, length| Box::pin(swaps(load, length, MANY)),
    ),
    Workload::new(
        "compare and swap, 64 clients on one key: swaps",
        Goal::Rate { at_least: 1.2 },
        |load, length| Box::pin(swaps(load, length, 1)),
    ),
    Workload::new("watch: events to 100 watchers", Goal::Rate { at_least: 2.0 }, |load, length| {
        Box::pin(watching::fan_out(load, 100, length))
    }),
    Workload::new("watch: delay of an event", Goal::Latency { at_most: 0.5 }, |load, length| {
        Box::pin(watching::delay(load, length))
    }),
];

/// What is wanted of several members on one machine.
pub(crate) const OF_SEVERAL: &[Workload] = &[
    Workload::new(
        "put through all members, 64 clients",
        Goal::Rate { at_least: 1.5 },
        |load, length| Box::pin(puts(load, USUAL, length)),
    ),
    Workload::new(
        "get linearizable through all members, 64 clients",
        Goal::Rate { at_least: 1.5 },
        |load, length| Box::pin(gets(load, USUAL, RangeRequest::default(), length)),
    ),
    Workload::new("get serializable, 64 clients", Goal::Rate { at_least: 1.3 }, |load, length| {
        let request = RangeRequest { serializable: true, ..Default::default() };
        Box::pin(gets(load, USUAL, request, length))
    }),
    Workload::new("put, 1 client: latency", Goal::Latency { at_most: 1.0 }, |load, length| {
        Box::pin(puts(load, Size { clients: 1, ..USUAL }, length))
    }),
];

/// A number that jumps about.
fn scattered(count: usize, keys: usize) -> usize {
    count.wrapping_mul(2_654_435_761) % keys
}

/// How much of everything there is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) clients: usize,
    pub(crate) keys: usize,
    pub(crate) value_bytes: usize,
}

pub(crate) const USUAL: Size = Size { clients: MANY, keys: KEYS, value_bytes: VALUE_BYTES };

pub(crate) async fn puts(load: &Load, size: Size, length: Duration) -> Outcome<Done> {
    load.repeat(size.clients, length, move |load, client, count| async move {
        let value = value(count, size.value_bytes);
        let request =
            PutRequest { key: key(scattered(count, size.keys)), value, ..PutRequest::default() };
        load.kv(client).put(request).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn gets(
    load: &Load,
    size: Size,
    template: RangeRequest,
    length: Duration,
) -> Outcome<Done> {
    load.repeat(size.clients, length, move |load, client, count| {
        let request = RangeRequest { key: key(scattered(count, size.keys)), ..template.clone() };
        async move {
            let answer = load.kv(client).range(request).await?.into_inner();
            if answer.kvs.len() == 1 { Ok(()) } else { Err("a key is missing".into()) }
        }
    })
    .await
}

/// Every key was there when the last of them had just been made, and has changed since.
async fn gets_of_the_past(load: &Load, length: Duration) -> Outcome<Done> {
    let youngest = RangeRequest {
        key: key(0),
        range_end: key(KEYS),
        limit: 1,
        sort_order: SortOrder::Descend.into(),
        sort_target: SortTarget::Create.into(),
        keys_only: true,
        ..RangeRequest::default()
    };
    let found = load.kv(0).range(youngest).await?.into_inner();
    let revision = found.kvs.first().ok_or("there are no keys")?.create_revision;
    gets(load, USUAL, RangeRequest { revision, ..RangeRequest::default() }, length).await
}

async fn ranges(load: &Load, length: Duration) -> Outcome<Done> {
    load.repeat(MANY, length, |load, client, count| async move {
        let from = scattered(count, KEYS) % (KEYS - RANGE_KEYS);
        let range_end = key(from + RANGE_KEYS);
        let request = RangeRequest { key: key(from), range_end, ..RangeRequest::default() };
        let bytes = unread::range(&load, client, request).await?;
        let least = RANGE_KEYS * (VALUE_BYTES + key(from).len());
        if bytes > least { Ok(()) } else { Err("keys are missing".into()) }
    })
    .await
}

async fn txns(load: &Load, length: Duration) -> Outcome<Done> {
    load.repeat(MANY, length, |load, client, count| async move {
        let puts =
            (0..10).map(|nth| put_op(put(key(scattered(count, KEYS) / 10 * 10 + nth), count)));
        let request = TxnRequest { success: puts.collect(), ..TxnRequest::default() };
        load.kv(client).txn(request).await?;
        Ok(())
    })
    .await
}

/// Reads and swaps until a swap has succeeded: one operation.
async fn swaps(load: &Load, length: Duration, keys: usize) -> Outcome<Done> {
    load.repeat(MANY, length, move |load, client, count| async move {
        let key: Bytes = format!("/bench/swapped/{}", client % keys).into();
        let mut kv = load.kv(client);
        loop {
            let read = RangeRequest { key: key.clone(), ..RangeRequest::default() };
            let found = kv.range(read).await?.into_inner();
            let known = found.kvs.first().map_or(0, |kv| kv.mod_revision);
            let unchanged = Compare {
                result: compare::CompareResult::Equal.into(),
                target: compare::CompareTarget::Mod.into(),
                key: key.clone(),
                target_union: Some(compare::TargetUnion::ModRevision(known)),
                ..Compare::default()
            };
            let request = TxnRequest {
                compare: vec![unchanged],
                success: vec![put_op(put(key.clone(), count))],
                failure: Vec::new(),
            };
            if kv.txn(request).await?.into_inner().succeeded {
                return Ok(());
            }
        }
    })
    .await
}
