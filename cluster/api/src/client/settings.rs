//! How a client behaves: every number and choice that a caller may change, each with its default.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// How a client behaves. The defaults suit nodes on the same machine or network.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest time of one call, repetitions included.
    pub call_timeout: Duration,
    /// Longest time of a transaction that is too large for one request.
    pub large_txn_timeout: Duration,
    /// Longest time of a compaction that waits for the space to be free.
    pub physical_compaction_timeout: Duration,
    /// Longest time of one attempt to connect.
    pub connect_timeout: Duration,
    /// Where there are several endpoints: how long one is waited for before a read, or the opening of a
    /// watch, goes to the next. It doubles each time that all of them were asked.
    pub failover_timeout: Duration,
    /// An endpoint that did not answer is asked only after the others for so long.
    pub pass_over: Duration,
    /// How often a read is sent at most; where there are more endpoints than that, once to each.
    pub read_attempts: u32,
    /// Pause after each endpoint was asked once; each further one is twice as long, up to `pause_max`.
    pub pause: Duration,
    pub pause_max: Duration,
    /// How long a watch tries to come back after its connection was lost.
    pub watch_patience: Duration,
    /// A connection that says nothing for so long is asked for a sign of life.
    pub keep_alive_interval: Duration,
    /// A connection that does not answer that for so long is dead.
    pub keep_alive_timeout: Duration,
    /// Members without a leader refuse requests, and end watches, at once (etcd's `hasleader`): then
    /// another is asked. Without it a watch on a member that is cut off stays silent.
    pub require_leader: bool,
    /// For endpoints `https://`.
    pub tls: Tls,
    /// Who logs in; nobody where authentication is off.
    pub login: Option<Credentials>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(10),
            large_txn_timeout: Duration::from_mins(2),
            physical_compaction_timeout: Duration::from_mins(10),
            connect_timeout: Duration::from_secs(2),
            failover_timeout: Duration::from_secs(3),
            pass_over: Duration::from_secs(5),
            read_attempts: 4,
            pause: Duration::from_millis(25),
            pause_max: Duration::from_secs(1),
            watch_patience: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(5),
            require_leader: true,
            tls: Tls::default(),
            login: None,
        }
    }
}

impl Settings {
    /// Pause before repetition `repetition`, counted from 0.
    pub(super) fn pause_before(&self, repetition: u32) -> Duration {
        self.pause.saturating_mul(2_u32.saturating_pow(repetition)).min(self.pause_max)
    }
}

/// A user and the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Files with PEM that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path:?}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("a client certificate needs its key, and a key its certificate")]
    Half,
    #[error("no certificates to trust: none of {SYSTEM_ROOTS:?} is there; name a file with CAs")]
    NoRoots,
}

/// Where systems keep the certificates that they trust.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Whom a client believes, and as whom it shows itself. A server that cannot prove its name is never
/// talked to: there is no setting that would allow it.
#[derive(Clone, Default)]
pub struct Tls {
    /// PEM of the authorities that may vouch for a server. Empty = those of the system.
    pub trusted: Vec<u8>,
    /// PEM of the client's certificate (chain) and key, for servers that ask for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name that the server's certificate must have; else the host of the endpoint.
    pub server_name: Option<String>,
    /// Where the PEM came from, if from files: they are read again when a node could not be reached, for
    /// certificates run out and are replaced.
    pub files: TlsFiles,
}

/// Files with PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    pub trusted: Option<PathBuf>,
    /// Certificate (chain) and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("trusted_bytes", &self.trusted.len())
            .field("has_identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}

impl Tls {
    /// Reads what files name.
    ///
    /// # Errors
    /// If a file cannot be read, or a certificate comes without its key.
    pub fn from_files(
        trusted: Option<&Path>,
        certificate: Option<&Path>,
        key: Option<&Path>,
        server_name: Option<String>,
    ) -> Result<Self, TlsError> {
        let identity = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate.to_owned(), key.to_owned())),
            _ => return Err(TlsError::Half),
        };
        let files = TlsFiles { trusted: trusted.map(Path::to_owned), identity };
        Self { server_name, ..Self::default() }.with(files)
    }

    /// The same with what the files hold now.
    fn with(&self, files: TlsFiles) -> Result<Self, TlsError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| TlsError::Read { path: path.clone(), source })
        };
        let identity = match &files.identity {
            Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
            None => self.identity.clone(),
        };
        let trusted = match &files.trusted {
            Some(path) => read(path)?,
            None => self.trusted.clone(),
        };
        Ok(Self { trusted, identity, server_name: self.server_name.clone(), files })
    }

    /// The same as its files say it now, if they say otherwise than when they were read.
    pub(super) fn renewed(&self) -> Option<Self> {
        if self.files == TlsFiles::default() {
            return None;
        }
        // One that cannot be read is being replaced: what was read goes on.
        let now = self.with(self.files.clone()).ok()?;
        (now.trusted != self.trusted || now.identity != self.identity).then_some(now)
    }

    /// What the transport wants to know.
    ///
    /// # Errors
    /// [`TlsError::NoRoots`] if nobody is named and the system names nobody.
    pub(super) fn config(&self) -> Result<ClientTlsConfig, TlsError> {
        let trusted = if self.trusted.is_empty() {
            let found = SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok());
            found.ok_or(TlsError::NoRoots)?
        } else {
            self.trusted.clone()
        };
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trusted));
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        if let Some(name) = &self.server_name {
            config = config.domain_name(name);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound() {
        let settings = Settings { pause_max: Duration::from_millis(90), ..Settings::default() };
        let pauses: Vec<u128> =
            (0..4).map(|number| settings.pause_before(number).as_millis()).collect();
        assert_eq!(pauses, [25, 50, 90, 90]);
        assert_eq!(settings.pause_before(u32::MAX).as_millis(), 90);
    }

    #[test]
    fn secrets_are_not_printed() {
        let login = Some(Credentials { user: "root".into(), password: "hunter2".into() });
        let tls = Tls { identity: Some((b"CERT".into(), b"KEYKEY".into())), ..Tls::default() };
        let printed = format!("{:?}", Settings { login, tls, ..Settings::default() });
        assert!(printed.contains("root"), "{printed}");
        assert!(!printed.contains("hunter2") && !printed.contains("75, 69, 89"), "{printed}");
    }

    #[test]
    fn files_that_say_something_else_are_noticed_and_missing_ones_are_not_missed() {
        let path = std::env::temp_dir().join(format!("revfs-trusted-{}.pem", std::process::id()));
        std::fs::write(&path, "one").unwrap();
        let tls = Tls::from_files(Some(&path), None, None, None).unwrap();
        assert!(tls.renewed().is_none());
        std::fs::write(&path, "two").unwrap();
        assert_eq!(tls.renewed().unwrap().trusted, b"two");
        std::fs::remove_file(&path).unwrap();
        assert!(tls.renewed().is_none());
        assert!(Tls::default().renewed().is_none());
    }

    #[test]
    fn a_certificate_without_its_key_is_refused_and_a_file_that_is_not_there_is_named() {
        let there = Path::new("/dev/null");
        assert!(matches!(Tls::from_files(None, Some(there), None, None), Err(TlsError::Half)));
        let missing = Path::new("/nowhere/ca.pem");
        let error = Tls::from_files(Some(missing), None, None, None).unwrap_err();
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    }
}
