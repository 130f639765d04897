//! Every message between members, and for those of replication what they mean to it.

use std::fmt::Debug;

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use prost::Message;
use revfs_api::wire::peer as pb;

use super::super::payload::from_log_id;
use super::super::type_config::{RaftEntry, RaftLogId, RaftVote, TypeConfig};
use super::super::wire;
use super::{EntryPayload, Kept};
use crate::log::LogId;

pub(super) fn check(kept: &mut Kept) {
    appends(kept);
    votes(kept);
    introductions(kept);
    copies(kept);
    proposals(kept);
    questions(kept);
}

fn id(term: u64, index: u64) -> RaftLogId {
    from_log_id(LogId { term, index })
}

fn message<M: Message + Default + Debug>(kept: &mut Kept, name: &str, message: &M) {
    kept.check(name, message, M::encode_to_vec, |bytes| M::decode(bytes).unwrap());
}

/// A message as replication has it, by its way to the wire and back.
fn meant<T: Debug + Clone, M: Message + Default>(
    kept: &mut Kept,
    name: &str,
    value: &T,
    to: impl Fn(T) -> M,
    from: impl Fn(M) -> T,
) {
    let encode = |value: &T| to(value.clone()).encode_to_vec();
    kept.check(name, value, encode, |bytes| from(M::decode(bytes).unwrap()));
}

fn appends(kept: &mut Kept) {
    let append = AppendEntriesRequest::<TypeConfig> {
        vote: RaftVote::new_committed(4, 9),
        prev_log_id: Some(id(3, 6)),
        entries: vec![
            RaftEntry { log_id: id(3, 7), payload: EntryPayload::Blank },
            RaftEntry { log_id: id(4, 8), payload: EntryPayload::Membership(super::members()) },
        ],
        leader_commit: Some(id(2, 5)),
    };
    meant(kept, "append-request", &append, wire::append, |sent| wire::from_append(sent).unwrap());
    let ends: [(&str, StreamAppendResult<TypeConfig>); 4] = [
        ("append-nothing", Ok(None)),
        ("append-matching", Ok(Some(id(4, 9)))),
        ("append-conflict", Err(StreamAppendError::Conflict(id(3, 6)))),
        ("append-higher", Err(StreamAppendError::HigherVote(RaftVote::new(5, 1)))),
    ];
    for (name, end) in ends {
        meant(kept, name, &end, wire::appended, |sent| wire::from_appended(sent).unwrap());
    }
}

fn votes(kept: &mut Kept) {
    let mut ask = VoteRequest::<TypeConfig>::new(RaftVote::new(4, 9), Some(id(3, 6)));
    ask.leadership_transfer = true;
    for (name, is_pre_vote) in [("vote-request", false), ("pre-vote-request", true)] {
        let to = |ask| wire::vote(ask, is_pre_vote);
        meant(kept, name, &ask, to, |sent: pb::VoteRequest| {
            assert_eq!(sent.is_pre_vote, is_pre_vote);
            wire::from_vote(&sent).unwrap()
        });
    }
    let given = VoteResponse::<TypeConfig>::new(RaftVote::new(4, 9), Some(id(3, 6)), true);
    meant(
        kept,
        "vote-response",
        &given,
        |given| wire::voted(&given),
        |sent| wire::from_voted(sent).unwrap(),
    );
    let transfer =
        TransferLeaderRequest::<TypeConfig>::new(RaftVote::new_committed(4, 9), 8, Some(id(3, 6)));
    meant(
        kept,
        "transfer-request",
        &transfer,
        |asked| wire::transfer(&asked),
        |sent| wire::from_transfer(sent).unwrap(),
    );
    let refusal = "busy".to_owned();
    message(kept, "transfer-response", &pb::TransferLeaderResponse { refusal });
}

/// Sixteen bytes that are all different.
fn instance(first: u8) -> Bytes {
    (first..first + 16).collect::<Vec<u8>>().into()
}

