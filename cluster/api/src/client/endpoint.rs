//! Where nodes listen, as users write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Address of one node: a unix socket or a TCP port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Absolute path of a socket. Written `/path` or `unix:///path`.
    Unix(PathBuf),
    /// Written `http://host:port`, `https://host:port` or `host:port`; an IPv6 address in brackets.
    Tcp { is_secure: bool, host: String, port: u16 },
}

/// A text that names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "endpoint {text:?}: {reason}; write http://host:port, https://host:port, unix:///path or /path"
)]
pub struct EndpointError {
    pub text: String,
    pub reason: &'static str,
}

fn tcp(authority: &str, is_secure: bool) -> Result<Endpoint, &'static str> {
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = authority.rsplit_once(':').ok_or("the port is missing")?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or("a bracket is not closed")?,
        None if host.contains(':') => return Err("an IPv6 address needs brackets"),
        None => host,
    };
    if bare.is_empty() {
        return Err("the host is missing");
    }
    if host.starts_with('[') && bare.parse::<std::net::Ipv6Addr>().is_err() {
        return Err("the brackets hold no IPv6 address");
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !host.starts_with('[') && !bare.chars().all(is_plain) {
        return Err("the host holds a character that no host name has");
    }
    let port = port.parse().ok().filter(|&port| port != 0).ok_or("the port is not in 1..=65535")?;
    Ok(Endpoint::Tcp { is_secure, host: host.to_owned(), port })
}

fn parse(text: &str) -> Result<Endpoint, &'static str> {
    for (scheme, is_secure) in [("http://", false), ("https://", true)] {
        if let Some(authority) = text.strip_prefix(scheme) {
            return tcp(authority, is_secure);
        }
    }
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if !path.starts_with('/') {
        return match text.contains(':') && !text.contains('/') {
            true => tcp(text, false),
            false if path.len() < text.len() => Err("the path of the socket is not absolute"),
            false => Err("neither a URL nor an absolute path"),
        };
    }
    if path.contains('\0') || path.ends_with('/') {
        return Err("the path names no socket");
    }
    Ok(Endpoint::Unix(path.into()))
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        parse(text).map_err(|reason| EndpointError { text: text.to_owned(), reason })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { is_secure, host, port } => {
                let scheme = if *is_secure { "https" } else { "http" };
                write!(f, "{scheme}://{host}:{port}")
            }
        }
    }
}

/// Addresses of the members of one cluster, written with commas between them; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints(Vec<Endpoint>);

impl Endpoints {
    pub fn iter(&self) -> std::slice::Iter<'_, Endpoint> {
        self.0.iter()
    }
}

impl From<Endpoint> for Endpoints {
    fn from(endpoint: Endpoint) -> Self {
        Self(vec![endpoint])
    }
}

impl FromStr for Endpoints {
    type Err = EndpointError;

    /// A path may hold commas too: what follows one begins an endpoint only if it is one.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let mut pieces: Vec<String> = Vec::new();
        for piece in text.split(',') {
            let begins = piece.parse::<Endpoint>().is_ok() || piece.contains("://");
            match pieces.last_mut().filter(|last| !begins && !piece.is_empty() && is_path(last)) {
                Some(last) => *last = format!("{last},{piece}"),
                None => pieces.push(piece.to_owned()),
            }
        }
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for piece in pieces {
            let endpoint = piece.parse()?;
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        Ok(Self(endpoints))
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') || text.starts_with("unix://")
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, endpoint) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{endpoint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_ports_are_read_as_written() {
        let socket = Endpoint::Unix("/run/a b/socket".into());
        assert_eq!("/run/a b/socket".parse(), Ok(socket.clone()));
        assert_eq!("unix:///run/a b/socket".parse(), Ok(socket));
        let tcp =
            |is_secure, host: &str, port| Endpoint::Tcp { is_secure, host: host.into(), port };
        let http = |host, port| tcp(false, host, port);
        assert_eq!("https://node:2379".parse(), Ok(tcp(true, "node", 2379)));
        assert_eq!("localhost:2379".parse(), Ok(http("localhost", 2379)));
        assert_eq!("[::1]:2379".parse(), Ok(http("[::1]", 2379)));
        assert_eq!("http://localhost:2379".parse(), Ok(http("localhost", 2379)));
        assert_eq!("http://127.0.0.1:1/".parse(), Ok(http("127.0.0.1", 1)));
        assert_eq!("http://[::1]:2379".parse(), Ok(http("[::1]", 2379)));
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for text in ["unix:///run/socket", "http://node-1:2379", "https://[::1]:2379"] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn bad_text_is_refused_by_name() {
        let cases = [
            ("", "neither a URL"),
            ("run/socket", "neither a URL"),
            ("unix://run/socket", "not absolute"),
            ("unix://", "not absolute"),
            ("/", "names no socket"),
            ("/run/\0", "names no socket"),
            ("https://localhost", "port is missing"),
            ("ftp://localhost:21", "neither a URL"),
            ("http://localhost", "port is missing"),
            ("http://localhost:", "1..=65535"),
            ("http://localhost:0", "1..=65535"),
            ("http://localhost:65536", "1..=65535"),
            ("http://localhost:2379/v3", "1..=65535"),
            ("http://:2379", "host is missing"),
            ("http://::1:2379", "brackets"),
            ("http://[::1:2379", "not closed"),
            ("http://[x]:2379", "no IPv6"),
            ("http://us er:2379", "character"),
            ("http://user@host:2379", "character"),
        ];
        for (text, part) in cases {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn several_are_written_with_commas_and_paths_may_hold_them() {
        let several = |text: &str| text.parse::<Endpoints>().map(|found| found.to_string());
        let three = "http://a:1,https://b:2,unix:///run/x";
        assert_eq!(several("a:1,https://b:2,/run/x,http://a:1"), Ok(three.to_owned()));
        assert_eq!(several("/run/a, b/c,d"), Ok("unix:///run/a, b/c,d".to_owned()));
        assert_eq!(several("/run/a,/run/b"), Ok("unix:///run/a,unix:///run/b".to_owned()));
        for wrong in ["", "a:1,", ",a:1", "a:1,b", "a:1,,b:2", "a:1,ftp://b"] {
            assert!(several(wrong).is_err(), "{wrong:?}");
        }
    }
}
