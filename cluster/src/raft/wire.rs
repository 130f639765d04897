//! openraft's messages as those of revfs.peer.v1, and back.

use std::io;

use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use revfs_api::wire::peer as pb;

use super::payload::{from_log_entry, from_log_id, to_log_entry, to_log_id};
use super::type_config::{RaftEntry, RaftLogId, RaftVote, TypeConfig};
use crate::log;

type Decoded<T> = io::Result<T>;

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

pub(super) fn log_id(id: RaftLogId) -> pb::LogId {
    let id = to_log_id(id);
    pb::LogId { term: id.term, index: id.index }
}

pub(super) fn from_pb_log_id(id: pb::LogId) -> RaftLogId {
    from_log_id(log::LogId { term: id.term, index: id.index })
}

pub(super) fn ballot(vote: RaftVote) -> pb::Ballot {
    pb::Ballot {
        term: vote.leader_id.term,
        member: vote.leader_id.voted_for,
        is_committed: vote.committed,
    }
}

pub(super) fn from_ballot(ballot: Option<pb::Ballot>) -> Decoded<RaftVote> {
    let pb::Ballot { term, member, is_committed } =
        ballot.ok_or_else(|| invalid("there is no ballot"))?;
    let vote = if is_committed {
        RaftVote::new_committed(term, member)
    } else {
        RaftVote::new(term, member)
    };
    Ok(vote)
}

fn entry(entry: RaftEntry) -> pb::Entry {
    let log::Entry { id, kind, payload } = to_log_entry(entry);
    let id = Some(pb::LogId { term: id.term, index: id.index });
    pb::Entry { id, kind: u32::from(kind), payload }
}

fn from_entry(entry: pb::Entry) -> Decoded<RaftEntry> {
    let pb::Entry { id, kind, payload } = entry;
    let id = id.ok_or_else(|| invalid("an entry has no id"))?;
    let id = log::LogId { term: id.term, index: id.index };
    let kind = u8::try_from(kind).map_err(|_| invalid(format!("{id} is of kind {kind}")))?;
    from_log_entry(log::Entry { id, kind, payload })
}

pub(super) fn append(request: AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        ballot: Some(ballot(request.vote)),
        previous: request.prev_log_id.map(log_id),
        entries: request.entries.into_iter().map(entry).collect(),
        committed: request.leader_commit.map(log_id),
    }
}

pub(super) fn from_append(request: pb::AppendRequest) -> Decoded<AppendEntriesRequest<TypeConfig>> {
    Ok(AppendEntriesRequest {
        vote: from_ballot(request.ballot)?,
        prev_log_id: request.previous.map(from_pb_log_id),
        entries: request.entries.into_iter().map(from_entry).collect::<Decoded<_>>()?,
        leader_commit: request.committed.map(from_pb_log_id),
    })
}

pub(super) fn appended(result: StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Result as End;
    let end = match result {
        Ok(last) => End::Matching(pb::Matching { last: last.map(log_id) }),
        Err(StreamAppendError::Conflict(at)) => End::Conflict(log_id(at)),
        Err(StreamAppendError::HigherVote(vote)) => End::Higher(ballot(vote)),
    };
    pb::AppendResponse { result: Some(end) }
}

pub(super) fn from_appended(
    response: pb::AppendResponse,
) -> Decoded<StreamAppendResult<TypeConfig>> {
    use pb::append_response::Result as End;
    match response.result.ok_or_else(|| invalid("an answer to an append is empty"))? {
        End::Matching(pb::Matching { last }) => Ok(Ok(last.map(from_pb_log_id))),
        End::Conflict(at) => Ok(Err(StreamAppendError::Conflict(from_pb_log_id(at)))),
        End::Higher(vote) => Ok(Err(StreamAppendError::HigherVote(from_ballot(Some(vote))?))),
    }
}

pub(super) fn vote(request: VoteRequest<TypeConfig>, is_pre_vote: bool) -> pb::VoteRequest {
    pb::VoteRequest {
        ballot: Some(ballot(request.vote)),
        last: request.last_log_id.map(log_id),
        is_pre_vote,
        is_transfer: request.leadership_transfer,
    }
}

