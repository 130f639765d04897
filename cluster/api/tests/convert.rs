//! The wire boundary of revfs.v1: what is sent is what arrives, and garbage is an error.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::sample::Index;
use proptest::strategy::BoxedStrategy;
use prost::Message;
use revfs_api::convert;
use revfs_api::keyspace::{
    Answer, Author, ChangeKind, ChangesAnswer, ChangesRequest, Compare, CompareResult,
    CompareTarget, DirectoryAnswer, Event, HistoryRequest, KeyRange, KeyValue, LeaseId, ListAnswer,
    ListEntry, ListRead, Op, OpAnswer, Origin, RangeAnswer, RangeRead, Read, ReadAnswer, Revision,
    RevisionBounds, RevisionEvents, SortOrder, SortTarget, Stamp, Time, Txn, TxnAnswer, Version,
};
use revfs_api::wire::revfs as wire;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..12).prop_map(Bytes::from)
}

fn key() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 1..12).prop_map(Bytes::from)
}

fn directory() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes::new()),
        vec(any::<u8>(), 0..8).prop_map(|mut prefix| {
            prefix.push(b'/');
            Bytes::from(prefix)
        })
    ]
}

fn revision() -> impl Strategy<Value = Revision> {
    any::<u64>().prop_map(Revision)
}

fn time() -> impl Strategy<Value = Time> {
    any::<i64>().prop_map(Time)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        bytes().prop_map(KeyRange::Key),
        (bytes(), bytes()).prop_map(|(start, end)| KeyRange::Span { start, end }),
        bytes().prop_map(KeyRange::From),
    ]
}

fn key_value() -> impl Strategy<Value = KeyValue> {
    let numbers = (any::<u64>(), any::<u64>(), any::<i64>());
    let revisions = (revision(), revision(), revision(), revision());
    ((key(), bytes()), numbers, revisions, (time(), time())).prop_map(
        |((key, value), (value_bytes, version, lease), revisions, times)| KeyValue {
            key,
            value,
            value_bytes,
            create_revision: revisions.0,
            mod_revision: revisions.1,
            version,
            lease: LeaseId(lease),
            time: times.0,
            content_revision: revisions.2,
            content_time: times.1,
            birth_revision: revisions.3,
        },
    )
}

fn bounds() -> impl Strategy<Value = RevisionBounds> {
    (revision(), revision()).prop_map(|(min, max)| RevisionBounds { min, max })
}

fn range_read() -> impl Strategy<Value = RangeRead> {
    let targets = prop_oneof![
        Just(SortTarget::Key),
        Just(SortTarget::Version),
        Just(SortTarget::CreateRevision),
        Just(SortTarget::ModRevision),
        Just(SortTarget::Value),
    ];
    let orders = prop_oneof![
        Just(SortOrder::Unspecified),
        Just(SortOrder::Ascend),
        Just(SortOrder::Descend)
    ];
    let cut = (any::<usize>(), any::<bool>(), any::<bool>());
    let shape = (targets, orders, bounds(), bounds());
    (key_range(), revision(), cut, shape).prop_map(|(range, at, cut, shape)| {
        let (limit, keys_only, count_only) = cut;
        let (sort_target, sort_order, mod_revisions, create_revisions) = shape;
        RangeRead {
            range,
            at,
            limit,
            keys_only,
            count_only,
            sort_target,
            sort_order,
            mod_revisions,
            create_revisions,
        }
    })
}

fn read() -> impl Strategy<Value = Read> {
    let list = (directory(), bytes(), any::<usize>(), any::<bool>()).prop_map(
        |(directory, after, limit, with_values)| {
            Read::List(ListRead { directory, after, limit, with_values })
        },
    );
    prop_oneof![range_read().prop_map(Read::Range), list, directory().prop_map(Read::Directory)]
}

fn range_answer() -> impl Strategy<Value = RangeAnswer> {
    (vec(key_value(), 0..3), any::<u64>(), any::<bool>())
        .prop_map(|(kvs, count, more)| RangeAnswer { kvs, count, more })
}

fn directory_answer() -> impl Strategy<Value = DirectoryAnswer> {
    (any::<u64>(), revision(), time()).prop_map(|(names, changed, time)| DirectoryAnswer {
        names,
        changed,
        time,
    })
}

