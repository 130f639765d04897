//! Which path is which call: etcd's, word for word.

use axum::Router;
use axum::response::Response;
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::{v3electionpb as election, v3lockpb as lock};
use tonic::Status;

use super::super::answer;
use super::call::{Gateway, Requests, many_to_many, one_to_many, unary};

pub(super) fn all(gateway: &Gateway) -> Router {
    keys(gateway)
        .merge(leases(gateway))
        .merge(cluster(gateway))
        .merge(concurrency(gateway))
        .merge(auth(gateway))
        .method_not_allowed_fallback(not_a_post)
}

/// etcd's gateway knows no other method, and says it with the code that gRPC has for that.
async fn not_a_post() -> Response {
    answer::refusal(&Status::unimplemented("Method Not Allowed"))
}

fn keys(gateway: &Gateway) -> Router {
    let kv = "/etcdserverpb.KV";
    Router::new()
        .route("/v3/kv/range", unary::<pb::RangeRequest, pb::RangeResponse>(gateway, kv, "Range"))
        .route("/v3/kv/put", unary::<pb::PutRequest, pb::PutResponse>(gateway, kv, "Put"))
        .route(
            "/v3/kv/deleterange",
            unary::<pb::DeleteRangeRequest, pb::DeleteRangeResponse>(gateway, kv, "DeleteRange"),
        )
        .route("/v3/kv/txn", unary::<pb::TxnRequest, pb::TxnResponse>(gateway, kv, "Txn"))
        .route(
            "/v3/kv/compaction",
            unary::<pb::CompactionRequest, pb::CompactionResponse>(gateway, kv, "Compact"),
        )
        .route(
            "/v3/watch",
            many_to_many::<pb::WatchRequest, pb::WatchResponse>(
                gateway,
                "/etcdserverpb.Watch",
                "Watch",
                Requests::StayOpen,
            ),
        )
}

fn leases(gateway: &Gateway) -> Router {
    let lease = "/etcdserverpb.Lease";
    let revoke =
        || unary::<pb::LeaseRevokeRequest, pb::LeaseRevokeResponse>(gateway, lease, "LeaseRevoke");
    let time_to_live = || {
        unary::<pb::LeaseTimeToLiveRequest, pb::LeaseTimeToLiveResponse>(
            gateway,
            lease,
            "LeaseTimeToLive",
        )
    };
    let leases =
        || unary::<pb::LeaseLeasesRequest, pb::LeaseLeasesResponse>(gateway, lease, "LeaseLeases");
    Router::new()
        .route(
            "/v3/lease/grant",
            unary::<pb::LeaseGrantRequest, pb::LeaseGrantResponse>(gateway, lease, "LeaseGrant"),
        )
        .route("/v3/lease/revoke", revoke())
        .route("/v3/kv/lease/revoke", revoke())
        .route("/v3/lease/timetolive", time_to_live())
        .route("/v3/kv/lease/timetolive", time_to_live())
        .route("/v3/lease/leases", leases())
        .route("/v3/kv/lease/leases", leases())
        .route(
            "/v3/lease/keepalive",
            many_to_many::<pb::LeaseKeepAliveRequest, pb::LeaseKeepAliveResponse>(
                gateway,
                lease,
                "LeaseKeepAlive",
                Requests::EndWithTheBody,
            ),
        )
}

fn cluster(gateway: &Gateway) -> Router {
    let cluster = "/etcdserverpb.Cluster";
    Router::new()
        .route(
            "/v3/cluster/member/add",
            unary::<pb::MemberAddRequest, pb::MemberAddResponse>(gateway, cluster, "MemberAdd"),
        )
        .route(
            "/v3/cluster/member/remove",
            unary::<pb::MemberRemoveRequest, pb::MemberRemoveResponse>(
                gateway,
                cluster,
                "MemberRemove",
            ),
        )
        .route(
            "/v3/cluster/member/update",
            unary::<pb::MemberUpdateRequest, pb::MemberUpdateResponse>(
                gateway,
                cluster,
                "MemberUpdate",
            ),
        )
        .route(
            "/v3/cluster/member/list",
            unary::<pb::MemberListRequest, pb::MemberListResponse>(gateway, cluster, "MemberList"),
        )
        .route(
            "/v3/cluster/member/promote",
            unary::<pb::MemberPromoteRequest, pb::MemberPromoteResponse>(
                gateway,
                cluster,
                "MemberPromote",
            ),
        )
        .merge(maintenance(gateway))
}

fn maintenance(gateway: &Gateway) -> Router {
    let service = "/etcdserverpb.Maintenance";
    Router::new()
        .route(
            "/v3/maintenance/alarm",
            unary::<pb::AlarmRequest, pb::AlarmResponse>(gateway, service, "Alarm"),
        )
        .route(
            "/v3/maintenance/status",
            unary::<pb::StatusRequest, pb::StatusResponse>(gateway, service, "Status"),
        )
        .route(
            "/v3/maintenance/defragment",
            unary::<pb::DefragmentRequest, pb::DefragmentResponse>(gateway, service, "Defragment"),
        )
        .route(
            "/v3/maintenance/hash",
            unary::<pb::HashRequest, pb::HashResponse>(gateway, service, "Hash"),
        )
        .route(
            "/v3/maintenance/hashkv",
            unary::<pb::HashKvRequest, pb::HashKvResponse>(gateway, service, "HashKV"),
        )
        .route(
            "/v3/maintenance/snapshot",
            one_to_many::<pb::SnapshotRequest, pb::SnapshotResponse>(gateway, service, "Snapshot"),
        )
        .route(
            "/v3/maintenance/transfer-leadership",
            unary::<pb::MoveLeaderRequest, pb::MoveLeaderResponse>(gateway, service, "MoveLeader"),
        )
        .route(
            "/v3/maintenance/downgrade",
            unary::<pb::DowngradeRequest, pb::DowngradeResponse>(gateway, service, "Downgrade"),
        )
}

