//! A connection whose handshake takes place with its first reading or writing, in its own task.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream as Encrypted;
use tokio_rustls::{Accept, TlsAcceptor};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Bound of a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The common name in the certificate of a connection's client, once the handshake has verified it.
pub(crate) type CommonName = Arc<OnceLock<Arc<str>>>;

/// Told why a handshake failed.
pub(crate) type Refused = Box<dyn Fn(&io::Error) + Send>;

/// See the module.
pub(crate) struct TlsStream<IO> {
    state: State<IO>,
    /// Set by the handshake; `None` if names mean nothing here.
    name: Option<CommonName>,
    refused: Refused,
    timeout: Pin<Box<Sleep>>,
}

enum State<IO> {
    Handshake(Box<Accept<IO>>),
    Open(Box<Encrypted<IO>>),
    Failed,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> TlsStream<IO> {
    pub(crate) fn new(
        io: IO,
        acceptor: &TlsAcceptor,
        name: Option<CommonName>,
        refused: Refused,
    ) -> Self {
        let timeout = Box::pin(tokio::time::sleep(HANDSHAKE_TIMEOUT));
        Self { state: State::Handshake(Box::new(acceptor.accept(io))), name, refused, timeout }
    }

    /// The encrypted stream, once there is one.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&mut Encrypted<IO>>> {
        if let State::Handshake(accept) = &mut self.state {
            let ended = match Pin::new(accept).poll(context) {
                Poll::Ready(ended) => ended,
                Poll::Pending => {
                    ready!(self.timeout.as_mut().poll(context));
                    Err(io::Error::new(io::ErrorKind::TimedOut, "no handshake in time"))
                }
            };
            match ended {
                Ok(stream) => {
                    self.learn_name(&stream);
                    self.state = State::Open(Box::new(stream));
                }
                Err(error) => {
                    (self.refused)(&error);
                    self.state = State::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        match &mut self.state {
            State::Open(stream) => Poll::Ready(Ok(stream)),
            State::Handshake(_) | State::Failed => {
                Poll::Ready(Err(io::Error::from(io::ErrorKind::NotConnected)))
            }
        }
    }

    fn learn_name(&self, stream: &Encrypted<IO>) {
        let Some(name) = &self.name else { return };
        let certificates = stream.get_ref().1.peer_certificates();
        if let Some(found) = certificates.and_then(<[_]>::first).and_then(common_name) {
            // There is one handshake to a connection.
            name.set(found).ok();
        }
    }
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    (!name.is_empty()).then(|| Arc::from(name))
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = ready!(self.poll_open(context))?;
        Pin::new(stream).poll_read(context, buffer)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = ready!(self.poll_open(context))?;
        Pin::new(stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = ready!(self.poll_open(context))?;
        Pin::new(stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Open(stream) => Pin::new(stream).poll_shutdown(context),
            // Nothing was said yet that would have to be ended.
            State::Handshake(_) | State::Failed => Poll::Ready(Ok(())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = ready!(self.poll_open(context))?;
        Pin::new(stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
