//! `--auto-tls`: a certificate that the node signs itself. It keeps listeners from being read, but
//! proves to nobody who serves there.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{TlsError, TlsOptions};

const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

/// A certificate that ends within so long is made anew at the start.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_hours(24 * 30);

/// The certificate in `directory`, made for `hosts` and `years` if there is none or it ends soon.
///
/// # Errors
/// If it can be neither read nor written.
pub fn self_signed(directory: &Path, hosts: &[String], years: u16) -> Result<TlsOptions, TlsError> {
    let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
    if !is_usable(&certificate) || !key.exists() {
        make(directory, hosts, years)?;
    }
    Ok(TlsOptions::new(certificate, key))
}

fn is_usable(path: &Path) -> bool {
    let usable = || {
        let certificate = CertificateDer::from_pem_file(path).ok()?;
        let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
        let ends = Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?;
        Some(ends.duration_since(Timestamp::now()) > RENEWED_BEFORE)
    };
    usable().unwrap_or(false)
}

fn make(directory: &Path, hosts: &[String], years: u16) -> Result<(), TlsError> {
    let set_up = |error: rcgen::Error| TlsError::SetUp { reason: error.to_string() };
    let mut params = CertificateParams::new(hosts).map_err(set_up)?;
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let day = |years: u16| {
        let month = u8::try_from(today.month()).unwrap_or(1);
        // The 29th of February is not in every year.
        let day = u8::try_from(today.day()).unwrap_or(1).min(28);
        rcgen::date_time_ymd(i32::from(today.year()) + i32::from(years), month, day)
    };
    params.not_before = day(0);
    params.not_after = day(years);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "revfs");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(set_up)?;
    let certificate = params.self_signed(&key).map_err(set_up)?;
    let failed = |source| TlsError::Write { path: directory.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    // The certificate last: without it the key is made anew, too.
    write(&directory.join(KEY), &key.serialize_pem())?;
    write(&directory.join(CERTIFICATE), &certificate.pem())
}

fn write(path: &Path, text: &str) -> Result<(), TlsError> {
    let new = path.with_extension("new");
    let written = || {
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create(true).truncate(true).mode(0o600);
        let mut file = file.open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(|source| TlsError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_again_when_it_ends_soon() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("auto-tls");
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = || {
            let options = self_signed(&place, &hosts, 1).unwrap();
            super::super::settings::settings(&options).unwrap();
            fs::read(options.certificate).unwrap()
        };
        let first = certificate();
        assert_eq!(certificate(), first);
        // One that has ended.
        make(&place, &hosts, 0).unwrap();
        let ended = fs::read(place.join(CERTIFICATE)).unwrap();
        assert_ne!(certificate(), ended);
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(place.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
