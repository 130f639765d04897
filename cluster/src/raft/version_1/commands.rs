//! Every kind of command, compare and operation.

use bytes::Bytes;
use revfs_store::types::{
    Author, Compare, CompareResult, CompareTarget, KeyRange, LeaseId, Op, RangeQuery, Revision,
    RevisionBounds, SortOrder, SortTarget, Time, Txn,
};
use revfs_store::{
    Access, Alarm, AlarmKind, AuthChange, Body, Command, MemberChange, MemberRole, PasswordHash,
    Permission, TOKEN_SECRET_BYTES, TokenSecret, UploadCommit,
};

use super::Kept;

pub(super) fn check(kept: &mut Kept) {
    let all = [txns(), leases(), others(), users(), members()].into_iter().flatten();
    for (name, body) in all {
        let command = Command {
            time: Time(1_700_000_000_123_456_789),
            author: Author { principal: "root".to_owned(), claimed: "user@host".to_owned() },
            note: Bytes::from_static(b"note"),
            body,
        };
        let encode = |command: &Command| command.encode().unwrap().to_vec();
        let decode = |bytes: &[u8]| Command::decode(&Bytes::copy_from_slice(bytes)).unwrap();
        kept.check(&format!("command-{name}"), &command, encode, decode);
    }
}

