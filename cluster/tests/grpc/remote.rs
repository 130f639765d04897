//! `Remote` on a real node says what the node says in its own process.

use revfs_api::client::Settings;
use revfs_api::keyspace::{
    ChangesRequest, Compare, Error, HistoryRequest, KeyRange, LeaseId, ListRead, Op, Origin,
    RangeRead, Read, Revision, Txn,
};

use crate::node::Node;
use crate::scripted::{quick, remote};

pub(crate) fn of(success: Vec<Op>) -> Txn {
    Txn { success, ..Txn::default() }
}

pub(crate) fn changes() -> Vec<Txn> {
    vec![
        of(vec![Op::put("/app/color", "red"), Op::put("/app/size", "7")]),
        of(vec![Op::Append { key: "/app/size".into(), value: "8".into() }]),
        Txn {
            compares: vec![Compare::absent(KeyRange::prefix(b"/web/"))],
            success: vec![Op::Move { from: "/app/".into(), to: "/web/".into() }],
            failure: vec![Op::delete("/app/size")],
        },
        of(vec![Op::MoveKey { from: "/web/size".into(), to: "/web/width".into() }]),
        of(vec![Op::Exchange { a: "/web/".into(), b: "/app/".into() }]),
        of(vec![Op::Exchange { a: "/app/".into(), b: "/web/".into() }]),
        of(vec![Op::Restore { range: KeyRange::prefix(b"/app/"), revision: Revision(2) }]),
        of(vec![Op::Range(RangeRead::new(KeyRange::From("/".into()))), Op::delete("/web/width")]),
        of(vec![Op::delete("/nothing")]),
    ]
}

