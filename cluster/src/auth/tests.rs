//! What a `Local` refuses on behalf of users, on a real node.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{
    ChangesRequest, Error, HistoryRequest, KeyRange, LeaseId, ListRead, Op, Origin, RangeRead,
    Read, Result, Revision, Txn,
};
use revfs_store::{Access, AuthChange, Body, Done, Permission, StoreOptions, TokenSecret};

use super::Caller;
use crate::local::Local;
use crate::log::LogOptions;
use crate::{Node, NodeConfig};

async fn start(directory: &Path) -> Node {
    let mut config = NodeConfig::new(directory.join("data"));
    config.ballast_bytes = 0;
    config.log = LogOptions { segment_bytes: 256 << 10, ..LogOptions::default() };
    config.store = StoreOptions { map_bytes: 1 << 30, ..StoreOptions::default() };
    Node::start(config).await.unwrap()
}

async fn change(local: &Local, change: AuthChange) {
    let outcome = local.propose(Origin::default(), Body::Auth(change)).await.unwrap();
    assert!(matches!(outcome.result, Ok(Done::AuthSet { .. })), "{outcome:?}");
}

async fn grant(local: &Local, user: &str, (key, range_end): (&str, &str), access: Access) {
    let (user, role) = (user.to_owned(), format!("{user}'s"));
    let (key, range_end) = (key.to_owned().into(), range_end.to_owned().into());
    change(local, AuthChange::UserAdd { name: user.clone(), password: None }).await;
    change(local, AuthChange::RoleAdd { name: role.clone() }).await;
    let permission = Permission { key, range_end, access };
    change(local, AuthChange::RoleGrantPermission { name: role.clone(), permission }).await;
    change(local, AuthChange::UserGrantRole { name: user, role }).await;
}

/// The user `reader` may read `/a/`, `writer` may write it; authentication is enabled.
async fn prepare(local: &Local) {
    let root = || "root".to_owned();
    change(local, AuthChange::UserAdd { name: root(), password: None }).await;
    change(local, AuthChange::UserGrantRole { name: root(), role: root() }).await;
    grant(local, "reader", ("/a/", "/a0"), Access::Read).await;
    grant(local, "writer", ("/a/", "/a0"), Access::Write).await;
    change(local, AuthChange::Enable { token_secret: TokenSecret([5; 32]) }).await;
}

fn user(local: &Local, name: &str) -> Local {
    local.on_behalf_of(local.user(&Arc::from(name)))
}