fn list_answer() -> impl Strategy<Value = ListAnswer> {
    let entry = (bytes(), option::of(key_value()), option::of(directory_answer()))
        .prop_map(|(name, kv, directory)| ListEntry { name, kv, directory });
    (vec(entry, 0..3), any::<bool>()).prop_map(|(entries, more)| ListAnswer { entries, more })
}

fn read_answer() -> impl Strategy<Value = ReadAnswer> {
    let answer = prop_oneof![
        range_answer().prop_map(Answer::Range),
        list_answer().prop_map(Answer::List),
        directory_answer().prop_map(Answer::Directory),
    ];
    (revision(), revision(), vec(answer, 0..4))
        .prop_map(|(revision, current, answers)| ReadAnswer { revision, current, answers })
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (revision(), time(), ".{0,8}", ".{0,8}", bytes()).prop_map(
        |(revision, time, principal, claimed, note)| Stamp {
            revision,
            time,
            author: Author { principal, claimed },
            note,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    (prop_oneof![Just(ChangeKind::Put), Just(ChangeKind::Delete)], key_value())
        .prop_map(|(kind, kv)| Event { kind, kv })
}

fn revision_events() -> impl Strategy<Value = RevisionEvents> {
    (stamp(), vec(event(), 0..4)).prop_map(|(stamp, events)| RevisionEvents { stamp, events })
}

fn compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        any::<u64>().prop_map(CompareTarget::Version),
        revision().prop_map(CompareTarget::CreateRevision),
        revision().prop_map(CompareTarget::ModRevision),
        bytes().prop_map(CompareTarget::Value),
        any::<i64>().prop_map(|lease| CompareTarget::Lease(LeaseId(lease))),
    ];
    let result = prop_oneof![
        Just(CompareResult::Equal),
        Just(CompareResult::NotEqual),
        Just(CompareResult::Less),
        Just(CompareResult::Greater),
    ];
    (key_range(), target, result).prop_map(|(range, target, result)| Compare {
        range,
        target,
        result,
    })
}

