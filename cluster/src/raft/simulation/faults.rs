//! What befalls the members of a simulation, as its dice have it.
//!
//! The log is purged by openraft's policy alone. Purges that are asked for (`Raft::purge`) are left out: one that
//! waits for replication, and then is less than the policy's, ends a debug build of openraft by an assertion;
//! others go on, with a log that is purged later.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::TypeConfigExt;

use super::super::membership::Change;
use super::super::type_config::TypeConfig;
use super::executor::{self, WORLD};
use super::member::ask;
use super::network::{Weather, below, below_time};
use super::world::World;

/// A change of the members has so long.
const CHANGED_WITHIN: Duration = Duration::from_secs(3);

fn place_below(count: usize) -> usize {
    usize::try_from(below(u64::try_from(count).expect("a few"))).expect("a few")
}

/// Harms the members until `until`.
pub(super) async fn run(world: Arc<World>, until: Duration) {
    // From one that hardly ever comes to rest to one that is left alone for long.
    let between = Duration::from_millis([400, 1_000, 2_500, 5_000][place_below(4)]);
    while executor::here().now() < until {
        TypeConfig::sleep(below_time(between)).await;
        match below(11) {
            0..=3 => kill(&world).await,
            4 | 5 => cut(&world),
            6 => world.network.heal(),
            7 => slow_disk(&world).await,
            8 => weather(&world),
            9 => hand_over(&world).await,
            _ => change_members(&world).await,
        }
    }
}

/// Kills one or two, the leader more often than others, or all of them at once.
async fn kill(world: &Arc<World>) {
    let count = world.ids.len();
    let mut struck = BTreeSet::new();
    match below(6) {
        0 => struck.extend(0..count),
        pick => {
            for _ in 0..=pick / 4 {
                let any = place_below(count);
                struck.insert(world.leader().filter(|_| below(2) == 0).unwrap_or(any));
            }
        }
    }
    for place in struck {
        strike(world, place).await;
    }
}

/// Kills a member, and has it back after a while, or at once.
async fn strike(world: &Arc<World>, place: usize) {
    world.kill(place).await;
    let away = if below(2) == 0 { Duration::ZERO } else { below_time(Duration::from_secs(4)) };
    let world = Arc::clone(world);
    executor::here().spawn_in(WORLD, async move {
        TypeConfig::sleep(away).await;
        world.start(place).await;
    });
}

/// Now and then kills who has just given its vote to another member.
pub(super) async fn strike_voters(world: Arc<World>, until: Duration) {
    while executor::here().now() < until {
        let left = until.saturating_sub(executor::here().now());
        let Ok(voter) = TypeConfig::timeout(left, world.checks.next_voter()).await else { return };
        let Some(place) = world.ids.iter().position(|id| *id == voter) else { continue };
        if below(4) == 0 {
            TypeConfig::sleep(below_time(Duration::from_millis(10))).await;
            strike(&world, place).await;
        }
    }
}

fn cut(world: &World) {
    let ids = &world.ids;
    let pairs = |from: &[u64], to: &[u64]| -> Vec<(u64, u64)> {
        from.iter().flat_map(|from| to.iter().map(|to| (*from, *to))).collect()
    };
    let place = world.leader().filter(|_| below(2) == 0).unwrap_or(place_below(ids.len()));
    let one = [ids[place]];
    let others: Vec<u64> = ids.iter().copied().filter(|id| *id != ids[place]).collect();
    let (name, cut) = match below(4) {
        0 => {
            let (left, right): (Vec<u64>, Vec<u64>) = ids.iter().partition(|_| below(2) == 0);
            ("halves", [pairs(&left, &right), pairs(&right, &left)].concat())
        }
        1 => ("one that hears nobody", pairs(&others, &one)),
        2 => ("one that nobody hears", pairs(&one, &others)),
        _ => {
            // Each hears its two neighbours only.
            let far = |a: usize, b: usize| {
                let apart = a.abs_diff(b);
                apart > 1 && apart + 1 < ids.len().max(4)
            };
            let all = (0..ids.len()).flat_map(|a| (0..ids.len()).map(move |b| (a, b)));
            let cut = all.filter(|(a, b)| far(*a, *b)).map(|(a, b)| (ids[a], ids[b]));
            ("a ring", cut.collect())
        }
    };
    world.say(&format!("cut: {name}, about m{place}"));
    world.network.cut(cut);
}

async fn slow_disk(world: &World) {
    let place = place_below(world.ids.len());
    let flush_max = Duration::from_millis([2, 20, 100, 600][place_below(4)]);
    world.say(&format!("m{place} flushes in up to {flush_max:?}"));
    world.members[place].lock().await.set_flush_max(flush_max);
}

fn weather(world: &World) {
    let weather = Weather {
        delay_max: Duration::from_micros([1_000, 5_000, 50_000][place_below(3)]),
        lost: [0, 5, 100][place_below(3)],
    };
    world.say(&format!("{weather:?}"));
    world.network.set_weather(weather);
}

async fn hand_over(world: &World) {
    let Some(leader) = world.leader() else { return };
    let (place, to) = (leader, place_below(world.ids.len()));
    let Some(running) = world.network.running(world.ids[place]) else { return };
    world.say(&format!("m{place} is to hand over to m{to}"));
    let to = world.ids[to];
    // Whether it does is the members' matter.
    ask(running, CHANGED_WITHIN, |raft| async move { raft.hand_over_to(to).await.ok() }).await;
}

/// Has the leader change who belongs to the cluster, as the reconciler would, but without its caution.
async fn change_members(world: &Arc<World>) {
    let Some(leader) = world.leader() else { return };
    let Some(running) = world.network.running(world.ids[leader]) else { return };
    let place = place_below(world.ids.len());
    let id = world.ids[place];
    let seen = running.0.replication();
    let change = if seen.is_joint || !seen.is_committed {
        Change::Settle
    } else if !seen.addresses.contains_key(&id) {
        Change::AddLearner { id, address: format!("http://m{place}:2380") }
    } else if !seen.voters.contains(&id) {
        match below(3) {
            0 => Change::RemoveLearner { id },
            _ => Change::SetVoters(seen.voters.iter().copied().chain([id]).collect()),
        }
    } else if seen.voters.len() > 3 {
        Change::SetVoters(seen.voters.iter().copied().filter(|voter| *voter != id).collect())
    } else {
        return;
    };
    world.say(&format!("m{leader} is to change its members, m{place}: {change:?}"));
    let world = Arc::clone(world);
    executor::here().spawn_in(WORLD, async move {
        let changed =
            ask(running, CHANGED_WITHIN, |raft| async move { raft.change(&seen, change).await });
        let changed = changed.await;
        world.say(&format!("m{leader} has changed its members: {changed:?}"));
    });
}
