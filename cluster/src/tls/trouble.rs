//! Why two members did not come to an encrypted connection, in words that say whose setting it is.

use std::error::Error;
use std::io;

use rustls::{AlertDescription as Alert, CertificateError};

/// What is wrong, seen from the side on which the error came up; `None` if TLS is not to blame.
pub(crate) fn trouble(error: &(dyn Error + 'static)) -> Option<&'static str> {
    words(find(error)?)
}

fn words(error: &rustls::Error) -> Option<&'static str> {
    let words = match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate (its peer-cert-file) was issued by none of the authorities in this member's \
                 peer-trusted-ca-file"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate (its peer-cert-file) is not for the host of its peer URL"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate (its peer-cert-file) has expired"
            }
            CertificateError::Revoked => "its certificate (its peer-cert-file) was revoked",
            _ => "its certificate (its peer-cert-file) cannot be used",
        },
        rustls::Error::NoCertificatesPresented => {
            "it shows no certificate, and peer-client-cert-auth asks for one: it needs peer-cert-file"
        }
        rustls::Error::AlertReceived(Alert::CertificateRequired) => {
            "it asks for a certificate, and this member shows none: set peer-cert-file"
        }
        rustls::Error::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::DecryptError,
        ) => {
            "it does not accept this member's certificate: an authority in its peer-trusted-ca-file must have \
             issued this member's peer-cert-file"
        }
        rustls::Error::InvalidMessage(_) => {
            "it does not speak TLS: all peer URLs must begin with https://, or none"
        }
        _ => return None,
    };
    Some(words)
}

/// The error of TLS among the causes. An `io::Error` tells of its cause's cause only.
fn find<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| find(inner)) {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn it_is_found_behind_whatever_wraps_it() {
        let wrong = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let outer = Outer(io::Error::other(io::Error::other(wrong.clone())));
        assert!(trouble(&outer).unwrap().contains("this member's peer-trusted-ca-file"));
        assert_eq!(trouble(&outer), trouble(&wrong));
        assert_eq!(trouble(&Outer(io::ErrorKind::ConnectionRefused.into())), None);
    }
}
