//! etcd's Cluster service: members are rows that are wanted, and the leader makes them true.
//!
//! A member that was added but has not come up has no name, as etcd's clients expect of one that is not
//! started; one that only learns yet is shown as a learner.

use std::sync::{Arc, OnceLock};

use revfs_api::status;
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::cluster_server::Cluster;
use revfs_store::{Member as Row, MemberRole};
use tonic::{Request, Response, Status};

use super::member::{Member, fail};
use crate::local::Local;
use crate::members::{Listed, NewMember};

pub(super) struct ClusterService {
    pub(super) member: Arc<Member>,
    pub(super) name: String,
    /// Where clients find this member; known once its sockets are bound.
    pub(super) client_urls: Arc<OnceLock<Vec<String>>>,
}

type Answer<T> = Result<Response<T>, Status>;

impl ClusterService {
    fn describe(&self, listed: Listed) -> pb::Member {
        let Listed { member, votes, is_replica, .. } = listed;
        let is_learner = !votes && (is_replica || member.role != MemberRole::Voter);
        let Row { id, name, peer_urls, client_urls, .. } = member;
        // This member knows itself before its row does.
        let is_own = self.member.own_node().is_ok_and(|node| node.node.identity.member == id);
        let (name, client_urls) = if is_own {
            (self.name.clone(), self.client_urls.get().cloned().unwrap_or_default())
        } else {
            (name, client_urls)
        };
        pb::Member { id, name, peer_ur_ls: peer_urls, client_ur_ls: client_urls, is_learner }
    }

    /// etcd's headers of this service name no revision.
    async fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.member.header(revfs_api::keyspace::Revision::NONE).await)
    }

    async fn members(&self, node: &Local, confirmed: bool) -> Result<Vec<pb::Member>, Status> {
        let members = node.members(confirmed).await.map_err(fail)?;
        Ok(members.into_iter().map(|listed| self.describe(listed)).collect())
    }
}

/// `scheme://HOST:PORT`, or `unix://PATH`; at least one.
pub(super) fn check_urls(urls: &[String]) -> Result<(), Status> {
    let is_valid = |url: &String| {
        let Some((scheme, place)) = url.split_once("://") else { return false };
        let is_plain = !place.is_empty() && !place.contains(',') && !place.contains(' ');
        match scheme {
            "unix" | "unixs" => is_plain,
            "http" | "https" => {
                let port = place.rsplit_once(':').filter(|(host, _)| !host.is_empty());
                is_plain && port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
            }
            _ => false,
        }
    };
    if urls.is_empty() || !urls.iter().all(is_valid) {
        return Err(Status::invalid_argument(status::MEMBER_URLS_INVALID));
    }
    Ok(())
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Answer<pb::MemberAddResponse> {
        let node = self.member.node(&request)?;
        let pb::MemberAddRequest { peer_ur_ls, is_learner } = request.into_inner();
        node.require(revfs_store::Need::Root).map_err(fail)?;
        check_urls(&peer_ur_ls)?;
        let role = Some(if is_learner { MemberRole::Learner } else { MemberRole::Voter });
        let new = NewMember { role, replaces: None, peer_urls: peer_ur_ls };
        let id = node.member_add(new).await.map_err(fail)?;
        let members = self.members(&node, false).await?;
        let member = members.iter().find(|member| member.id == id).cloned();
        Ok(Response::new(pb::MemberAddResponse { header: self.header().await, member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Answer<pb::MemberRemoveResponse> {
        let node = self.member.node(&request)?;
        node.member_remove(request.into_inner().id, false).await.map_err(fail)?;
        let members = self.members(&node, false).await?;
        Ok(Response::new(pb::MemberRemoveResponse { header: self.header().await, members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Answer<pb::MemberUpdateResponse> {
        let node = self.member.node(&request)?;
        let pb::MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        node.require(revfs_store::Need::Root).map_err(fail)?;
        check_urls(&peer_ur_ls)?;
        node.member_set_urls(id, peer_ur_ls).await.map_err(fail)?;
        let members = self.members(&node, false).await?;
        Ok(Response::new(pb::MemberUpdateResponse { header: self.header().await, members }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Answer<pb::MemberListResponse> {
        let node = self.member.node(&request)?;
        let members = self.members(&node, request.into_inner().linearizable).await?;
        Ok(Response::new(pb::MemberListResponse { header: self.header().await, members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Answer<pb::MemberPromoteResponse> {
        let node = self.member.node(&request)?;
        let id = request.into_inner().id;
        node.member_set_role(id, MemberRole::Voter).await.map_err(fail)?;
        let members = self.members(&node, false).await?;
        Ok(Response::new(pb::MemberPromoteResponse { header: self.header().await, members }))
    }
}

#[cfg(test)]
mod tests {
    use super::check_urls;

    #[test]
    fn a_member_is_found_at_urls_with_host_and_port() {
        let valid = |urls: &[&str]| {
            let urls: Vec<String> = urls.iter().map(|&url| url.to_owned()).collect();
            check_urls(&urls).is_ok()
        };
        assert!(valid(&["http://127.0.0.1:2380"]));
        assert!(valid(&["https://[::1]:2380", "unix:///run/peer"]));
        let invalid = [
            "",
            "127.0.0.1:2380",
            "http://host",
            "http://:1",
            "ftp://h:1",
            "http://a:1,http://b:2",
        ];
        for url in invalid {
            assert!(!valid(&[url]), "{url}");
        }
        assert!(!valid(&[]) && !valid(&["http://h:70000"]));
    }
}
