//! Serving: binds the sockets, runs the services on them, and drains at shutdown.
//!
//! Life: *serving* until the shutdown signal; then *draining*: no new connection is taken, requests
//! that run are finished and answered, watches end with a code that clients retry; after the drain's
//! bound whatever is still open is *cut*. The unix socket's file is removed at the end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use revfs_api::KeySpace;
use revfs_api::keyspace;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;

use super::connection::{Connection, Peer, Phase, Wire, reached, wire};
use super::limits::Limits;
use super::listener::{self, ListenError, OpenTo, SocketFile};
use super::member::Backend;
use super::routes;
use super::watch::PROGRESS_INTERVAL;
use crate::http::{self, Access, Site, Sites};
use crate::local::Local;
use crate::tls::Tls;

/// Connections notice a cut at once; one that does not is abandoned after this.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after accept failed: without file descriptors it would fail again at once, and for ever.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Port 0 = any free one.
    Tcp(SocketAddr),
    /// A unix socket, open to whomever the umask lets in.
    Unix(PathBuf),
}

/// One place where clients are served.
#[derive(Clone, Debug)]
pub struct Listener {
    pub address: Address,
    /// Only encrypted connections are served, by these rules.
    pub tls: Option<Arc<Tls>>,
    pub shows: Shows,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    Everything,
    /// How the node is: metrics, health and version, and no data.
    Metrics,
}

/// Where to listen, and how to stop.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Path of a unix socket, for its owner only.
    pub socket: Option<PathBuf>,
    /// Port 0 = any free one.
    pub tcp: Vec<SocketAddr>,
    /// What else is served, each in its way.
    pub listeners: Vec<Listener>,
    pub limits: Limits,
    /// How long requests may run on after the shutdown signal.
    pub drain_timeout: Duration,
    /// `--name`: of this member, for people.
    pub name: String,
    /// `--advertise-client-urls`: where clients find this member; empty = at the TCP addresses.
    pub advertise_client_urls: Vec<String>,
    /// `--watch-progress-notify-interval`: between two marks for etcd watches that asked for them.
    pub watch_progress_interval: Duration,
    /// Under which names, and from which pages, HTTP is answered.
    pub access: Access,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            socket: None,
            tcp: Vec::new(),
            listeners: Vec::new(),
            limits: Limits::default(),
            drain_timeout: Duration::from_secs(5),
            name: "default".to_owned(),
            advertise_client_urls: Vec::new(),
            watch_progress_interval: PROGRESS_INTERVAL,
            access: Access::default(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot serve a key space that does not tell its status: {0}")]
    KeySpace(#[source] keyspace::Error),
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything was answered.
    Clean,
    /// The drain's bound passed, and what was open was cut.
    Cut,
}

/// A running server.
#[derive(Debug)]
#[must_use = "wait for finished() before the key space is closed"]
pub struct ServeHandle {
    socket: Option<PathBuf>,
    tcp: Vec<SocketAddr>,
    bound: Vec<Address>,
    supervisor: JoinHandle<Drained>,
}

impl ServeHandle {
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// The bound addresses, in the order asked for.
    #[must_use]
    pub fn tcp(&self) -> &[SocketAddr] {
        &self.tcp
    }

    /// The addresses of [`Listen::listeners`], in the order asked for.
    #[must_use]
    pub fn bound(&self) -> &[Address] {
        &self.bound
    }

    /// Waits until the server has stopped after its shutdown signal.
    pub async fn finished(self) -> Drained {
        match self.supervisor.await {
            Ok(drained) => drained,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is being shut down.
                Err(_) => Drained::Cut,
            },
        }
    }
}

/// Serves a node on all of `listen` until `shutdown` is ready. Who comes through the unix socket may do
/// everything; others what their user may, once authentication is enabled.
///
/// # Errors
/// If a socket cannot be bound (none is left behind then), or the node does not answer.
pub async fn serve_node<F>(
    listen: Listen,
    node: Arc<Local>,
    shutdown: F,
) -> Result<ServeHandle, ServeError>
where
    F: Future<Output = ()> + Send + 'static,
{
    serve_backend(listen, Backend::Node(node), shutdown).await
}

/// Serves a key space that is no node, with the services that need no more. Everybody may do everything.
///
/// # Errors
/// As [`serve_node`].
pub async fn serve<F>(
    listen: Listen,
    keyspace: Arc<dyn KeySpace>,
    shutdown: F,
) -> Result<ServeHandle, ServeError>
where
    F: Future<Output = ()> + Send + 'static,
{
    serve_backend(listen, Backend::Other(keyspace), shutdown).await
}

