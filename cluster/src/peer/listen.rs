//! Where a member listens for others.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::StreamExt;
use revfs_api::client::Tls as ClientTls;
use revfs_api::wire::peer::peer_server::PeerServer as Service;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use super::complaints::Complaints;
use super::link::MESSAGE_BYTES_MAX;
use super::service::PeerService;
use crate::grpc::{Connection, ListenError, Phase, bind, wire_of_member};
use crate::tls::{Tls, trouble};

/// Bytes that a member may send before they are read: a batch of appends.
const WINDOW_BYTES: u32 = 4 << 20;

/// One place where other members find this one.
#[derive(Clone, Debug)]
pub struct PeerListener {
    /// Port 0 = any free one.
    pub address: SocketAddr,
    /// Only members with a certificate that these rules accept are let in.
    pub tls: Option<Arc<Tls>>,
}

/// How this member and the others find and believe each other.
#[derive(Clone, Debug, Default)]
pub struct PeerListen {
    pub listeners: Vec<PeerListener>,
    /// Where the others are told to find it: URLs.
    pub advertised: Vec<String>,
    /// How this member shows itself to others, and whom it believes.
    pub tls: ClientTls,
}

/// The sockets on which other members are answered.
#[derive(Debug)]
pub(crate) struct PeerServer {
    sockets: Vec<(tokio::net::TcpListener, Option<Arc<Tls>>)>,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl PeerServer {
    /// Binds all of them. They are served once there is something to serve.
    pub(crate) async fn bind(listeners: &[PeerListener]) -> Result<Self, ListenError> {
        let (mut sockets, mut addresses) = (Vec::new(), Vec::new());
        for PeerListener { address, tls } in listeners {
            let socket = bind(*address).await?;
            let bound = socket.local_addr();
            addresses.push(bound.map_err(|source| ListenError::Tcp { address: *address, source })?);
            sockets.push((socket, tls.clone()));
        }
        Ok(Self { sockets, addresses })
    }
}

/// Tells of a connection that did not come about. Without a reason that a setting can mend it is nobody of ours:
/// somebody has only looked whether the port is open.
fn tell(complaints: &Complaints, from: SocketAddr, error: &io::Error) {
    match trouble(error) {
        None => {
            tracing::info!(%from, %error, "a connection to where members are answered was refused");
        }
        Some(trouble) if complaints.is_news(&format!("{} {trouble}", from.ip())) => {
            tracing::warn!(%from, %error, "another member was refused: {trouble}");
        }
        Some(_) => {}
    }
}

/// Answers other members until `stop` is set or its sender is gone. Their streams have no end of their
/// own, so that they are cut.
pub(crate) fn serve(
    server: PeerServer,
    service: PeerService,
    stop: &watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send + 'static {
    let service = Service::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (phase, phases) = watch::channel(Phase::Serving);
    let mut tasks = JoinSet::new();
    let complaints = Arc::new(Complaints::default());
    for (socket, tls) in server.sockets {
        let (phases, complaints) = (phases.clone(), Arc::clone(&complaints));
        let incoming = TcpListenerStream::new(socket).map(move |stream| {
            let stream = stream?;
            stream.set_nodelay(true)?;
            let (from, complaints) = (stream.peer_addr()?, Arc::clone(&complaints));
            let refused = move |error: &io::Error| tell(&complaints, from, error);
            let accepted = wire_of_member(stream, tls.as_deref(), Box::new(refused));
            Ok::<_, io::Error>(Connection::new(accepted, phases.clone()))
        });
        let served = Server::builder()
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .add_service(service.clone())
            .serve_with_incoming(incoming);
        tasks.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "other members are not answered any more");
            }
        });
    }
    let mut stop = stop.clone();
    async move {
        // An error says that the node is gone.
        stop.wait_for(|&stops| stops).await.map(drop).ok();
        phase.send_replace(Phase::Cut);
        tasks.shutdown().await;
    }
}
