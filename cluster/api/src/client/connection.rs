//! One connection to one node: how it is made, and what each request on it brings along.

use hyper_util::rt::TokioIo;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Uri};
use tonic::{Request, Status};

use super::endpoint::Endpoint;
use super::settings::Settings;
use crate::keyspace::{Error, Result};
use crate::socket_path::SocketPath;
use crate::wire::etcdserverpb::kv_client::KvClient;
use crate::wire::etcdserverpb::lease_client::LeaseClient;
use crate::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::wire::etcdserverpb::watch_client::WatchClient;
use crate::wire::revfs::revfs_client::RevfsClient;
use crate::wire::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};

/// Marks a request that a node without a leader is to answer, too.
#[derive(Clone, Copy, Debug)]
struct LeaderOrNot;

/// How a node is can be asked of one without a leader, whatever the settings say.
pub(super) fn leader_or_not<T>(mut request: Request<T>) -> Request<T> {
    request.extensions_mut().insert(LeaderOrNot);
    request
}

/// What a request brings along besides its message.
#[derive(Clone, Debug)]
pub struct Headers {
    pub(super) token: Option<MetadataValue<Ascii>>,
    pub(super) require_leader: bool,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        if self.require_leader && request.extensions().get::<LeaderOrNot>().is_none() {
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        }
        Ok(request)
    }
}

/// What the generated clients send through.
pub type Wire = InterceptedService<Channel, Headers>;

/// A node that a call goes to.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(super) endpoint: Endpoint,
    pub(super) wire: Wire,
}

impl Connection {
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// For services that have no method here.
    #[must_use]
    pub fn wire(&self) -> Wire {
        self.wire.clone()
    }

    #[must_use]
    pub fn revfs(&self) -> RevfsClient<Wire> {
        RevfsClient::new(self.wire())
            .max_encoding_message_size(REQUEST_BYTES_MAX)
            .max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    #[must_use]
    pub fn kv(&self) -> KvClient<Wire> {
        KvClient::new(self.wire()).max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    #[must_use]
    pub fn lease(&self) -> LeaseClient<Wire> {
        LeaseClient::new(self.wire()).max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    #[must_use]
    pub fn watch(&self) -> WatchClient<Wire> {
        WatchClient::new(self.wire()).max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    #[must_use]
    pub fn maintenance(&self) -> MaintenanceClient<Wire> {
        MaintenanceClient::new(self.wire()).max_decoding_message_size(RESPONSE_BYTES_MAX)
    }
}

/// A channel connects when it is first used, and again when its connection was lost. Dropped, it ends
/// when its last request has been answered.
///
/// # Errors
/// [`Error::Invalid`] if the address, or the settings of TLS, cannot be used.
pub fn channel(endpoint: &Endpoint, settings: &Settings) -> Result<Channel> {
    let uri = match endpoint {
        Endpoint::Unix(_) => "http://localhost".to_owned(),
        Endpoint::Tcp { .. } => endpoint.to_string(),
    };
    let wrong = |error: &dyn std::error::Error| {
        Error::Invalid(format!("endpoint {endpoint}: {}", super::failure::with_causes(error)))
    };
    let mut to = tonic::transport::Endpoint::from_shared(uri)
        .map_err(|error| wrong(&error))?
        .connect_timeout(settings.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(settings.keep_alive_interval)
        .keep_alive_timeout(settings.keep_alive_timeout)
        .keep_alive_while_idle(true);
    if let Endpoint::Tcp { is_secure: true, .. } = endpoint {
        let tls = settings.tls.config().map_err(|error| wrong(&error))?;
        to = to.tls_config(tls).map_err(|error| wrong(&error))?;
    }
    let Endpoint::Unix(path) = endpoint else {
        return Ok(to.connect_lazy());
    };
    let path = path.clone();
    Ok(to.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move {
            let short = SocketPath::new(&path)?;
            tokio::net::UnixStream::connect(short.as_path()).await.map(TokioIo::new)
        }
    })))
}
