//! A mirror that ends in the midst of its copy, between two nodes of this process.

use std::sync::{Arc, Mutex};

use revfs_api::KeySpace;
use revfs_api::keyspace::{Op, Origin, Revision, Txn};
use revfs_api::mirror::{Mirror, Places, Step};

use crate::node::Node;

/// Changes of one transaction of a copy.
const BATCH: u64 = 100;
const KEYS: u64 = 450;

fn name(number: u64) -> String {
    format!("/app/{number:04}")
}

async fn put(keys: &Arc<dyn KeySpace>, ops: Vec<Op>) -> Revision {
    let txn = Txn { success: ops, ..Txn::default() };
    keys.txn(txn, Origin::default()).await.expect("it is taken").revision
}

type Sides = (Arc<dyn KeySpace>, Arc<dyn KeySpace>);

async fn mirror((source, destination): &Sides) -> Mirror {
    let sides = (Arc::clone(source), Arc::clone(destination));
    let (from, to) = ("/app/".into(), "/copy/".into());
    let places = Places { source: from, destination: to, leaves_out_long: false };
    Mirror::begin(sides, places, false, Origin::default()).await.expect("it may begin")
}

/// Copies until so many keys are changed, and is gone then.
async fn killed_after(sides: &Sides, changed_keys: u64) {
    let mut mirror = mirror(sides).await;
    let killed = tokio::spawn(async move {
        let mut on_step = |step: Step| {
            if let Step::Compared { changed, .. } = step {
                assert!(changed < changed_keys, "as if it were killed here");
            }
        };
        mirror.run(false, &mut on_step).await
    });
    assert!(killed.await.is_err(), "it was not killed");
}

/// Brings the destination to the present; the steps on the way.
async fn completed(sides: &Sides) -> (Mirror, Vec<Step>) {
    let mut mirror = mirror(sides).await;
    let steps = Mutex::new(Vec::new());
    let mut on_step = |step| steps.lock().expect("nobody panics").push(step);
    mirror.run(false, &mut on_step).await.expect("both answer");
    (mirror, steps.into_inner().expect("nobody panics"))
}

async fn assert_equal(mirror: &mut Mirror, keys: u64) {
    let verified = mirror.verify().await.expect("both answer");
    assert_eq!((verified.keys, verified.differs), (keys, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_killed_goes_on_behind_the_last_key_and_begins_anew_if_its_revision_is_gone()
 {
    let nodes = (Node::start().await, Node::start().await);
    let sides: Sides = (nodes.0.key_space(), nodes.1.key_space());
    let all = (0..KEYS).map(|number| Op::put(name(number), "v")).collect();
    let first = put(&sides.0, all).await;
    killed_after(&sides, 2 * BATCH).await;
    // What is copied already changes, and what is not.
    let changes = vec![Op::put(name(0), "new"), Op::put(name(KEYS - 1), "new")];
    let present = put(&sides.0, changes).await;
    let (mut mirror, steps) = completed(&sides).await;
    let behind = format!("/copy/{:04}", 2 * BATCH - 1).into();
    assert_eq!(steps[0], Step::Copying { revision: first, behind: Some(behind) });
    let copied = Step::Copied { revision: first, changed: KEYS - 2 * BATCH };
    assert!(steps.contains(&copied), "{steps:?}");
    assert_eq!(mirror.position(), present);
    assert_equal(&mut mirror, KEYS).await;
    mirror.finish().await.expect("it is ours");

    // The same once more to where nothing is, and what it copies is forgotten meanwhile.
    let all = (0..KEYS).map(|number| Op::delete(name(number).replace("app", "copy"))).collect();
    put(&sides.1, all).await;
    killed_after(&sides, BATCH).await;
    let present = put(&sides.0, vec![Op::put(name(1), "newer"), Op::delete(name(2))]).await;
    sides.0.compact(present, true).await.expect("it compacts");
    let (mut mirror, steps) = completed(&sides).await;
    assert!(steps.contains(&Step::Copying { revision: present, behind: None }), "{steps:?}");
    assert_equal(&mut mirror, KEYS - 1).await;
    drop((sides, mirror));
    nodes.0.stop().await;
    nodes.1.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_changed_is_found_and_changed_back_whatever_the_destination_forgets() {
    let nodes = (Node::start().await, Node::start().await);
    let sides: Sides = (nodes.0.key_space(), nodes.1.key_space());
    put(&sides.0, (0..KEYS).map(|number| Op::put(name(number), "v")).collect()).await;
    let (mut mirror, _) = completed(&sides).await;
    assert_equal(&mut mirror, KEYS).await;
    let copy = |number: u64| name(number).replace("app", "copy");
    put(&sides.1, (0..KEYS).map(|number| Op::put(copy(number), "other")).collect()).await;
    let verified = mirror.verify().await.expect("both answer");
    assert_eq!(verified.differs, Some(copy(0).into()));
    // Another process goes on; what it reads of the destination is forgotten under it.
    drop(mirror);
    let mut mirror = self::mirror(&sides).await;
    let (steps, destination) = (Mutex::new(Vec::new()), Arc::clone(&sides.1));
    let mut on_step = |step| {
        if let Step::Compared { .. } = step {
            let forgotten = async {
                let present = destination.read(Revision::NONE, Vec::new()).await;
                let present = present.expect("it answers").current;
                destination.compact(present, true).await.expect("it compacts");
            };
            let handle = tokio::runtime::Handle::current();
            tokio::task::block_in_place(|| handle.block_on(forgotten));
        }
        steps.lock().expect("nobody panics").push(step);
    };
    mirror.run(false, &mut on_step).await.expect("both answer");
    let steps = steps.into_inner().expect("nobody panics");
    let copies = steps.iter().filter(|step| matches!(step, Step::Copying { .. })).count();
    assert_eq!(copies, 1, "{steps:?}");
    assert_equal(&mut mirror, KEYS).await;
    drop((sides, mirror));
    nodes.0.stop().await;
    nodes.1.stop().await;
}