fn flat_op() -> impl Strategy<Value = Op> {
    let put = (key(), bytes(), any::<i64>(), any::<[bool; 3]>()).prop_map(
        |(key, value, lease, [prev_kv, ignore_value, ignore_lease])| Op::Put {
            key,
            value,
            lease: LeaseId(lease),
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    );
    prop_oneof![
        put,
        (key_range(), any::<bool>()).prop_map(|(range, prev_kv)| Op::Delete { range, prev_kv }),
        range_read().prop_map(Op::Range),
        (key(), bytes()).prop_map(|(key, value)| Op::Append { key, value }),
        (bytes(), bytes()).prop_map(|(from, to)| Op::Move { from, to }),
        (key(), key()).prop_map(|(from, to)| Op::MoveKey { from, to }),
        (key(), key()).prop_map(|(a, b)| Op::Exchange { a, b }),
        (key_range(), revision()).prop_map(|(range, revision)| Op::Restore { range, revision }),
    ]
}

fn txn_of(op: BoxedStrategy<Op>) -> impl Strategy<Value = Txn> {
    (vec(compare(), 0..3), vec(op.clone(), 0..3), vec(op, 0..3))
        .prop_map(|(compares, success, failure)| Txn { compares, success, failure })
}

fn txn() -> impl Strategy<Value = Txn> {
    let op = flat_op().prop_recursive(3, 16, 3, |inner| txn_of(inner).prop_map(Op::Txn));
    txn_of(op.boxed())
}

fn txn_answer_of(op: BoxedStrategy<OpAnswer>) -> impl Strategy<Value = TxnAnswer> {
    (any::<bool>(), revision(), any::<bool>(), vec(op, 0..3)).prop_map(
        |(succeeded, revision, changed, answers)| TxnAnswer {
            succeeded,
            revision,
            changed,
            answers,
        },
    )
}

fn txn_answer() -> impl Strategy<Value = TxnAnswer> {
    let flat = prop_oneof![
        option::of(key_value()).prop_map(|prev_kv| OpAnswer::Put { prev_kv }),
        (any::<u64>(), vec(key_value(), 0..3))
            .prop_map(|(deleted, prev_kvs)| OpAnswer::Delete { deleted, prev_kvs }),
        range_answer().prop_map(OpAnswer::Range),
        any::<u64>().prop_map(|value_bytes| OpAnswer::Append { value_bytes }),
        any::<u64>().prop_map(|moved| OpAnswer::Move { moved }),
        (any::<u64>(), any::<u64>()).prop_map(|(put, deleted)| OpAnswer::Restore { put, deleted }),
    ];
    let op = flat.prop_recursive(3, 16, 3, |inner| txn_answer_of(inner).prop_map(OpAnswer::Txn));
    txn_answer_of(op.boxed())
}

/// Through the bytes of the wire, as between two processes.
fn sent<M: Message + Default>(message: &M) -> M {
    M::decode(message.encode_to_vec().as_slice()).expect("what was encoded is decoded")
}

proptest! {
    #[test]
    fn reads_arrive_as_they_were_asked(at in revision(), reads in vec(read(), 0..5)) {
        let request = sent(&convert::read_request(at, reads.clone()));
        assert_eq!(convert::read_arguments(request), Ok((at, reads)));
    }

    #[test]
    fn answers_arrive_as_they_were_given(answer in read_answer()) {
        let response = sent(&wire::ReadResponse::from(answer.clone()));
        assert_eq!(ReadAnswer::try_from(response), Ok(answer));
    }

    #[test]
    fn transactions_arrive_as_they_were_asked(
        txn in txn(), claimed in ".{0,8}", note in bytes(),
    ) {
        let origin = Origin { claimed, note };
        let request = sent(&convert::txn_request(txn.clone(), origin.clone()));
        assert_eq!(convert::txn_arguments(request), Ok((txn, origin)));
    }

    #[test]
    fn answers_of_transactions_arrive_as_they_were_given(answer in txn_answer()) {
        let response = sent(&convert::txn_response(answer.clone()));
        assert_eq!(convert::txn_answer(response), Ok(answer));
    }

    #[test]
    fn history_and_stamps_arrive_as_they_were_given(
        versions in vec((event(), stamp()), 0..4), at_most in revision(), key in key(),
        limit in any::<usize>(), keys_only in any::<bool>(),
    ) {
        let request = HistoryRequest { key, at_most, limit, keys_only };
        let arrived = HistoryRequest::from(sent(&wire::HistoryRequest::from(request.clone())));
        assert_eq!(format!("{arrived:?}"), format!("{request:?}"));
        let versions: Vec<_> =
            versions.into_iter().map(|(event, stamp)| Version { event, stamp }).collect();
        let response = sent(&convert::history_response(versions.clone()));
        assert_eq!(convert::history_answer(response), Ok(versions.clone()));
        for Version { stamp, .. } in versions {
            let response = sent(&convert::stamp_response(stamp.clone()));
            assert_eq!(convert::stamp_answer(response), Ok(stamp));
        }
    }

    #[test]
    fn changes_arrive_as_they_were_given(
        ranges in vec(key_range(), 0..4), (from, to) in (revision(), revision()),
        flags in any::<[bool; 2]>(), limits in any::<[usize; 2]>(),
        revisions in vec(revision_events(), 0..3), next in 0_u64..3, current in revision(),
    ) {
        let request = ChangesRequest {
            ranges: ranges.clone(), from, to, newest_first: flags[0], limit: limits[0],
            scan_limit: limits[1], keys_only: flags[1],
        };
        let arrived = ChangesRequest::try_from(sent(&wire::ChangesRequest::from(request.clone())));
        assert_eq!(format!("{:?}", arrived.unwrap()), format!("{request:?}"));
        let next = Some(Revision(next)).filter(|next| next.0 > 0);
        let answer = ChangesAnswer { revisions, next, current };
        let arrived = ChangesAnswer::try_from(sent(&wire::ChangesResponse::from(answer.clone())));
        assert_eq!(format!("{:?}", arrived.unwrap()), format!("{answer:?}"));
        if !ranges.is_empty() {
            let request = sent(&convert::watch_request(ranges.clone(), from));
            assert_eq!(convert::watch_arguments(request), Ok((ranges, from)));
        }
    }

    /// Flipped, cut and inserted bytes: what still decodes is understood or refused.
    #[test]
    fn mutated_messages_are_refused_or_understood_but_never_panic(
        txn in txn(), answer in txn_answer(), read in read(), reply in read_answer(),
        revision in revision_events(),
        edits in vec((any::<Index>(), any::<u8>(), 0_u8..3), 1..6),
    ) {
        let mutated = |mut bytes: Vec<u8>| {
            for (place, byte, edit) in &edits {
                match edit {
                    0 if !bytes.is_empty() => {
                        let place = place.index(bytes.len());
                        bytes[place] ^= byte;
                    }
                    1 if !bytes.is_empty() => bytes.truncate(place.index(bytes.len())),
                    _ => bytes.insert(place.index(bytes.len() + 1), *byte),
                }
            }
            Bytes::from(bytes)
        };
        let encoded = convert::txn_request(txn, Origin::default()).encode_to_vec();
        if let Ok(request) = wire::TxnRequest::decode(mutated(encoded))
            && let Ok((txn, origin)) = convert::txn_arguments(request)
        {
            // What was understood means the same when it is sent on.
            let again = sent(&convert::txn_request(txn.clone(), origin.clone()));
            assert_eq!(convert::txn_arguments(again), Ok((txn, origin)));
        }
        let encoded = convert::txn_response(answer).encode_to_vec();
        if let Ok(response) = wire::TxnResponse::decode(mutated(encoded)) {
            convert::txn_answer(response).map(drop).ok();
        }
        let encoded = convert::read_request(Revision(7), vec![read]).encode_to_vec();
        if let Ok(request) = wire::ReadRequest::decode(mutated(encoded)) {
            convert::read_arguments(request).map(drop).ok();
        }
        let encoded = wire::ReadResponse::from(reply).encode_to_vec();
        if let Ok(response) = wire::ReadResponse::decode(mutated(encoded)) {
            ReadAnswer::try_from(response).map(drop).ok();
        }
        let encoded = wire::RevisionEvents::from(revision).encode_to_vec();
        if let Ok(revision) = wire::RevisionEvents::decode(mutated(encoded)) {
            RevisionEvents::try_from(revision).map(drop).ok();
        }
    }
}

fn nested(depth: usize) -> Txn {
    let mut txn = Txn::default();
    for _ in 1..depth {
        txn = Txn { success: vec![Op::Txn(txn)], ..Txn::default() };
    }
    txn
}

#[test]
fn the_deepest_transaction_that_is_allowed_arrives_and_a_deeper_one_is_refused() {
    let deepest = convert::txn_request(nested(convert::TXN_DEPTH_MAX), Origin::default());
    assert!(convert::txn_arguments(sent(&deepest)).is_ok());
    let deeper = convert::txn_request(nested(convert::TXN_DEPTH_MAX + 1), Origin::default());
    let error = convert::txn_arguments(sent(&deeper)).unwrap_err();
    assert!(error.to_string().contains("nested deeper than 32"), "{error}");
}

#[test]
fn what_has_no_meaning_is_refused_by_name() {
    let refused = |op: wire::op::Op| {
        let op = wire::Op { op: Some(op) };
        let txn = wire::Txn { success: vec![op], ..wire::Txn::default() };
        let request = wire::TxnRequest { txn: Some(txn), ..wire::TxnRequest::default() };
        convert::txn_arguments(request).unwrap_err().to_string()
    };
    let put = refused(wire::op::Op::Put(wire::op::Put::default()));
    assert_eq!(put, "malformed revfs.v1.Op.Put: key is empty");
    let delete = refused(wire::op::Op::Delete(wire::op::Delete::default()));
    assert_eq!(delete, "malformed revfs.v1.Op.Delete: range is missing");

    let compare = wire::Compare { result: 99, ..wire::Compare::default() };
    let txn = wire::Txn { compares: vec![compare], ..wire::Txn::default() };
    let request = wire::TxnRequest { txn: Some(txn), ..wire::TxnRequest::default() };
    let error = convert::txn_arguments(request).unwrap_err().to_string();
    assert_eq!(error, "malformed revfs.v1.Compare: result is 99");

    let question = wire::question::Question::Directory(Bytes::from_static(b"app"));
    let questions = vec![wire::Question { question: Some(question) }];
    let error =
        convert::read_arguments(wire::ReadRequest { questions, ..Default::default() }).unwrap_err();
    assert_eq!(error.to_string(), "malformed revfs.v1.Question: directory app does not end in /");

    let many = vec![wire::Question { question: None }; convert::QUESTIONS_MAX + 1];
    let error =
        convert::read_arguments(wire::ReadRequest { questions: many, ..Default::default() });
    assert!(error.unwrap_err().to_string().contains("10001 questions are over the bound of 10000"));
    assert!(convert::watch_arguments(wire::WatchRequest::default()).is_err());
}
