//! TLS of the listeners: certificates from files, or one that the node signs itself; who is let in; and
//! the same again when the files change.
//!
//! ```text
//! options ─► settings of rustls ─► every new connection takes the newest ones
//!                  ▲ once a second, if a file is another: read again; what cannot be used is
//!                    reported once, and the old settings stay
//! ```
//!
//! The handshake runs in the task of its connection ([`stream`]), so that a client that is slow with it
//! holds up nobody.

mod reload;
mod self_signed;
mod settings;
pub(crate) mod stream;
mod trouble;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

pub use self::self_signed::self_signed;
pub use self::settings::{CIPHER_SUITES, MinVersion, cipher_suite};
pub(crate) use self::trouble::trouble;

/// What a listener shows, and whom it lets in.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Clients must have a certificate of one of these authorities.
    pub trusted_authorities: Option<PathBuf>,
    /// The common name of a client's certificate names its user.
    pub name_is_user: bool,
    /// Certificates of clients that were revoked.
    pub revoked: Option<PathBuf>,
    pub min_version: MinVersion,
    /// Those of TLS 1.2 by etcd's names; empty = all that are known. TLS 1.3 has its own.
    pub cipher_suites: Vec<String>,
}

impl TlsOptions {
    /// TLS 1.2 and 1.3, for everybody.
    #[must_use]
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self {
            certificate,
            key,
            trusted_authorities: None,
            name_is_user: false,
            revoked: None,
            min_version: MinVersion::Tls12,
            cipher_suites: Vec::new(),
        }
    }
}

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}", path = .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} holds no {what} that can be used: {reason}", path = .path.display())]
    Content { path: PathBuf, what: &'static str, reason: String },
    #[error("the certificate {certificate} and the key {key} cannot be used: {reason}",
        certificate = .certificate.display(), key = .key.display())]
    Pair { certificate: PathBuf, key: PathBuf, reason: String },
    #[error("cipher suite '{name}' is not known; known are: {known}", known = CIPHER_SUITES.join(", "))]
    CipherSuite { name: String },
    #[error("TLS cannot be set up: {reason}")]
    SetUp { reason: String },
}

/// Certificates and rules of a listener, as they are now.
#[derive(Debug)]
pub struct Tls {
    options: TlsOptions,
    settings: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads all files, and reads them again when they change, as long as it is in use.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(options: TlsOptions) -> Result<Arc<Self>, TlsError> {
        let before = reload::Stamps::of(&options);
        let settings = ArcSwap::new(settings::settings(&options)?);
        let tls = Arc::new(Self { options, settings });
        reload::spawn(&tls, before);
        Ok(tls)
    }

    fn reload(&self) -> Result<(), TlsError> {
        self.settings.store(settings::settings(&self.options)?);
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.settings.load_full())
    }

    pub(crate) fn name_is_user(&self) -> bool {
        self.options.name_is_user
    }
}
