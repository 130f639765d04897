//! The service Members of revfs.v1: members with their roles, and what each waits for.

use std::sync::Arc;

use bytes::Bytes;
use revfs_api::keyspace::Error;
use revfs_api::wire::revfs as pb;
use revfs_api::wire::revfs::members_server::Members;
use revfs_store::{MemberRole, Need};
use tonic::{Request, Response, Status};

use super::cluster::check_urls;
use super::member::{Member, fail};
use crate::local::Local;
use crate::members::{Listed, NewMember};

pub(super) struct MembersService {
    pub(super) member: Arc<Member>,
}

type Answer<T> = Result<Response<T>, Status>;

fn role_to_wire(role: MemberRole) -> pb::MemberRole {
    match role {
        MemberRole::Voter => pb::MemberRole::Voter,
        MemberRole::Learner => pb::MemberRole::Learner,
        MemberRole::Standby => pb::MemberRole::Standby,
        MemberRole::ReadOnly => pb::MemberRole::ReadOnly,
    }
}

/// `None` if none is said.
fn role_from_wire(number: i32) -> Result<Option<MemberRole>, Status> {
    match pb::MemberRole::try_from(number) {
        Ok(pb::MemberRole::Unspecified) => Ok(None),
        Ok(pb::MemberRole::Voter) => Ok(Some(MemberRole::Voter)),
        Ok(pb::MemberRole::Learner) => Ok(Some(MemberRole::Learner)),
        Ok(pb::MemberRole::Standby) => Ok(Some(MemberRole::Standby)),
        Ok(pb::MemberRole::ReadOnly) => Ok(Some(MemberRole::ReadOnly)),
        Err(_) => {
            let known = "1 (voter) to 4 (read-only)";
            Err(fail(Error::Invalid(format!("role {number} is not known; there are {known}"))))
        }
    }
}

fn describe(listed: Listed) -> pb::MemberDetail {
    let (is_there, waits_for) = (listed.is_there(), listed.waits_for().unwrap_or_default());
    let state = match (listed.is_leaving, listed.votes, listed.is_replica) {
        (true, _, _) => pb::MemberState::Leaves,
        (false, true, _) => pb::MemberState::Votes,
        (false, false, _) if !listed.member.joined => pb::MemberState::Pending,
        (false, false, _) => pb::MemberState::Learns,
    };
    let instance = listed.member.instance.map(|instance| instance.to_be_bytes());
    pb::MemberDetail {
        id: listed.member.id,
        role: role_to_wire(listed.member.role).into(),
        state: state.into(),
        leads: listed.leads,
        instance: instance.map(|bytes| Bytes::copy_from_slice(&bytes)).unwrap_or_default(),
        cluster_version: listed.member.version,
        replaces: listed.member.replaces.unwrap_or(0),
        is_there,
        behind: listed.seen.as_ref().and_then(|seen| seen.behind),
        waits_for: waits_for.to_owned(),
        name: listed.member.name,
        peer_urls: listed.member.peer_urls,
        client_urls: listed.member.client_urls,
    }
}

impl MembersService {
    /// The node for who asks, who may change its members.
    fn changed<T>(&self, request: &Request<T>) -> Result<Arc<Local>, Status> {
        let node = self.member.node(request)?;
        node.require(Need::Root).map_err(fail)?;
        Ok(node)
    }
}

#[tonic::async_trait]
impl Members for MembersService {
    async fn members_in_detail(
        &self,
        request: Request<pb::MembersInDetailRequest>,
    ) -> Answer<pb::MembersInDetailResponse> {
        let node = self.member.node(&request)?;
        let listed = match request.into_inner().serializable {
            true => node.members(false).await,
            false => node.members_in_detail().await,
        };
        let members = listed.map_err(fail)?.into_iter().map(describe).collect();
        Ok(Response::new(pb::MembersInDetailResponse { members }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Answer<pb::MemberAddResponse> {
        let node = self.changed(&request)?;
        let pb::MemberAddRequest { peer_urls, role } = request.into_inner();
        check_urls(&peer_urls)?;
        let role = Some(role_from_wire(role)?.unwrap_or_default());
        let added = node.member_add(NewMember { role, replaces: None, peer_urls }).await;
        Ok(Response::new(pb::MemberAddResponse { id: added.map_err(fail)? }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Answer<pb::MemberRemoveResponse> {
        let node = self.changed(&request)?;
        let pb::MemberRemoveRequest { id, force } = request.into_inner();
        let warning = node.member_remove(id, force).await.map_err(fail)?.unwrap_or_default();
        Ok(Response::new(pb::MemberRemoveResponse { warning }))
    }

    async fn member_set_role(
        &self,
        request: Request<pb::MemberSetRoleRequest>,
    ) -> Answer<pb::MemberSetRoleResponse> {
        let node = self.changed(&request)?;
        let pb::MemberSetRoleRequest { id, role } = request.into_inner();
        let role = role_from_wire(role)?
            .ok_or_else(|| fail(Error::Invalid("no role is said for the member".to_owned())))?;
        node.member_set_role(id, role).await.map_err(fail)?;
        Ok(Response::new(pb::MemberSetRoleResponse {}))
    }

    async fn member_replace(
        &self,
        request: Request<pb::MemberReplaceRequest>,
    ) -> Answer<pb::MemberReplaceResponse> {
        let node = self.changed(&request)?;
        let pb::MemberReplaceRequest { id, peer_urls } = request.into_inner();
        check_urls(&peer_urls)?;
        let replaced = node.member_replace(id, peer_urls).await;
        Ok(Response::new(pb::MemberReplaceResponse { id: replaced.map_err(fail)? }))
    }
}
