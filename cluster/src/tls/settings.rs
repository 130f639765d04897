//! From files to the settings of rustls.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::{TlsError, TlsOptions};

/// The oldest version that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinVersion {
    Tls12,
    Tls13,
}

/// The suites of TLS 1.2 that can be chosen from, by the names that etcd has for them.
pub const CIPHER_SUITES: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// The suite of this name; Go also knows those with ChaCha20 by a shorter one.
#[must_use]
pub fn cipher_suite(name: &str) -> Option<&'static str> {
    let is_it = |known: &&&str| **known == name || known.strip_suffix("_SHA256") == Some(name);
    let found = CIPHER_SUITES.iter().find(is_it)?;
    let is_short = found.len() != name.len();
    (!is_short || name.ends_with("POLY1305")).then_some(*found)
}

pub(super) fn settings(options: &TlsOptions) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(provider(&options.cipher_suites)?);
    let set_up = |error: rustls::Error| TlsError::SetUp { reason: error.to_string() };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(options.min_version))
        .map_err(set_up)?;
    let builder = match &options.trusted_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = verifier(path, options.revoked.as_deref(), provider)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain: Vec<CertificateDer<'static>> = pem_items(&options.certificate, "certificate")?;
    let key = read(&options.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| content(&options.key, "private key", error.to_string()))?;
    let mut settings = builder.with_single_cert(chain, key).map_err(|error| TlsError::Pair {
        certificate: options.certificate.clone(),
        key: options.key.clone(),
        reason: error.to_string(),
    })?;
    settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(settings))
}

fn versions(min: MinVersion) -> Vec<&'static SupportedProtocolVersion> {
    match min {
        MinVersion::Tls12 => vec![&rustls::version::TLS12, &rustls::version::TLS13],
        MinVersion::Tls13 => vec![&rustls::version::TLS13],
    }
}

/// All of TLS 1.3's suites, and of TLS 1.2's those that are named.
fn provider(names: &[String]) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    if names.is_empty() {
        return Ok(provider);
    }
    let mut chosen = Vec::new();
    for name in names {
        let unknown = || TlsError::CipherSuite { name: name.clone() };
        chosen.push(cipher_suite(name).ok_or_else(unknown)?);
    }
    provider.cipher_suites.retain(|suite| match suite {
        rustls::SupportedCipherSuite::Tls13(_) => true,
        rustls::SupportedCipherSuite::Tls12(_) => {
            suite.suite().as_str().is_some_and(|name| chosen.contains(&name))
        }
    });
    Ok(provider)
}

fn verifier(
    authorities: &Path,
    revoked: Option<&Path>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in pem_items::<CertificateDer<'static>>(authorities, "certificate")? {
        let added = roots.add(authority);
        added.map_err(|error| content(authorities, "certificate", error.to_string()))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(path) = revoked {
        // As etcd: a list revokes what it names, and says nothing of other issuers' certificates.
        builder = builder.with_crls(revocations(path)?).allow_unknown_revocation_status();
    }
    builder.build().map_err(|error| content(authorities, "certificate", error.to_string()))
}

/// Lists of revoked certificates, as PEM or DER.
fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let bytes = read(path)?;
    if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
        return pem_items(path, "revocation list");
    }
    Ok(vec![CertificateRevocationListDer::from(bytes)])
}

/// All items of a kind; at least one.
fn pem_items<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let bytes = read(path)?;
    let items: Result<Vec<T>, _> = T::pem_slice_iter(&bytes).collect();
    let items = items.map_err(|error| content(path, what, error.to_string()))?;
    if items.is_empty() {
        return Err(content(path, what, "there is none in it".to_owned()));
    }
    Ok(items)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn content(path: &Path, what: &'static str, reason: String) -> TlsError {
    TlsError::Content { path: path.to_owned(), what, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_that_is_named_exists() {
        let ring = ring::default_provider();
        let known: Vec<&str> =
            ring.cipher_suites.iter().filter_map(|suite| suite.suite().as_str()).collect();
        for name in CIPHER_SUITES {
            assert!(known.contains(&name), "{name}");
            let one = provider(&[name.to_owned()]).unwrap();
            assert_eq!(one.cipher_suites.len(), 4, "three of TLS 1.3, and {name}");
        }
    }

    #[test]
    fn gos_short_names_are_known() {
        let short = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305";
        assert_eq!(cipher_suite(short), Some(CIPHER_SUITES[5]));
        assert_eq!(cipher_suite("TLS_ECDHE_RSA_WITH_AES_128_GCM"), None);
        assert_eq!(cipher_suite("TLS_RSA_WITH_RC4_128_SHA"), None);
    }
}
