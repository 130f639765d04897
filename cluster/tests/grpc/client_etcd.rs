//! A real etcd as a key space: what it answers is what a node of revfs answers, but for what etcd does
//! not keep.

use std::sync::Arc;
use std::time::Duration;

use revfs_api::KeySpace;
use revfs_api::client::{Credentials, ETCD, Endpoints, Settings, connect, connect_with};
use revfs_api::keyspace::{
    Answer, ChangeKind, ChangesRequest, Compare, DirectoryAnswer, Error, Event, HistoryRequest,
    KeyRange, KeyValue, LeaseId, Op, OpAnswer, Origin, RangeRead, Read, Revision, RevisionEvents,
    Stamp, Time, Txn,
};

use crate::node::Node;
use crate::oracle::etcd::Etcd;
use crate::remote::{changes, of, reads};
use crate::scripted::quick;

async fn on(etcd: &Etcd) -> Arc<dyn KeySpace> {
    let endpoints = format!("http://{}", etcd.address()).parse().expect("an endpoint");
    connect(&endpoints).await.expect("etcd answers")
}

/// Without what etcd does not keep, or keeps otherwise: times, the content and birth that a move carries,
/// the life that a move over a key begins.
fn plain(kv: KeyValue) -> KeyValue {
    let KeyValue { key, value, value_bytes, mod_revision, lease, .. } = kv;
    KeyValue { key, value, value_bytes, mod_revision, lease, ..KeyValue::default() }
}

fn plain_directory(directory: DirectoryAnswer) -> DirectoryAnswer {
    DirectoryAnswer { names: directory.names.min(1), ..DirectoryAnswer::default() }
}

fn plain_answer(answer: Answer) -> Answer {
    match answer {
        Answer::Range(mut range) => {
            range.kvs = range.kvs.into_iter().map(plain).collect();
            Answer::Range(range)
        }
        Answer::List(mut list) => {
            for entry in &mut list.entries {
                entry.kv = entry.kv.take().map(plain);
                entry.directory = entry.directory.take().map(plain_directory);
            }
            Answer::List(list)
        }
        Answer::Directory(directory) => Answer::Directory(plain_directory(directory)),
    }
}

fn plain_event(event: Event) -> Event {
    Event { kind: event.kind, kv: plain(event.kv) }
}

/// The events of a revision have an order of their own in each store.
fn plain_revision(revision: RevisionEvents) -> RevisionEvents {
    let mut events: Vec<Event> = revision.events.into_iter().map(plain_event).collect();
    events.sort_by(|one, other| one.kv.key.cmp(&other.kv.key));
    let stamp = Stamp { revision: revision.stamp.revision, ..Stamp::default() };
    RevisionEvents { stamp, events }
}

fn all_changes() -> ChangesRequest {
    ChangesRequest {
        ranges: vec![KeyRange::From("".into())],
        from: Revision(1),
        to: Revision::NONE,
        newest_first: false,
        limit: 0,
        scan_limit: 0,
        keys_only: false,
    }
}