pub(super) fn from_vote(request: &pb::VoteRequest) -> Decoded<VoteRequest<TypeConfig>> {
    let last = request.last.map(from_pb_log_id);
    let mut vote = VoteRequest::new(from_ballot(request.ballot)?, last);
    vote.leadership_transfer = request.is_transfer;
    Ok(vote)
}

pub(super) fn voted(response: &VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse {
        ballot: Some(ballot(response.vote)),
        is_granted: response.vote_granted,
        last: response.last_log_id.map(log_id),
    }
}

pub(super) fn from_voted(response: pb::VoteResponse) -> Decoded<VoteResponse<TypeConfig>> {
    let last = response.last.map(from_pb_log_id);
    Ok(VoteResponse::new(from_ballot(response.ballot)?, last, response.is_granted))
}

pub(super) fn transfer(request: &TransferLeaderRequest<TypeConfig>) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        leader: Some(ballot(*request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().copied().map(log_id),
    }
}

pub(super) fn from_transfer(
    request: pb::TransferLeaderRequest,
) -> Decoded<TransferLeaderRequest<TypeConfig>> {
    let last = request.last.map(from_pb_log_id);
    Ok(TransferLeaderRequest::new(from_ballot(request.leader)?, request.to, last))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use bytes::Bytes;
    use openraft::EntryPayload;
    use openraft::raft::{AppendEntriesRequest, StreamAppendError, VoteRequest, VoteResponse};
    use revfs_api::wire::peer as pb;

    use super::super::type_config::{CommittedLeaderId, EncodedCommand};
    use super::{RaftEntry, RaftLogId, RaftVote};

    fn id(term: u64, index: u64) -> RaftLogId {
        RaftLogId::new(CommittedLeaderId::new(term), index)
    }

    #[test]
    fn appends_and_their_answers_survive_the_wire() {
        let command = |forwarded| {
            EntryPayload::Normal(EncodedCommand { forwarded, bytes: Bytes::from_static(b"abc") })
        };
        let request = AppendEntriesRequest {
            vote: RaftVote::new_committed(4, 9),
            prev_log_id: Some(id(3, 6)),
            entries: vec![
                RaftEntry { log_id: id(3, 7), payload: EntryPayload::Blank },
                RaftEntry { log_id: id(4, 8), payload: command(None) },
                RaftEntry { log_id: id(4, 9), payload: command(NonZeroU64::new(5)) },
            ],
            leader_commit: Some(id(3, 5)),
        };
        let back = super::from_append(super::append(request.clone())).unwrap();
        assert_eq!(back.vote, request.vote);
        assert_eq!(back.prev_log_id, request.prev_log_id);
        assert_eq!(back.entries, request.entries);
        assert_eq!(back.leader_commit, request.leader_commit);

        let ends = [
            Ok(None),
            Ok(Some(id(4, 9))),
            Err(StreamAppendError::Conflict(id(3, 6))),
            Err(StreamAppendError::HigherVote(RaftVote::new(5, 1))),
        ];
        for end in ends {
            assert_eq!(super::from_appended(super::appended(end.clone())).unwrap(), end);
        }
    }

    #[test]
    fn votes_survive_the_wire() {
        let mut request = VoteRequest::new(RaftVote::new(4, 9), Some(id(3, 6)));
        request.leadership_transfer = true;
        let wire = super::vote(request.clone(), true);
        assert!(wire.is_pre_vote);
        assert_eq!(super::from_vote(&wire).unwrap(), request);
        let response = VoteResponse::new(RaftVote::new_committed(4, 9), None, true);
        assert_eq!(super::from_voted(super::voted(&response)).unwrap(), response);
    }

    #[test]
    fn what_lacks_a_part_is_refused() {
        assert!(super::from_append(pb::AppendRequest::default()).is_err());
        assert!(super::from_vote(&pb::VoteRequest::default()).is_err());
        assert!(super::from_appended(pb::AppendResponse::default()).is_err());
        let ballot = Some(pb::Ballot { term: 1, member: 2, is_committed: true });
        let unknown = pb::Entry { id: Some(pb::LogId::default()), kind: 300, ..Default::default() };
        let request = pb::AppendRequest { ballot, entries: vec![unknown], ..Default::default() };
        assert!(super::from_append(request).is_err());
    }
}