async fn serve_backend<F>(
    listen: Listen,
    backend: Backend,
    shutdown: F,
) -> Result<ServeHandle, ServeError>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (phase, phases) = watch::channel(Phase::Serving);
    let client_urls = Arc::new(OnceLock::new());
    let node = match &backend {
        Backend::Node(node) => Some(Arc::clone(node)),
        Backend::Other(_) => None,
    };
    let services = routes::all(&listen, backend, &phases, &client_urls).await?;
    let Sites { clients, lookers } =
        http::beside(services, node.clone(), &listen.limits, &listen.access);
    let Listen {
        socket, tcp, listeners, limits, drain_timeout, name, advertise_client_urls, ..
    } = listen;
    let mut open =
        Open { site: clients.clone(), limits, phases, servers: JoinSet::new(), files: Vec::new() };
    if let Some(path) = &socket {
        open.unix(path, OpenTo::Owner, None).await?;
    }
    let mut bound_tcp = Vec::new();
    for address in tcp {
        bound_tcp.push(open.tcp(address, None).await?);
    }
    let mut bound = Vec::new();
    for Listener { address, tls, shows } in listeners {
        open.site = match shows {
            Shows::Everything => clients.clone(),
            Shows::Metrics => lookers.clone(),
        };
        bound.push(match address {
            Address::Tcp(address) => Address::Tcp(open.tcp(address, tls).await?),
            Address::Unix(path) => {
                open.unix(&path, OpenTo::Umask, tls).await?;
                Address::Unix(path)
            }
        });
    }
    let mut urls = advertise_client_urls;
    if urls.is_empty() {
        let tcp = bound.iter().filter_map(|address| match address {
            Address::Tcp(address) => Some(address),
            Address::Unix(_) => None,
        });
        urls = bound_tcp.iter().chain(tcp).map(|address| format!("http://{address}")).collect();
    }
    if let Some(node) = node {
        node.present(name, urls.clone());
    }
    client_urls.set(urls).expect("they are set here alone");
    let Open { servers, files, .. } = open;
    let supervisor = tokio::spawn(supervise(servers, files, phase, shutdown, drain_timeout));
    Ok(ServeHandle { socket, tcp: bound_tcp, bound, supervisor })
}

/// What is open so far: dropped before it is served, all of it closes.
struct Open {
    site: Site,
    limits: Limits,
    phases: watch::Receiver<Phase>,
    servers: JoinSet<()>,
    files: Vec<SocketFile>,
}

impl Open {
    async fn unix(
        &mut self,
        path: &Path,
        open_to: OpenTo,
        tls: Option<Arc<Tls>>,
    ) -> Result<(), ListenError> {
        let (listener, file) = listener::unix(path, open_to).await?;
        self.files.push(file);
        let is_owner = open_to == OpenTo::Owner;
        self.serve(
            UnixListenerStream::new(listener)
                .map(move |stream| stream.map(|stream| wire(stream, is_owner, tls.as_deref()))),
        );
        Ok(())
    }

    /// The address that is bound.
    async fn tcp(
        &mut self,
        address: SocketAddr,
        tls: Option<Arc<Tls>>,
    ) -> Result<SocketAddr, ListenError> {
        let listener = listener::tcp(address).await?;
        let bound = listener.local_addr();
        let bound = bound.map_err(|source| ListenError::Tcp { address, source })?;
        self.serve(TcpListenerStream::new(listener).map(move |stream| {
            let stream = stream?;
            stream.set_nodelay(true)?;
            Ok(wire(stream, false, tls.as_deref()))
        }));
        Ok(bound)
    }

    fn serve(&mut self, incoming: impl Stream<Item = Accepted> + Send + 'static) {
        let Self { site, limits, phases, .. } = self;
        let served = run(site.clone(), limits.clone(), incoming, phases.clone());
        self.servers.spawn(served);
    }
}

/// A connection as the listener gives it.
type Accepted = io::Result<(Box<dyn Wire>, Peer)>;

/// Serves one listener until the drain has ended.
async fn run(
    site: Site,
    limits: Limits,
    incoming: impl Stream<Item = Accepted> + Send,
    phases: watch::Receiver<Phase>,
) {
    let draining = reached(phases.clone(), Phase::Draining);
    let connections = incoming.then(|accepted| {
        let phases = phases.clone();
        async move {
            match accepted {
                Ok(accepted) => Ok(Connection::new(accepted, phases)),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    Err(error)
                }
            }
        }
    });
    let served = Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(limits.concurrent_streams_max)
        .http2_keepalive_interval(limits.keep_alive_interval)
        .http2_keepalive_timeout(Some(limits.keep_alive_timeout))
        .serve_with_incoming_shutdown(site, connections, draining)
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "a listener has stopped");
    }
}

async fn supervise(
    mut servers: JoinSet<()>,
    files: Vec<SocketFile>,
    phase: watch::Sender<Phase>,
    shutdown: impl Future<Output = ()>,
    drain_timeout: Duration,
) -> Drained {
    shutdown.await;
    phase.send_replace(Phase::Draining);
    let all = async { while servers.join_next().await.is_some() {} };
    let drained = match tokio::time::timeout(drain_timeout, all).await {
        Ok(()) => Drained::Clean,
        Err(_) => {
            phase.send_replace(Phase::Cut);
            let all = async { while servers.join_next().await.is_some() {} };
            if tokio::time::timeout(CUT_TIMEOUT, all).await.is_err() {
                servers.abort_all();
            }
            Drained::Cut
        }
    };
    drop(files);
    drained
}
