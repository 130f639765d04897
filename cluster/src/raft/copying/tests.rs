//! The receiving side against a sender that stops, goes on, and lies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use openraft::impls::BasicNode;
use revfs_api::wire::peer as pb;
use revfs_api::wire::peer::snapshot_request::Part;
use revfs_api::wire::peer::snapshot_response::Step;
use revfs_store::types::{Author, Op, Time, Txn};
use revfs_store::{BackupOptions, Body, Command, Store, StoreOptions};
use tempfile::TempDir;
use tonic::{Code, Status};

use super::super::payload::{from_log_id, to_position};
use super::super::type_config::{Membership, RaftVote, StoredMembership};
use super::super::wire;
use crate::log::{LogId, LogOptions};
use crate::{Founders, Founding, Node, NodeConfig};

const LEADER: u64 = 77;
const TERM: u64 = 5;
const ENTRIES: u64 = 400;
const PIECE: usize = 10_000;

fn options() -> StoreOptions {
    StoreOptions { map_bytes: 1 << 30, ..StoreOptions::default() }
}

/// A member that is told of others which do not exist: it never leads.
async fn lone_member() -> (TempDir, Node) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = NodeConfig::new(directory.path().join("data"));
    config.ballast_bytes = 1 << 20;
    config.disk_free_min_bytes = 1 << 20;
    config.log = LogOptions { segment_bytes: 256 << 10, ..LogOptions::default() };
    config.store = options();
    let url = |port: u16| vec![format!("http://127.0.0.1:{port}")];
    let members = vec![url(1), url(2), url(3)];
    config.founding = Founding::Together(Founders { token: "test".to_owned(), members, own: 0 });
    let node = Node::start(config).await.unwrap();
    (directory, node)
}

/// A leader's copy, with the member in its membership.
fn copy(member: u64) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(&directory.path().join("store"), options()).unwrap();
    let node = |id: u64| (id, BasicNode::new(format!("http://127.0.0.1:{}", id % 1_000)));
    let nodes: BTreeMap<u64, BasicNode> = [node(LEADER), node(member)].into();
    let voters = BTreeSet::from([LEADER, member]);
    let membership = Membership::new(vec![voters], nodes).unwrap();
    let id = |index| from_log_id(LogId { term: TERM, index });
    let membership = StoredMembership::new(Some(id(0)), membership);
    store.advance(to_position(id(0), &membership)).unwrap();
    for index in 1..=ENTRIES {
        let success = vec![Op::put(format!("/k/{index}"), vec![b'v'; 500])];
        let body = Body::Txn(Txn { success, ..Txn::default() });
        let command = Command { time: Time(1), author: Author::default(), note: "".into(), body };
        store.apply(to_position(id(index), &membership), &command).unwrap();
    }
    let path = directory.path().join("copy");
    let mut file = fs::File::options();
    let mut file = file.read(true).write(true).create_new(true).open(&path).unwrap();
    let quick = BackupOptions { pause: Duration::ZERO, ..BackupOptions::default() };
    store.backup(&mut file, &quick, &mut |_| ControlFlow::Continue(())).unwrap();
    fs::read(path).unwrap()
}

fn ballot(term: u64) -> pb::Ballot {
    wire::ballot(RaftVote::new_committed(term, LEADER))
}

fn offer(copy: &[u8], term: u64) -> Part {
    // The digest stands before the foot.
    let end = copy.len() - 16;
    Part::Offer(pb::CopyOffer {
        ballot: Some(ballot(term)),
        last: Some(pb::LogId { term: TERM, index: ENTRIES }),
        bytes: u64::try_from(copy.len()).unwrap(),
        sha256: Bytes::copy_from_slice(&copy[end - 32..end]),
    })
}

fn pieces(copy: &[u8], from: usize) -> impl Iterator<Item = Part> {
    copy[from..].chunks(PIECE).enumerate().map(move |(number, data)| {
        Part::Piece(pb::CopyPiece {
            offset: u64::try_from(from + number * PIECE).unwrap(),
            data: Bytes::copy_from_slice(data),
            checksum: crc32c::crc32c(data),
        })
    })
}

/// What the member answers to a stream of these.
async fn send(node: &Node, parts: Vec<Part>) -> Vec<Result<Step, Status>> {
    let requests = parts.into_iter().map(|part| Ok(pb::SnapshotRequest { part: Some(part) }));
    let raft = &node.key_space.node.proposer.raft;
    let answers = raft.receive_copy(LEADER, stream::iter(requests));
    answers.map(|answer| answer.map(|answer| answer.step.unwrap())).collect().await
}