fn auth(gateway: &Gateway) -> Router {
    let auth = "/etcdserverpb.Auth";
    Router::new()
        .route(
            "/v3/auth/enable",
            unary::<pb::AuthEnableRequest, pb::AuthEnableResponse>(gateway, auth, "AuthEnable"),
        )
        .route(
            "/v3/auth/disable",
            unary::<pb::AuthDisableRequest, pb::AuthDisableResponse>(gateway, auth, "AuthDisable"),
        )
        .route(
            "/v3/auth/status",
            unary::<pb::AuthStatusRequest, pb::AuthStatusResponse>(gateway, auth, "AuthStatus"),
        )
        .route(
            "/v3/auth/authenticate",
            unary::<pb::AuthenticateRequest, pb::AuthenticateResponse>(
                gateway,
                auth,
                "Authenticate",
            ),
        )
        .merge(users(gateway))
        .merge(roles(gateway))
}

fn users(gateway: &Gateway) -> Router {
    let auth = "/etcdserverpb.Auth";
    Router::new()
        .route(
            "/v3/auth/user/add",
            unary::<pb::AuthUserAddRequest, pb::AuthUserAddResponse>(gateway, auth, "UserAdd"),
        )
        .route(
            "/v3/auth/user/get",
            unary::<pb::AuthUserGetRequest, pb::AuthUserGetResponse>(gateway, auth, "UserGet"),
        )
        .route(
            "/v3/auth/user/list",
            unary::<pb::AuthUserListRequest, pb::AuthUserListResponse>(gateway, auth, "UserList"),
        )
        .route(
            "/v3/auth/user/delete",
            unary::<pb::AuthUserDeleteRequest, pb::AuthUserDeleteResponse>(
                gateway,
                auth,
                "UserDelete",
            ),
        )
        .route(
            "/v3/auth/user/changepw",
            unary::<pb::AuthUserChangePasswordRequest, pb::AuthUserChangePasswordResponse>(
                gateway,
                auth,
                "UserChangePassword",
            ),
        )
        .route(
            "/v3/auth/user/grant",
            unary::<pb::AuthUserGrantRoleRequest, pb::AuthUserGrantRoleResponse>(
                gateway,
                auth,
                "UserGrantRole",
            ),
        )
        .route(
            "/v3/auth/user/revoke",
            unary::<pb::AuthUserRevokeRoleRequest, pb::AuthUserRevokeRoleResponse>(
                gateway,
                auth,
                "UserRevokeRole",
            ),
        )
}

fn roles(gateway: &Gateway) -> Router {
    let auth = "/etcdserverpb.Auth";
    Router::new()
        .route(
            "/v3/auth/role/add",
            unary::<pb::AuthRoleAddRequest, pb::AuthRoleAddResponse>(gateway, auth, "RoleAdd"),
        )
        .route(
            "/v3/auth/role/get",
            unary::<pb::AuthRoleGetRequest, pb::AuthRoleGetResponse>(gateway, auth, "RoleGet"),
        )
        .route(
            "/v3/auth/role/list",
            unary::<pb::AuthRoleListRequest, pb::AuthRoleListResponse>(gateway, auth, "RoleList"),
        )
        .route(
            "/v3/auth/role/delete",
            unary::<pb::AuthRoleDeleteRequest, pb::AuthRoleDeleteResponse>(
                gateway,
                auth,
                "RoleDelete",
            ),
        )
        .route(
            "/v3/auth/role/grant",
            unary::<pb::AuthRoleGrantPermissionRequest, pb::AuthRoleGrantPermissionResponse>(
                gateway,
                auth,
                "RoleGrantPermission",
            ),
        )
        .route(
            "/v3/auth/role/revoke",
            unary::<pb::AuthRoleRevokePermissionRequest, pb::AuthRoleRevokePermissionResponse>(
                gateway,
                auth,
                "RoleRevokePermission",
            ),
        )
}

fn concurrency(gateway: &Gateway) -> Router {
    let (locks, elections) = ("/v3lockpb.Lock", "/v3electionpb.Election");
    Router::new()
        .route(
            "/v3/lock/lock",
            unary::<lock::LockRequest, lock::LockResponse>(gateway, locks, "Lock"),
        )
        .route(
            "/v3/lock/unlock",
            unary::<lock::UnlockRequest, lock::UnlockResponse>(gateway, locks, "Unlock"),
        )
        .route(
            "/v3/election/campaign",
            unary::<election::CampaignRequest, election::CampaignResponse>(
                gateway, elections, "Campaign",
            ),
        )
        .route(
            "/v3/election/proclaim",
            unary::<election::ProclaimRequest, election::ProclaimResponse>(
                gateway, elections, "Proclaim",
            ),
        )
        .route(
            "/v3/election/leader",
            unary::<election::LeaderRequest, election::LeaderResponse>(
                gateway, elections, "Leader",
            ),
        )
        .route(
            "/v3/election/observe",
            one_to_many::<election::LeaderRequest, election::LeaderResponse>(
                gateway, elections, "Observe",
            ),
        )
        .route(
            "/v3/election/resign",
            unary::<election::ResignRequest, election::ResignResponse>(
                gateway, elections, "Resign",
            ),
        )
}