fn introductions(kept: &mut Kept) {
    let caller = pb::Caller {
        protocol: 1,
        cluster: 2,
        from: 3,
        from_instance: instance(0x10),
        to: 4,
        to_instance: instance(0x30),
    };
    message(kept, "caller", &caller);
    let peer_urls = vec!["http://10.0.0.1:2380".to_owned(), "http://10.0.0.2:2380".to_owned()];
    message(kept, "introduce-request", &pb::IntroduceRequest { peer_urls });
    let introduction = pb::IntroduceResponse {
        cluster: 1,
        member: 2,
        instance: instance(0x50),
        version: "0.1.0".to_owned(),
        is_initialised: true,
        cluster_version: 6,
        invited: 7,
        lives: 8,
        is_removed: true,
        needed_version: 10,
    };
    message(kept, "introduce-response", &introduction);
}

fn copies(kept: &mut Kept) {
    use pb::snapshot_request::Part;
    use pb::snapshot_response::Step;
    let ballot = pb::Ballot { term: 1, member: 2, is_committed: true };
    let offer = pb::CopyOffer {
        ballot: Some(ballot),
        last: Some(pb::LogId { term: 3, index: 4 }),
        bytes: 5,
        sha256: Bytes::from_static(b"digest"),
    };
    let piece = pb::CopyPiece { offset: 1, data: Bytes::from_static(b"data"), checksum: 3 };
    for (name, part) in [("copy-offer", Part::Offer(offer)), ("copy-piece", Part::Piece(piece))] {
        message(kept, name, &pb::SnapshotRequest { part: Some(part) });
    }
    for (name, step) in [("copy-wanted", Step::WantedFrom(7)), ("copy-end", Step::End(ballot))] {
        message(kept, name, &pb::SnapshotResponse { step: Some(step) });
    }
}

fn proposals(kept: &mut Kept) {
    use pb::proposal_end::End;
    let proposal = pb::Proposal { number: 1, command: Bytes::from_static(b"command") };
    message(kept, "propose-request", &pb::ProposeRequest { proposals: vec![proposal] });
    let ends = [
        End::Applied(pb::LogId { term: 2, index: 3 }),
        End::NotLeader(4),
        End::Unknown("unknown".to_owned()),
        End::Refused("refused".to_owned()),
    ];
    let end = |end| pb::ProposalEnd { number: 1, end: Some(end) };
    message(kept, "propose-response", &pb::ProposeResponse { ends: ends.map(end).into() });
}

fn questions(kept: &mut Kept) {
    use pb::lease_request::Ask;
    message(kept, "read-index-request", &pb::ReadIndexRequest {});
    let read = Some(pb::LogId { term: 1, index: 2 });
    message(kept, "read-index-response", &pb::ReadIndexResponse { read });
    message(kept, "members-request", &pb::MembersRequest {});
    let seen = pb::SeenMember {
        member: 1,
        is_there: true,
        keeps_up: true,
        waits_for: "the log".to_owned(),
        behind: Some(0),
    };
    message(kept, "members-response", &pb::MembersResponse { members: vec![seen] });
    message(kept, "hash-request", &pb::HashRequest { index: 1 });
    let hash = pb::HashResponse {
        refusal: "not yet".to_owned(),
        term: 2,
        revision: 3,
        compacted: 4,
        kv_hash: 5,
        own_hash: 6,
    };
    message(kept, "hash-response", &hash);
    let asks = [
        ("lease-keep-alive", Ask::KeepAlive(-1)),
        ("lease-time-to-live", Ask::TimeToLive(2)),
        ("lease-all", Ask::All(pb::AllLeases {})),
    ];
    for (name, ask) in asks {
        message(kept, name, &pb::LeaseRequest { ask: Some(ask) });
    }
    let lease = pb::LeaseResponse {
        is_found: true,
        granted_seconds: 2,
        remaining_seconds: 3,
        leases: vec![4, -5],
    };
    message(kept, "lease-response", &lease);
}