pub(crate) fn reads() -> Vec<Read> {
    let list = |directory: &'static str| {
        Read::List(ListRead {
            directory: directory.into(),
            after: "".into(),
            limit: 0,
            with_values: true,
        })
    };
    let all = Read::Range(RangeRead::new(KeyRange::From("/".into())));
    vec![all, list("/"), list("/app/"), Read::Directory("/web/".into()), Read::key("/app/color")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_key_space_says_what_the_local_one_says() {
    let node = Node::start().await;
    let local = node.key_space();
    let remote = remote(node.socket(), quick()).await.unwrap();
    assert_eq!(remote.capabilities(), local.capabilities());
    let everything = || vec![KeyRange::From("/".into())];
    let mut watch = remote.watch(everything(), Revision::NONE).await.unwrap();

    let mut newest = Revision(1);
    for (number, txn) in changes().into_iter().enumerate() {
        let origin = Origin { claimed: "user@host".into(), note: "note".into() };
        let answer = remote.txn(txn, origin).await.unwrap();
        assert_eq!(answer.changed, number < 8, "{answer:?}");
        newest = answer.revision;
    }
    assert_eq!(newest, Revision(9));

    for revision in 0..=9 {
        let revision = Revision(revision);
        let (here, there) =
            (local.read(revision, reads()).await, remote.read(revision, reads()).await);
        assert_eq!(there.unwrap(), here.unwrap());
        if revision != Revision::NONE {
            let (here, there) = (local.stamp(revision).await, remote.stamp(revision).await);
            assert_eq!(format!("{there:?}"), format!("{here:?}"));
        }
    }
    let future = remote.read(Revision(10), reads()).await.unwrap_err();
    assert_eq!(future.to_string(), "revision 10 is in the future: the current one is 9");

    let history = HistoryRequest {
        key: "/app/size".into(),
        at_most: Revision::NONE,
        limit: 0,
        keys_only: false,
    };
    let (here, there) =
        (local.history(history.clone()).await.unwrap(), remote.history(history).await.unwrap());
    assert_eq!(there, here);
    assert_eq!(there.len(), 4, "put, append, moved away, restored");
    let request = ChangesRequest {
        ranges: everything(),
        from: Revision(2),
        to: Revision::NONE,
        newest_first: false,
        limit: 0,
        scan_limit: 0,
        keys_only: false,
    };
    let here = local.changes(request.clone()).await.unwrap();
    let there = remote.changes(request).await.unwrap();
    assert_eq!(there.revisions, here.revisions);
    assert_eq!(there.revisions.len(), 8);
    assert_eq!(there.revisions[0].stamp.author.claimed, "user@host");
    let time = there.revisions[3].stamp.time;
    assert_eq!(remote.revision_at(time).await.unwrap(), local.revision_at(time).await.unwrap());
    for expected in there.revisions {
        assert_eq!(watch.next().await.unwrap(), expected);
    }
    drop(watch);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_over_the_network_are_those_of_the_node() {
    let node = Node::start().await;
    let local = node.key_space();
    let remote = remote(node.socket(), quick()).await.unwrap();
    let (id, ttl) = remote.lease_grant(LeaseId(0), 60).await.unwrap();
    assert!(id.0 > 0 && ttl == 60);
    let put = Op::Put {
        key: "/k".into(),
        value: "1".into(),
        lease: id,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    };
    remote.txn(of(vec![put]), Origin::default()).await.unwrap();
    assert_eq!(remote.lease_keep_alive(id).await.unwrap(), Some(60));
    let found = remote.lease_time_to_live(id, true).await.unwrap().unwrap();
    assert_eq!((found.id, found.granted_seconds, found.keys), (id, 60, vec!["/k".into()]));
    let here = local.lease_time_to_live(id, false).await.unwrap().unwrap();
    assert!(here.keys.is_empty() && here.remaining_seconds >= 58, "{here:?}");
    assert_eq!(remote.leases().await.unwrap(), [id]);
    let exists = remote.lease_grant(id, 5).await.unwrap_err();
    assert_eq!(exists.to_string(), local.lease_grant(id, 5).await.unwrap_err().to_string());
    remote.lease_revoke(id).await.unwrap();
    assert_eq!(remote.lease_keep_alive(id).await.unwrap(), None);
    assert_eq!(remote.lease_time_to_live(id, true).await.unwrap(), None);
    let unknown = remote.lease_revoke(id).await.unwrap_err();
    assert_eq!(unknown.to_string(), "requested lease not found");
    assert_eq!(local.leases().await.unwrap(), []);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_larger_than_a_request_is_one_revision_all_the_same() {
    let node = Node::start().await;
    let (local, remote) =
        (node.key_space(), remote(node.socket(), Settings::default()).await.unwrap());
    let puts = |count: usize, bytes: usize| {
        let value = bytes::Bytes::from(vec![b'x'; bytes]);
        of((0..count).map(|number| Op::put(format!("/up/{number:06}"), value.clone())).collect())
    };
    let txn =
        Txn { compares: vec![Compare::absent(KeyRange::prefix(b"/up/"))], ..puts(20, 1 << 20) };
    let origin = Origin { claimed: "user@host".into(), note: "note".into() };
    let answer = remote.txn(txn.clone(), origin).await.unwrap();
    assert!(answer.succeeded && answer.revision == Revision(2) && answer.answers.len() == 20);
    let stamp = local.stamp(Revision(2)).await.unwrap();
    assert_eq!((&*stamp.author.claimed, &*stamp.note), ("user@host", &b"note"[..]));
    let read = || vec![Read::Range(RangeRead::new(KeyRange::prefix(b"/up/")))];
    let (own, there) =
        (local.read(Revision(2), read()).await.unwrap(), remote.read(Revision(2), read()).await);
    assert_eq!(own, there.unwrap());
    let again = remote.txn(txn, Origin::default()).await.unwrap();
    assert!(!again.succeeded && !again.changed);

    let error = remote.txn(puts(100_001, 200), Origin::default()).await.unwrap_err();
    assert!(matches!(&error, Error::TooBig { unit, .. } if *unit == "operations"), "{error}");
    let error = remote.txn(puts(513, 1 << 20), Origin::default()).await.unwrap_err();
    assert!(matches!(&error, Error::TooBig { unit, .. } if *unit == "bytes"), "{error}");
    assert_eq!(local.status().await.unwrap().revision, 2);
}
