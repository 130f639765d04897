//! What the settings say of TLS: a certificate from files or of the node's own, and who is let in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// What the settings ask for; `None` where no URL is encrypted.
pub(super) fn of(
    values: &Values,
    urls: &[ListenUrl],
    data_dir: &Path,
) -> Result<Option<Encryption>> {
    let is_self_signed = values.parsed("auto-tls", flag)?;
    let name_is_user = values.parsed("client-cert-auth", flag)?;
    for (one, other) in [("cert-file", "key-file"), ("key-file", "cert-file")] {
        needs(values, values.is_said(one), one, other)?;
    }
    needs(values, name_is_user, "client-cert-auth", "trusted-ca-file")?;
    needs(values, values.is_said("client-crl-file"), "client-crl-file", "trusted-ca-file")?;
    if is_self_signed && values.is_said("cert-file") {
        return Err(contradiction(values, "auto-tls", "cert-file")
            .hint("say one of them: the certificate that is shown can only be one"));
    }
    let has_certificate = is_self_signed || values.is_said("cert-file");
    let encrypted = urls.iter().find(|url| url.is_encrypted);
    let Some(url) = encrypted else {
        if has_certificate {
            let said = if is_self_signed { "auto-tls" } else { "cert-file" };
            return Err(contradiction(values, said, "listen-client-urls")
                .because("no URL is encrypted, so that the certificate would be shown to nobody")
                .hint("write https:// (or unixs://) in listen-client-urls, or leave the certificate out"));
        }
        return Ok(None);
    };
    if !has_certificate {
        return Err(Failure::usage(format!(
            "{} has '{}', but there is no certificate to show",
            values.told("listen-client-urls"),
            url.text
        ))
        .hint("name one with cert-file and key-file, or use auto-tls"));
    }
    let rules = rules(values, name_is_user)?;
    if !is_self_signed {
        return Ok(Some(Encryption::Files(rules)));
    }
    let years = values.parsed("self-signed-cert-validity", |text| number(text, 1, 100))?;
    let directory = data_dir.join(SELF_SIGNED);
    Ok(Some(Encryption::SelfSigned { directory, hosts: hosts(urls), years, rules }))
}

fn rules(values: &Values, name_is_user: bool) -> Result<TlsOptions> {
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
    Ok(TlsOptions {
        trusted_authorities: path("trusted-ca-file"),
        name_is_user,
        revoked: path("client-crl-file"),
        min_version,
        cipher_suites: values.parsed("cipher-suites", cipher_suites)?,
        ..TlsOptions::new(
            path("cert-file").unwrap_or_default(),
            path("key-file").unwrap_or_default(),
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
