//! What the settings say of TLS: a certificate from files or of the node's own, and who is let in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use revfs_api::client::{Tls as ClientTls, TlsError as ClientTlsError};
use revfs_cluster::tls::{self, CIPHER_SUITES, MinVersion, Tls, TlsError, TlsOptions};

use super::layers::Values;
use super::settings::nearest;
use super::value::{ListenUrl, Place, flag, list, number, word};
use crate::error::{Failure, Result};

/// Below the data directory.
const SELF_SIGNED: &str = "auto-tls";

/// The certificate that is shown.
#[derive(Debug)]
pub(super) enum Encryption {
    Files(TlsOptions),
    SelfSigned { directory: PathBuf, hosts: Vec<String>, years: u16, rules: TlsOptions },
}

impl Encryption {
    /// As whom a member shows itself to others that it calls: by the same certificate; and whom it believes.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(super) fn to_others(&self, trusted: Option<&Path>) -> Result<ClientTls, ClientTlsError> {
        let (Self::Files(rules) | Self::SelfSigned { rules, .. }) = self;
        ClientTls::from_files(trusted, Some(&rules.certificate), Some(&rules.key), None)
    }

    /// Reads the files, or makes them; the data directory exists.
    pub(super) fn start(&self) -> Result<Arc<Tls>, TlsError> {
        match self {
            Self::Files(options) => Tls::load(options.clone()),
            Self::SelfSigned { directory, hosts, years, rules } => {
                let TlsOptions { certificate, key, .. } =
                    tls::self_signed(directory, hosts, *years)?;
                Tls::load(TlsOptions { certificate, key, ..rules.clone() })
            }
        }
    }
}

/// What the settings of one kind of listener are called.
pub(super) struct Names {
    urls: &'static str,
    certificate: &'static str,
    key: &'static str,
    must_show: &'static str,
    trusted: &'static str,
    revoked: &'static str,
    /// A switch: the node signs its own.
    self_signed: Option<&'static str>,
    /// Whether the name in the certificate of whoever connects is a user.
    names_are_users: bool,
}

/// For clients.
pub(super) const CLIENTS: Names = Names {
    urls: "listen-client-urls",
    certificate: "cert-file",
    key: "key-file",
    must_show: "client-cert-auth",
    trusted: "trusted-ca-file",
    revoked: "client-crl-file",
    self_signed: Some("auto-tls"),
    names_are_users: true,
};

/// For other members. Certificates that each signs itself prove nothing to the others: there are none.
pub(super) const PEERS: Names = Names {
    urls: "listen-peer-urls",
    certificate: "peer-cert-file",
    key: "peer-key-file",
    must_show: "peer-client-cert-auth",
    trusted: "peer-trusted-ca-file",
    revoked: "peer-crl-file",
    self_signed: None,
    names_are_users: false,
};

/// What the settings ask for; `None` where no URL is encrypted.
pub(super) fn of(
    values: &Values,
    names: &Names,
    urls: &[ListenUrl],
    data_dir: &Path,
) -> Result<Option<Encryption>> {
    let switch =
        |name: Option<&'static str>| name.map_or(Ok(false), |name| values.parsed(name, flag));
    let is_self_signed = switch(names.self_signed)?;
    let must_show = switch(Some(names.must_show))?;
    for (one, other) in [(names.certificate, names.key), (names.key, names.certificate)] {
        needs(values, values.is_said(one), one, other)?;
    }
    needs(values, must_show, names.must_show, names.trusted)?;
    needs(values, values.is_said(names.revoked), names.revoked, names.trusted)?;
    let self_signed = names.self_signed.filter(|_| is_self_signed);
    if let Some(self_signed) = self_signed
        && values.is_said(names.certificate)
    {
        return Err(contradiction(values, self_signed, names.certificate)
            .hint("say one of them: the certificate that is shown can only be one"));
    }
    let has_certificate = is_self_signed || values.is_said(names.certificate);
    let encrypted = urls.iter().find(|url| url.is_encrypted);
    let Some(url) = encrypted else {
        if has_certificate {
            let said = self_signed.unwrap_or(names.certificate);
            return Err(contradiction(values, said, names.urls)
                .because("no URL is encrypted, so that the certificate would be shown to nobody")
                .hint(format!(
                    "write https:// (or unixs://) in {}, or leave the certificate out",
                    names.urls
                )));
        }
        return Ok(None);
    };
    if !has_certificate {
        let or = names.self_signed.map(|name| format!(", or use {name}")).unwrap_or_default();
        return Err(Failure::usage(format!(
            "{} has '{}', but there is no certificate to show",
            values.told(names.urls),
            url.text
        ))
        .hint(format!("name one with {} and {}{or}", names.certificate, names.key)));
    }
    let rules = rules(values, names, must_show)?;
    if !is_self_signed {
        return Ok(Some(Encryption::Files(rules)));
    }
    let years = values.parsed("self-signed-cert-validity", |text| number(text, 1, 100))?;
    let directory = data_dir.join(SELF_SIGNED);
    Ok(Some(Encryption::SelfSigned { directory, hosts: hosts(urls), years, rules }))
}

fn rules(values: &Values, names: &Names, must_show: bool) -> Result<TlsOptions> {
    let path =
        |name: &str| Some(values.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from);
    let min_version = values.parsed("tls-min-version", |text| {
        word(text, &[("TLS1.2", MinVersion::Tls12), ("TLS1.3", MinVersion::Tls13)])
    })?;
    if min_version == MinVersion::Tls13 && values.is_said("cipher-suites") {
        return Err(contradiction(values, "cipher-suites", "tls-min-version")
            .because("the suites are those of TLS 1.2, which would not be spoken")
            .hint("leave one of them out"));
    }
    // Members are asked for a certificate only where that is said: the authorities are also those that
    // this member believes itself.
    let trusted = path(names.trusted).filter(|_| names.names_are_users || must_show);
    Ok(TlsOptions {
        trusted_authorities: trusted,
        name_is_user: must_show && names.names_are_users,
        revoked: path(names.revoked),
        min_version,
        cipher_suites: values.parsed("cipher-suites", cipher_suites)?,
        ..TlsOptions::new(
            path(names.certificate).unwrap_or_default(),
            path(names.key).unwrap_or_default(),
        )
    })
}

fn cipher_suites(text: &str) -> Result<Vec<String>, String> {
    let known = |name: &str| match tls::cipher_suite(name) {
        Some(suite) => Ok(suite.to_owned()),
        None => Err(match nearest(name, CIPHER_SUITES) {
            Some(meant) => format!("a list of known suites; '{name}' is like {meant}"),
            None => format!("a list of these: {}", CIPHER_SUITES.join(", ")),
        }),
    };
    list(text).map(known).collect()
}

/// Whom the node's own certificate is for.
fn hosts(urls: &[ListenUrl]) -> Vec<String> {
    let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    for url in urls {
        if let Place::Tcp(address) = &url.place {
            let host = address.ip().to_string();
            if !address.ip().is_unspecified() && !hosts.contains(&host) {
                hosts.push(host);
            }
        }
    }
    hosts
}

fn needs(values: &Values, is_said: bool, name: &str, other: &str) -> Result<()> {
    if !is_said || values.is_said(other) {
        return Ok(());
    }
    Err(Failure::usage(format!("{} needs {other}", values.told(name)))
        .hint(format!("say both, or leave {name} out")))
}

fn contradiction(values: &Values, one: &str, other: &str) -> Failure {
    Failure::usage(format!("{} contradicts {}", values.told(one), values.told(other)))
}
