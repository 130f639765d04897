//! Which services there are: those of a key space, and those of a node.

use std::sync::{Arc, OnceLock};

use revfs_api::wire::etcdserverpb::auth_server::AuthServer;
use revfs_api::wire::etcdserverpb::cluster_server::ClusterServer;
use revfs_api::wire::etcdserverpb::lease_server::LeaseServer;
use revfs_api::wire::etcdserverpb::maintenance_server::MaintenanceServer;
use revfs_api::wire::etcdserverpb::watch_server::WatchServer;
use revfs_api::wire::revfs::members_server::MembersServer;
use revfs_api::wire::revfs::revfs_server::RevfsServer;
use revfs_api::wire::v3electionpb::election_server::ElectionServer;
use revfs_api::wire::v3lockpb::lock_server::LockServer;
use revfs_api::wire::{DESCRIPTORS, REQUEST_BYTES_MAX};
use tokio::sync::{Semaphore, watch};
use tonic_health::ServingStatus;

use super::auth::AuthService;
use super::cluster::ClusterService;
use super::connection::{Phase, reached};
use super::election::ElectionService;
use super::kv::{KvService, Ranges};
use super::large_txn::LARGE_TXNS;
use super::lease::LeaseService;
use super::limits::Limits;
use super::lock::LockService;
use super::maintenance::MaintenanceService;
use super::member::{Backend, Member};
use super::members::MembersService;
use super::revfs::RevfsService;
use super::serve::{Listen, ServeError};
use super::watch::WatchService;
use crate::http::Services;

/// All services of what is served.
pub(super) async fn all(
    listen: &Listen,
    backend: Backend,
    phases: &watch::Receiver<Phase>,
    client_urls: &Arc<OnceLock<Vec<String>>>,
) -> Result<Services, ServeError> {
    let is_node = matches!(backend, Backend::Node(_));
    let member = Arc::new(Member::new(backend).await.map_err(ServeError::KeySpace)?);
    let limits = &listen.limits;
    let services = add_general(of_key_space(&member, limits, phases), phases);
    if !is_node {
        return Ok(services);
    }
    let message_bytes_max = limits.message_bytes_max();
    let watches = WatchService {
        member: Arc::clone(&member),
        phases: phases.clone(),
        progress_interval: listen.watch_progress_interval,
        part_bytes_max: limits.request_bytes_max,
        watches_max: limits.watches_max,
    };
    let watches = WatchServer::new(watches).max_decoding_message_size(message_bytes_max);
    let client_urls = Arc::clone(client_urls);
    let auth = AuthServer::new(AuthService { member: Arc::clone(&member) })
        .max_decoding_message_size(message_bytes_max);
    let members = MembersServer::new(MembersService { member: Arc::clone(&member) })
        .max_decoding_message_size(message_bytes_max);
    let cluster = ClusterService { member, name: listen.name.clone(), client_urls };
    let cluster = ClusterServer::new(cluster).max_decoding_message_size(message_bytes_max);
    let services = services.with(watches).with(auth);
    Ok(services.with(cluster).with(members))
}

/// What a key space can answer.
fn of_key_space(
    member: &Arc<Member>,
    limits: &Limits,
    phases: &watch::Receiver<Phase>,
) -> Services {
    let (member, phases) = (|| Arc::clone(member), || phases.clone());
    let message_bytes_max = limits.message_bytes_max();
    let kv = KvService { member: member(), limits: limits.clone() };
    let kv = Ranges::new(kv, message_bytes_max);
    let lease = LeaseServer::new(LeaseService { member: member(), phases: phases() })
        .max_decoding_message_size(message_bytes_max);
    let maintenance = MaintenanceServer::new(MaintenanceService { member: member() })
        .max_decoding_message_size(message_bytes_max);
    let lock = LockServer::new(LockService { member: member(), phases: phases() })
        .max_decoding_message_size(message_bytes_max);
    let election = ElectionServer::new(ElectionService { member: member(), phases: phases() })
        .max_decoding_message_size(message_bytes_max);
    let large = Semaphore::new(LARGE_TXNS);
    let revfs = RevfsService { member: member(), phases: phases(), large };
    let revfs = RevfsServer::new(revfs).max_decoding_message_size(REQUEST_BYTES_MAX);
    Services::default().with(kv).with(lease).with(maintenance).with(lock).with(election).with(revfs)
}

/// What every gRPC server tells: whether it serves, and what it speaks.
fn add_general(services: Services, phases: &watch::Receiver<Phase>) -> Services {
    let (mut reporter, health) = tonic_health::server::health_reporter();
    let draining = reached(phases.clone(), Phase::Draining);
    tokio::spawn(async move {
        draining.await;
        // The whole server has the empty name. Cleared, so that those who watch it are told this as
        // the last thing, and their streams end.
        reporter.set_service_status("", ServingStatus::NotServing).await;
        reporter.clear_service_status("").await;
    });
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let valid = "the descriptors were made when this was built";
    services
        .with(health)
        .with(reflection().build_v1().expect(valid))
        .with(reflection().build_v1alpha().expect(valid))
}