fn code(answer: &Result<Step, Status>) -> Code {
    answer.as_ref().unwrap_err().code()
}

fn applied(node: &Node) -> u64 {
    node.key_space.node.store.applied().index
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_on_where_a_broken_connection_left_it() {
    let (_directory, node) = lone_member().await;
    let copy = copy(node.member_id());
    let mut parts = vec![offer(&copy, TERM)];
    parts.extend(pieces(&copy, 0).take(3));
    let answers = send(&node, parts).await;
    assert_eq!(answers[0].as_ref().unwrap(), &Step::WantedFrom(0));
    assert_eq!(code(&answers[1]), Code::Cancelled);
    // The same copy goes on, also after an offer that nothing followed.
    let begun = u64::try_from(3 * PIECE).unwrap();
    let answers = send(&node, vec![offer(&copy, TERM)]).await;
    assert_eq!(answers[0].as_ref().unwrap(), &Step::WantedFrom(begun));
    let mut parts = vec![offer(&copy, TERM)];
    parts.extend(pieces(&copy, 3 * PIECE));
    let answers = send(&node, parts).await;
    assert_eq!(answers[0].as_ref().unwrap(), &Step::WantedFrom(begun));
    assert_eq!(answers[1].as_ref().unwrap(), &Step::End(ballot(TERM)));
    assert_eq!(applied(&node), ENTRIES);
    // Whoever has it all wants no piece.
    let answers = send(&node, vec![offer(&copy, TERM)]).await;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].as_ref().unwrap(), &Step::End(ballot(TERM)));
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_copy_begins_anew_and_a_damaged_one_is_not_taken() {
    let (_directory, node) = lone_member().await;
    let copy = copy(node.member_id());
    let mut parts = vec![offer(&copy, TERM)];
    parts.extend(pieces(&copy, 0).take(3));
    send(&node, parts).await;
    // Whole pieces of a copy that is damaged itself.
    let mut damaged = copy.clone();
    damaged[5_000] ^= 1;
    let end = damaged.len() - 17;
    damaged[end] ^= 1;
    let mut parts = vec![offer(&damaged, TERM)];
    parts.extend(pieces(&damaged, 0));
    let answers = send(&node, parts).await;
    assert_eq!(answers[0].as_ref().unwrap(), &Step::WantedFrom(0));
    assert_eq!(code(&answers[1]), Code::DataLoss);
    // A piece that is damaged on its way.
    let mut parts = vec![offer(&copy, TERM)];
    parts.extend(pieces(&copy, 0));
    let Part::Piece(piece) = &mut parts[2] else { panic!("a piece follows the offer") };
    piece.checksum ^= 1;
    let answers = send(&node, parts).await;
    assert_eq!(code(&answers[1]), Code::DataLoss);
    // One that is missing.
    let mut parts = vec![offer(&copy, TERM)];
    parts.extend(pieces(&copy, 2 * PIECE));
    let answers = send(&node, parts).await;
    assert_eq!(answers[0].as_ref().unwrap(), &Step::WantedFrom(u64::try_from(PIECE).unwrap()));
    assert_eq!(code(&answers[1]), Code::DataLoss);
    assert_eq!(applied(&node), 0);
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_and_a_copy_too_large_for_the_disk_are_told_so_at_once() {
    let (_directory, node) = lone_member().await;
    let copy = copy(node.member_id());
    let mut parts = vec![offer(&copy, TERM)];
    parts.extend(pieces(&copy, 0));
    send(&node, parts).await;
    let answers = send(&node, vec![offer(&copy, TERM - 1)]).await;
    assert_eq!(answers[0].as_ref().unwrap(), &Step::End(ballot(TERM)));
    let Part::Offer(mut large) = offer(&copy, TERM + 1) else { panic!("it is an offer") };
    large.last = Some(pb::LogId { term: TERM + 1, index: ENTRIES + 1 });
    large.bytes = u64::MAX;
    let answers = send(&node, vec![Part::Offer(large)]).await;
    assert_eq!(code(&answers[0]), Code::ResourceExhausted);
    let answers = send(&node, vec![Part::Piece(pb::CopyPiece::default())]).await;
    assert_eq!(code(&answers[0]), Code::InvalidArgument);
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}