type Named = (&'static str, Body);

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn span() -> KeyRange {
    KeyRange::Span { start: bytes("a"), end: bytes("b") }
}

fn compares() -> Vec<Compare> {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let compare = |(range, target, result)| Compare { range, target, result };
    let all = [
        (KeyRange::Key(bytes("k")), CompareTarget::Version(1), Equal),
        (span(), CompareTarget::CreateRevision(Revision(2)), NotEqual),
        (KeyRange::From(bytes("z")), CompareTarget::ModRevision(Revision(3)), Less),
        (KeyRange::Key(bytes("k")), CompareTarget::Value(bytes("v")), Greater),
        (KeyRange::Key(bytes("k")), CompareTarget::Lease(LeaseId(-4)), Equal),
    ];
    all.into_iter().map(compare).collect()
}

fn ops() -> Vec<Op> {
    let put = Op::Put {
        key: bytes("k"),
        value: bytes("v"),
        lease: LeaseId(7),
        prev_kv: true,
        ignore_value: false,
        ignore_lease: true,
    };
    let bounds = |min, max| RevisionBounds { min: Revision(min), max: Revision(max) };
    let query = RangeQuery {
        at: Revision(5),
        limit: 6,
        keys_only: true,
        count_only: true,
        sort_target: SortTarget::ModRevision,
        sort_order: SortOrder::Descend,
        mod_revisions: bounds(7, 8),
        create_revisions: bounds(9, 10),
        ..RangeQuery::new(span())
    };
    let [from, to] = [bytes("d/"), bytes("e/")];
    vec![
        put,
        Op::Delete { range: span(), prev_kv: true },
        Op::Range(query),
        Op::Txn(Txn { compares: compares(), success: vec![Op::delete("x")], failure: Vec::new() }),
        Op::Append { key: bytes("l"), value: bytes("w") },
        Op::Move { from: from.clone(), to: to.clone() },
        Op::MoveKey { from: bytes("f"), to: bytes("g") },
        Op::Exchange { a: from, b: to },
        Op::Restore { range: KeyRange::From(bytes("r")), revision: Revision(4) },
    ]
}

fn txns() -> Vec<Named> {
    let txn = Txn { compares: compares(), success: ops(), failure: vec![Op::put("k", "else")] };
    let commit = UploadCommit {
        upload: LeaseId(8),
        parts: 3,
        compares: compares(),
        failure: vec![Op::delete("k")],
    };
    vec![
        ("txn", Body::Txn(txn)),
        ("upload-part", Body::UploadPart { upload: LeaseId(8), part: 2, ops: ops() }),
        ("upload-commit", Body::UploadCommit(commit)),
        (
            "request",
            Body::Request {
                user: "alice".to_owned(),
                auth_revision: 9,
                body: Box::new(Body::Compact { revision: Revision(3) }),
            },
        ),
    ]
}

fn leases() -> Vec<Named> {
    let (id, term) = (LeaseId(-5), 6);
    let remaining = vec![(LeaseId(1), 30), (LeaseId(2), 0)];
    vec![
        ("lease-grant", Body::LeaseGrant { id, ttl_seconds: 60 }),
        ("lease-revoke", Body::LeaseRevoke { id }),
        ("lease-expire", Body::LeaseExpire { id, term }),
        ("lease-checkpoint", Body::LeaseCheckpoint { term, remaining }),
    ]
}

fn others() -> Vec<Named> {
    let alarm = |kind| Alarm { member: 9, kind };
    vec![
        ("compact", Body::Compact { revision: Revision(12) }),
        ("alarm-raised", Body::Alarm { alarm: alarm(AlarmKind::NoSpace), is_raised: true }),
        ("alarm-lifted", Body::Alarm { alarm: alarm(AlarmKind::Corrupt), is_raised: false }),
        ("check", Body::Check),
    ]
}

fn users() -> Vec<Named> {
    let name = || "alice".to_owned();
    let role = || "admin".to_owned();
    let password = || PasswordHash(bytes("$2b$hash"));
    let [key, range_end] = [bytes("a"), bytes("b")];
    let permission =
        Permission { key: key.clone(), range_end: range_end.clone(), access: Access::ReadWrite };
    let token_secret = TokenSecret([0x5A; TOKEN_SECRET_BYTES]);
    let all = [
        ("auth-enable", AuthChange::Enable { token_secret }),
        ("auth-disable", AuthChange::Disable),
        ("user-add", AuthChange::UserAdd { name: name(), password: Some(password()) }),
        ("user-add-bare", AuthChange::UserAdd { name: name(), password: None }),
        ("user-delete", AuthChange::UserDelete { name: name() }),
        (
            "user-change-password",
            AuthChange::UserChangePassword { name: name(), password: password() },
        ),
        ("user-grant-role", AuthChange::UserGrantRole { name: name(), role: role() }),
        ("user-revoke-role", AuthChange::UserRevokeRole { name: name(), role: role() }),
        ("role-add", AuthChange::RoleAdd { name: role() }),
        ("role-delete", AuthChange::RoleDelete { name: role() }),
        ("role-grant", AuthChange::RoleGrantPermission { name: role(), permission }),
        ("role-revoke", AuthChange::RoleRevokePermission { name: role(), key, range_end }),
    ];
    all.into_iter().map(|(name, change)| (name, Body::Auth(change))).collect()
}

fn members() -> Vec<Named> {
    let urls = || vec!["http://10.0.0.4:2380".to_owned(), "http://10.0.0.5:2380".to_owned()];
    let (id, instance, version) = (4, 0x0102_0304 << 90, 1);
    let name = "m4".to_owned();
    let add = |role, replaces| MemberChange::Add { id, role, replaces, peer_urls: urls() };
    let all = [
        ("member-add", add(MemberRole::Voter, None)),
        ("member-replace", add(MemberRole::Standby, Some(3))),
        ("member-adopt", MemberChange::Adopt { id, role: MemberRole::Learner, peer_urls: urls() }),
        ("member-remove", MemberChange::Remove { id }),
        ("member-remove-by-force", MemberChange::RemoveByForce { id }),
        ("member-set-urls", MemberChange::SetUrls { id, peer_urls: urls() }),
        ("member-set-role", MemberChange::SetRole { id, role: MemberRole::ReadOnly }),
        ("member-identify", MemberChange::Identify { id, instance, version }),
        (
            "member-publish",
            MemberChange::Publish {
                id,
                instance,
                version,
                name,
                peer_urls: urls(),
                client_urls: vec!["http://10.0.0.4:2379".to_owned()],
            },
        ),
        ("member-raise-version", MemberChange::RaiseVersion { version: 2 }),
    ];
    all.into_iter().map(|(name, change)| (name, Body::Member(change))).collect()
}