fn history(key: &'static str) -> HistoryRequest {
    HistoryRequest { key: key.into(), at_most: Revision::NONE, limit: 0, keys_only: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_etcd_answers_what_a_node_answers() {
    let (etcd, node) = (Etcd::start().await, Node::start().await);
    let (there, here) = (on(&etcd).await, node.key_space());
    let mut watch = there.watch(all_changes().ranges, Revision::NONE).await.unwrap();
    for txn in changes() {
        let (own, etcds) = (
            here.txn(txn.clone(), Origin::default()).await.unwrap(),
            there.txn(txn.clone(), Origin::default()).await.unwrap(),
        );
        assert_eq!(
            (etcds.succeeded, etcds.revision, etcds.changed, etcds.answers.len()),
            (own.succeeded, own.revision, own.changed, own.answers.len()),
            "{txn:?}"
        );
        for (own, etcds) in own.answers.iter().zip(&etcds.answers) {
            let moved = matches!((own, etcds), (OpAnswer::Range(_), OpAnswer::Range(_)));
            assert!(moved || own == etcds, "{own:?} {etcds:?}");
        }
    }
    for revision in (0..=9).map(Revision) {
        let (mut own, mut etcds) = (
            here.read(revision, reads()).await.unwrap(),
            there.read(revision, reads()).await.unwrap(),
        );
        for answer in [&mut own, &mut etcds] {
            answer.answers = answer.answers.drain(..).map(plain_answer).collect();
        }
        assert_eq!(etcds, own, "at {revision}");
    }
    let future = there.read(Revision(10), reads()).await.unwrap_err();
    assert_eq!(future.to_string(), "revision 10 is in the future: the current one is 9");
    let nothing = there.read(Revision::NONE, Vec::new()).await.unwrap();
    assert_eq!((nothing.revision, nothing.current), (Revision(9), Revision(9)));

    for (newest_first, limit) in [(false, 0), (true, 0), (true, 3), (false, 3)] {
        let request = ChangesRequest { newest_first, limit, ..all_changes() };
        let own = here.changes(request.clone()).await.unwrap();
        let etcds = there.changes(request).await.unwrap();
        assert_eq!(etcds.next, own.next, "{newest_first} {limit}");
        let plain = |revisions: Vec<RevisionEvents>| -> Vec<_> {
            revisions.into_iter().map(plain_revision).collect()
        };
        assert_eq!(plain(etcds.revisions), plain(own.revisions));
    }
    for key in ["/app/size", "/app/color", "/web/width", "/nothing"] {
        let versions = |versions: Vec<revfs_api::keyspace::Version>| -> Vec<Event> {
            versions.into_iter().map(|version| plain_event(version.event)).collect()
        };
        let own = versions(here.history(history(key)).await.unwrap());
        assert_eq!(versions(there.history(history(key)).await.unwrap()), own, "{key}");
    }
    let everything = there.changes(all_changes()).await.unwrap();
    for expected in everything.revisions {
        let next = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
        assert_eq!(next.expect("it comes").unwrap(), expected);
    }
    drop(watch);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_does_not_keep_is_refused_and_the_rest_is_told() {
    let etcd = Etcd::start().await;
    let keys = on(&etcd).await;
    let capabilities = keys.capabilities();
    assert!(!capabilities.stamps && !capabilities.bulk);
    let status = keys.status().await.unwrap();
    assert_eq!((status.backend.as_str(), status.revision), (ETCD, 1));
    assert_eq!(status.endpoint, format!("http://{}", etcd.address()));
    for refused in [
        keys.revision_at(Time(5)).await.map(drop),
        keys.stamp(Revision(1)).await.map(drop),
        keys.backup().await.map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
    }
    // Times tell the order at least.
    for value in ["1", "2"] {
        keys.txn(of(vec![Op::put("/a", value)]), Origin::default()).await.unwrap();
    }
    let answer = keys.read(Revision::NONE, vec![Read::key("/a")]).await.unwrap();
    let Some(Answer::Range(range)) = answer.answers.first() else { panic!("{answer:?}") };
    assert_eq!(range.kvs[0].time, Time(3_000_000_000));

    let hash = keys.hash_kv(Revision(2)).await.unwrap();
    assert_eq!((hash.revision, hash.compacted, hash.current), (Revision(2), None, Revision(3)));
    keys.compact(Revision(3), true).await.unwrap();
    let status = keys.status().await.unwrap();
    assert_eq!((status.revision, status.compacted_revision), (3, 3));
    let gone = keys.read(Revision(2), vec![Read::key("/a")]).await.unwrap_err();
    assert_eq!(gone.to_string(), "revision 2 is compacted: history begins at 3");
    // Some releases say it only when the watch is read.
    let gone = match keys.watch(all_changes().ranges, Revision(2)).await {
        Ok(mut watch) => watch.next().await.map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(gone, Err(Error::Compacted { compacted: Revision(3), .. })), "{gone:?}");
    let gone = keys.changes(all_changes()).await.unwrap_err();
    assert_eq!(gone.to_string(), "revision 1 is compacted: history begins at 3");
    assert_eq!(keys.history(history("/a")).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_worked_out_holds_only_for_what_it_was_worked_out_from() {
    let etcd = Etcd::start().await;
    let keys = on(&etcd).await;
    // Two append to one key: no byte is lost.
    let append = |text: &'static str| {
        let keys = Arc::clone(&keys);
        tokio::spawn(async move {
            for _ in 0..20 {
                let op = Op::Append { key: "/log".into(), value: text.into() };
                loop {
                    match keys.txn(of(vec![op.clone()]), Origin::default()).await {
                        Ok(_) => break,
                        Err(Error::Busy { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    };
    let (one, other) = (append("a"), append("b"));
    one.await.unwrap();
    other.await.unwrap();
    let answer = keys.read(Revision::NONE, vec![Read::key("/log")]).await.unwrap();
    let Some(Answer::Range(range)) = answer.answers.first() else { panic!("{answer:?}") };
    let log = &range.kvs[0].value;
    assert_eq!((log.len(), log.iter().filter(|&&byte| byte == b'a').count()), (40, 20));

    // A compare of the caller's is judged as ever.
    let txn = Txn {
        compares: vec![Compare::absent(KeyRange::Key("/log".into()))],
        success: vec![Op::MoveKey { from: "/log".into(), to: "/moved".into() }],
        failure: vec![Op::Range(RangeRead::new(KeyRange::Key("/log".into())))],
    };
    let answer = keys.txn(txn, Origin::default()).await.unwrap();
    assert!(!answer.succeeded && !answer.changed);
    assert!(matches!(&answer.answers[..], [OpAnswer::Range(range)] if range.count == 1));

    let mixed =
        of(vec![Op::put("/log", "new"), Op::MoveKey { from: "/log".into(), to: "/moved".into() }]);
    let refused = keys.txn(mixed, Origin::default()).await.unwrap_err();
    assert!(matches!(refused, Error::Unsupported(_)), "{refused:?}");
    let many = (0..200).map(|number| Op::put(format!("/many/{number:03}"), "x"));
    keys.txn(of(many.collect()), Origin::default()).await.unwrap();
    let moved = of(vec![Op::Move { from: "/many/".into(), to: "/few/".into() }]);
    let refused = keys.txn(moved, Origin::default()).await.unwrap_err();
    assert!(matches!(refused, Error::TooBig { unit: "operations", max: 128, .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_a_real_etcd_are_kept_and_their_keys_go_with_them() {
    let etcd = Etcd::start().await;
    let keys = on(&etcd).await;
    let (id, ttl) = keys.lease_grant(LeaseId(0), 60).await.unwrap();
    assert_eq!(ttl, 60);
    let mut watch = keys.watch(vec![KeyRange::Key("/l".into())], Revision::NONE).await.unwrap();
    let (prev_kv, ignore_value, ignore_lease) = (false, false, false);
    let (key, value) = ("/l".into(), "x".into());
    let put = Op::Put { key, value, lease: id, prev_kv, ignore_value, ignore_lease };
    keys.txn(of(vec![put]), Origin::default()).await.unwrap();
    assert_eq!(keys.lease_keep_alive(id).await.unwrap(), Some(60));
    assert_eq!(keys.lease_time_to_live(id, true).await.unwrap().unwrap().keys, ["/l"]);
    assert_eq!(keys.leases().await.unwrap(), [id]);
    keys.lease_revoke(id).await.unwrap();
    assert_eq!(keys.lease_keep_alive(id).await.unwrap(), None);
    let unknown = keys.lease_revoke(id).await.unwrap_err();
    assert_eq!(unknown.to_string(), "requested lease not found");
    for kind in [ChangeKind::Put, ChangeKind::Delete] {
        assert_eq!(watch.next().await.unwrap().events[0].kind, kind);
    }
}

async fn etcdctl(etcd: &Etcd, words: &str) {
    let mut command = tokio::process::Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", etcd.address()));
    let output = command.args(words.split(' ')).output().await.expect("etcdctl starts");
    assert!(output.status.success(), "{words}: {output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_logs_in_does_so_when_it_is_needed_and_again_when_a_token_ends() {
    let etcd = Etcd::start().await;
    let endpoints: Endpoints = etcd.address().parse().unwrap();
    let with = async |login: Option<(&str, &str)>| {
        let login = login.map(|(user, password)| Credentials {
            user: user.to_owned(),
            password: password.to_owned(),
        });
        connect_with(&endpoints, Settings { login, ..quick() }).await
    };
    let (named, nobody) =
        (with(Some(("root", "secret"))).await.unwrap(), with(None).await.unwrap());
    let change = async |keys: &Arc<dyn KeySpace>| {
        keys.txn(of(vec![Op::put("/a", "1")]), Origin::default()).await.map(drop)
    };
    // Nobody has to log in yet.
    change(&named).await.unwrap();
    for words in ["user add root:secret", "user grant-role root root", "auth enable"] {
        etcdctl(&etcd, words).await;
    }
    change(&named).await.unwrap();
    let refused = change(&nobody).await.unwrap_err();
    assert!(matches!(refused, Error::Denied { .. }), "{refused:?}");
    let mut watch = named.watch(all_changes().ranges, Revision::NONE).await.unwrap();
    // Ends all tokens.
    for words in ["--user root:secret auth disable", "auth enable"] {
        etcdctl(&etcd, words).await;
    }
    change(&named).await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
    assert_eq!(next.expect("it comes").unwrap().events[0].kv.key, "/a");
    let wrong = with(Some(("root", "wrong"))).await.map(drop).unwrap_err();
    assert!(matches!(wrong, Error::Denied { .. }), "{wrong:?}");
}
