//! A connection that the server can cut: at the end of the drain whatever is still open is closed, so
//! that shutting down has a bound. It knows who is at its other end, as far as the transport says.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tonic::transport::server::Connected;

use super::authority::Names;
use crate::tls::Tls;
use crate::tls::stream::{CommonName, Refused, TlsStream};

/// Less than this waits once for more before it is written.
const GATHERED_BYTES: usize = 4_096;

/// Where the server stands. It only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// No new connections or requests; streams end, requests are finished.
    Draining,
    /// Connections are closed.
    Cut,
}

/// Waits until the server is at `phase`, or gone.
pub(super) async fn reached(mut phases: watch::Receiver<Phase>, phase: Phase) {
    // An error says that the server is gone, which is later than every phase.
    phases.wait_for(|&now| now >= phase).await.map(drop).ok();
}

/// Who is at the other end, as far as the transport says. A request has it as an extension.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// It came through the socket in the data directory, which only the owner of the data may open.
    pub(crate) is_trusted: bool,
    /// What it says was encrypted, and came to whom it was meant for.
    pub(crate) is_encrypted: bool,
    certificate_name: CommonName,
}

impl Peer {
    /// Whoever came through the socket in the data directory.
    pub(super) fn owner() -> Self {
        Self { is_trusted: true, ..Self::default() }
    }

    /// The same without its certificate's name.
    pub(crate) fn without_certificate(&self) -> Self {
        Self { certificate_name: CommonName::default(), ..self.clone() }
    }

    /// The common name of the client's certificate, if that was verified and names its user.
    pub(crate) fn certificate_name(&self) -> Option<&Arc<str>> {
        self.certificate_name.get()
    }
}

/// What a connection is read from and written to.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Wire for IO {}

/// A client's connection has just been accepted; with `tls` its handshake is still to come.
pub(super) fn wire<IO>(io: IO, is_owner: bool, tls: Option<&Tls>) -> (Box<dyn Wire>, Peer)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = if is_owner { Peer::owner() } else { Peer::default() };
    let refused = |error: &io::Error| tracing::info!(%error, "a connection was refused");
    encrypted(io, peer, tls, Box::new(refused))
}

/// The same of another member's; whoever is refused is told of.
pub(crate) fn wire_of_member<IO>(
    io: IO,
    tls: Option<&Tls>,
    refused: Refused,
) -> (Box<dyn Wire>, Peer)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    encrypted(io, Peer::default(), tls, refused)
}

fn encrypted<IO>(io: IO, peer: Peer, tls: Option<&Tls>, refused: Refused) -> (Box<dyn Wire>, Peer)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(tls) = tls else { return (Box::new(io), peer) };
    let peer = Peer { is_encrypted: true, ..peer };
    let name = tls.name_is_user().then(|| peer.certificate_name.clone());
    (Box::new(TlsStream::new(io, &tls.acceptor(), name, refused)), peer)
}

/// Of any kind, so that HTTP is compiled once for all of them.
pub(crate) struct Connection {
    io: Box<dyn Wire>,
    names: Names,
    peer: Peer,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_cut: bool,
    /// What is to be written has waited for more.
    has_waited: bool,
}

impl Connection {
    pub(crate) fn new((io, peer): (Box<dyn Wire>, Peer), phases: watch::Receiver<Phase>) -> Self {
        Self {
            io,
            names: Names::default(),
            peer,
            cut: Box::pin(reached(phases, Phase::Cut)),
            is_cut: false,
            has_waited: false,
        }
    }

    /// Lets the tasks that are ready go first, once, when little is to be written: answers that one entry of
    /// the log, or one group of them, has brought go out together. grpc-go does the same.
    fn waits_for_more(&mut self, bytes: usize, context: &mut Context<'_>) -> bool {
        self.has_waited = !self.has_waited && bytes < GATHERED_BYTES;
        if self.has_waited {
            context.waker().wake_by_ref();
        }
        self.has_waited
    }

    /// Fails once the connection is cut; else makes the task wake up when it is.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.is_cut || self.cut.as_mut().poll(context).is_ready() {
            self.is_cut = true;
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has stopped"));
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        let Self { io, names, .. } = &mut *self;
        names.poll_read(io, context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(context)?;
        if self.waits_for_more(bytes.len(), context) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(context)?;
        let length = bytes.iter().map(|part| part.len()).sum();
        if self.waits_for_more(length, context) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.peer.clone()
    }
}