fn put(keys: &[&'static str]) -> Txn {
    let success = keys.iter().map(|key| Op::put(*key, "v")).collect();
    Txn { success, ..Txn::default() }
}

async fn write(local: &Local, txn: Txn) -> Result<Revision> {
    let origin = Origin { claimed: "c".to_owned(), note: Bytes::from_static(b"tells") };
    local.txn(txn, origin).await.map(|answer| answer.revision)
}

fn said<T>(answer: Result<T>) -> String {
    answer.map(drop).unwrap_err().to_string()
}

fn denied<T>(what: &str, answer: Result<T>) {
    let error = answer.map(drop).unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{what}: {error:?}");
}

fn range(range: KeyRange) -> Vec<Read> {
    vec![Read::Range(RangeRead::new(range))]
}

fn changes(of: KeyRange) -> ChangesRequest {
    ChangesRequest {
        ranges: vec![of],
        from: Revision(2),
        to: Revision::NONE,
        newest_first: false,
        limit: 0,
        scan_limit: 0,
        keys_only: false,
    }
}

fn history(key: &'static str) -> HistoryRequest {
    let key = Bytes::from_static(key.as_bytes());
    HistoryRequest { key, at_most: Revision::NONE, limit: 0, keys_only: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_may_nothing_once_authentication_is_enabled() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let own = node.local();
    let nobody = own.on_behalf_of(Caller::Anonymous);
    write(&nobody, put(&["/k"])).await.unwrap();
    prepare(&own).await;
    write(&own, put(&["/k"])).await.unwrap();
    let empty = "user name is empty";
    assert_eq!(said(write(&nobody, put(&["/k"])).await), empty);
    assert_eq!(said(nobody.read(Revision::NONE, Vec::new()).await), empty);
    assert_eq!(said(nobody.read(Revision::NONE, vec![Read::key("/k")]).await), empty);
    assert_eq!(said(nobody.watch(Vec::new(), Revision::NONE).await), empty);
    assert_eq!(said(nobody.revision_at(revfs_api::keyspace::Time(i64::MAX)).await), empty);
    assert_eq!(said(nobody.lease_grant(LeaseId(0), 60).await), empty);
    assert_eq!(said(nobody.leases().await), empty);
    assert_eq!(said(nobody.lease_time_to_live(LeaseId(1), false).await), empty);
    assert_eq!(said(nobody.stamp(Revision(2)).await), empty);
    assert_eq!(said(nobody.status().await), empty);
    assert_eq!(said(nobody.changes(changes(KeyRange::Key("/k".into()))).await), empty);
    denied("a user that does not exist", write(&user(&own, "other"), put(&["/k"])).await);
    let Caller::User { name, auth_revision } = own.user(&Arc::from("root")) else { panic!() };
    let stale = Caller::User { name, auth_revision: auth_revision - 1 };
    let stale = own.on_behalf_of(stale);
    let old = "revision of auth store is old";
    assert_eq!(said(write(&stale, put(&["/k"])).await), old);
    assert_eq!(said(stale.read(Revision::NONE, vec![Read::key("/k")]).await), old);
    drop((own, nobody, stale));
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_reads_and_writes_what_it_may_and_nothing_beside() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let own = node.local();
    let at = write(&own, put(&["/a/k", "/b/k"])).await.unwrap();
    prepare(&own).await;
    let (reader, writer) = (user(&own, "reader"), user(&own, "writer"));
    let mine = || KeyRange::prefix(b"/a/");

    reader.read(Revision::NONE, range(mine())).await.unwrap();
    for other in
        [KeyRange::Key("/b/k".into()), KeyRange::prefix(b"/"), KeyRange::From("/a/".into())]
    {
        denied("a range", reader.read(Revision::NONE, range(other.clone())).await);
        denied("a range of the past", reader.read(at, range(other.clone())).await);
        denied("changes", reader.changes(changes(other.clone())).await);
        denied("a watch", reader.watch(vec![mine(), other], Revision::NONE).await);
    }
    let list = |directory: &'static str| {
        let (directory, after) = (Bytes::from_static(directory.as_bytes()), Bytes::new());
        vec![Read::List(ListRead { directory, after, limit: 0, with_values: false })]
    };
    reader.read(Revision::NONE, list("/a/")).await.unwrap();
    denied("a list", reader.read(Revision::NONE, list("/")).await);
    let directory_of =
        |name: &'static str| vec![Read::Directory(Bytes::from_static(name.as_bytes()))];
    denied("a directory", reader.read(Revision::NONE, directory_of("/b/")).await);
    denied("a history", reader.history(history("/b/k")).await);
    denied("what a writer may not read", writer.read(Revision::NONE, range(mine())).await);

    // A revision's note tells of all that it did, its author of who did it.
    let told = reader.history(history("/a/k")).await.unwrap();
    assert_eq!((&told[0].stamp.note[..], &told[0].stamp.author.claimed[..]), (&b""[..], "c"));
    let told = reader.changes(changes(mine())).await.unwrap();
    assert_eq!(told.revisions[0].stamp.note, "");
    let stamp = reader.stamp(at).await.unwrap();
    assert_eq!((&stamp.note[..], &stamp.author.claimed[..]), (&b""[..], ""));
    assert_eq!(own.stamp(at).await.unwrap().note, "tells");

    let made = write(&writer, put(&["/a/k"])).await.unwrap();
    assert_eq!(own.stamp(made).await.unwrap().author.principal, "writer");
    denied("a put", write(&writer, put(&["/a/k", "/b/k"])).await);
    denied("a reader's put", write(&reader, put(&["/a/k"])).await);
    let nested = Op::Txn(Txn { failure: vec![Op::delete("/b/k")], ..Txn::default() });
    denied("a nested one", write(&writer, Txn { success: vec![nested], ..Txn::default() }).await);
    drop((own, reader, writer));
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_the_whole_store_is_for_root() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let own = node.local();
    let at = write(&own, put(&["/a/k"])).await.unwrap();
    prepare(&own).await;
    let (reader, root) = (user(&own, "reader"), user(&own, "root"));
    denied("a compaction", reader.compact(at, false).await);
    denied("a hash", reader.hash_kv(Revision::NONE).await);
    denied("a backup", reader.backup().await.map(drop));
    let outcome = reader.propose(Origin::default(), Body::Auth(AuthChange::Disable)).await.unwrap();
    assert!(outcome.result.is_err());
    assert_eq!(reader.status().await.unwrap().data_dir, "");
    assert_ne!(root.status().await.unwrap().data_dir, "");
    root.hash_kv(Revision::NONE).await.unwrap();
    drop(root.backup().await.unwrap());
    root.compact(at, false).await.unwrap();
    drop((own, reader, root));
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_needs_the_permissions_of_its_keys() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let own = node.local();
    prepare(&own).await;
    let (reader, writer) = (user(&own, "reader"), user(&own, "writer"));
    let (lease, _) = reader.lease_grant(LeaseId(0), 600).await.unwrap();
    let leased = |key: &'static str| Op::Put {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::new(),
        lease,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    };
    let one = |op| Txn { success: vec![op], ..Txn::default() };
    write(&writer, one(leased("/a/k"))).await.unwrap();
    reader.lease_time_to_live(lease, true).await.unwrap();
    reader.leases().await.unwrap();
    denied("a renewal", reader.lease_keep_alive(lease).await);
    denied("a revocation", reader.lease_revoke(lease).await);
    denied("the keys", writer.lease_time_to_live(lease, true).await);
    denied("the list", writer.leases().await);
    writer.lease_time_to_live(lease, false).await.unwrap();
    assert!(writer.lease_keep_alive(lease).await.unwrap().is_some());
    write(&own, one(leased("/b/k"))).await.unwrap();
    denied("a lease with another's key", write(&writer, one(leased("/a/l"))).await);
    denied("its end", writer.lease_revoke(lease).await);
    denied("its keys", reader.lease_time_to_live(lease, true).await);
    drop((own, reader, writer));
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_when_its_user_may_not_read_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let own = node.local();
    prepare(&own).await;
    let reader = user(&own, "reader");
    let mut watch = reader.watch(vec![KeyRange::prefix(b"/a/")], Revision::NONE).await.unwrap();
    let at = write(&own, put(&["/a/k"])).await.unwrap();
    let first = watch.next().await.unwrap();
    assert_eq!((first.stamp.revision, &first.stamp.note[..]), (at, &b""[..]));

    // Another change of users leaves it alone.
    change(&own, AuthChange::RoleAdd { name: "new".to_owned() }).await;
    let at = write(&own, put(&["/a/k"])).await.unwrap();
    assert_eq!(watch.next().await.unwrap().stamp.revision, at);

    let (name, key, range_end) = ("reader's".to_owned(), "/a/".into(), "/a0".into());
    change(&own, AuthChange::RoleRevokePermission { name, key, range_end }).await;
    denied("an idle watch", watch.next().await);
    drop((own, reader, watch));
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_nobody_ends_when_authentication_is_enabled() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let own = node.local();
    let nobody = own.on_behalf_of(Caller::Anonymous);
    let mut watch = nobody.watch(vec![KeyRange::prefix(b"/")], Revision::NONE).await.unwrap();
    write(&own, put(&["/a/k"])).await.unwrap();
    prepare(&own).await;
    // What waits to be shown is not shown either.
    assert_eq!(said(watch.next().await), "user name is empty");
    drop((own, nobody, watch));
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}
