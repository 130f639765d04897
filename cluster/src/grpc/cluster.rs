//! etcd's Cluster service, for a cluster of one: in this release nothing is replicated yet, and no
//! member listens for others.

use std::sync::{Arc, OnceLock};

use revfs_api::status;
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::cluster_server::Cluster;
use revfs_store::Need;
use tonic::{Request, Response, Status};

use super::member::{Member, fail};
use crate::local::Local;
use crate::raft::RaftMember;

pub(super) struct ClusterService {
    pub(super) member: Arc<Member>,
    pub(super) name: String,
    /// Where clients find this member; known once its sockets are bound.
    pub(super) client_urls: Arc<OnceLock<Vec<String>>>,
}

type Answer<T> = Result<Response<T>, Status>;

impl ClusterService {
    /// The node for who sent a request, who must be root.
    fn root<T>(&self, request: &Request<T>) -> Result<Arc<Local>, Status> {
        let node = self.member.node(request)?;
        node.require(Need::Root).map_err(fail)?;
        Ok(node)
    }

    fn describe(&self, member: RaftMember) -> pb::Member {
        pb::Member {
            id: member.id,
            name: self.name.clone(),
            peer_ur_ls: peer_urls(&member.address),
            client_ur_ls: self.client_urls.get().cloned().unwrap_or_default(),
            is_learner: !member.votes,
        }
    }

    /// etcd's headers of this service name no revision.
    async fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.member.header(revfs_api::keyspace::Revision::NONE).await)
    }

    async fn members(&self, node: &Local) -> Result<Vec<RaftMember>, Status> {
        node.members(true).await.map_err(fail)
    }
}

/// Several addresses are kept as one.
fn peer_urls(address: &str) -> Vec<String> {
    address.split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect()
}

fn find(members: Vec<RaftMember>, id: u64) -> Result<RaftMember, Status> {
    let found = members.into_iter().find(|member| member.id == id);
    found.ok_or_else(|| Status::not_found(status::MEMBER_NOT_FOUND))
}

/// `scheme://HOST:PORT`, or `unix://PATH`; at least one.
fn check_urls(urls: &[String]) -> Result<(), Status> {
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
        let node = self.root(&request)?;
        let pb::MemberAddRequest { peer_ur_ls, .. } = request.into_inner();
        check_urls(&peer_ur_ls)?;
        let members = self.members(&node).await?;
        let mut known = members.iter().flat_map(|member| peer_urls(&member.address));
        if known.any(|url| peer_ur_ls.contains(&url)) {
            return Err(Status::failed_precondition(status::PEER_URL_EXISTS));
        }
        Err(Status::unimplemented(
            "member add: this release runs clusters of one member and replicates nothing; \
             keep a second copy with 'revfs snapshot save'",
        ))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Answer<pb::MemberRemoveResponse> {
        let node = self.root(&request)?;
        find(self.members(&node).await?, request.into_inner().id)?;
        // Without its only member a cluster has no quorum.
        Err(Status::failed_precondition(status::TOO_FEW_STARTED))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Answer<pb::MemberUpdateResponse> {
        let node = self.root(&request)?;
        let pb::MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        check_urls(&peer_ur_ls)?;
        find(self.members(&node).await?, id)?;
        node.set_address(id, peer_ur_ls.join(",")).await.map_err(fail)?;
        let members = self.members(&node).await?;
        let members = members.into_iter().map(|member| self.describe(member)).collect();
        Ok(Response::new(pb::MemberUpdateResponse { header: self.header().await, members }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Answer<pb::MemberListResponse> {
        let node = self.member.node(&request)?;
        let members = node.members(request.into_inner().linearizable).await.map_err(fail)?;
        let members = members.into_iter().map(|member| self.describe(member)).collect();
        Ok(Response::new(pb::MemberListResponse { header: self.header().await, members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Answer<pb::MemberPromoteResponse> {
        let node = self.root(&request)?;
        find(self.members(&node).await?, request.into_inner().id)?;
        Err(Status::failed_precondition(status::NOT_A_LEARNER))
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
