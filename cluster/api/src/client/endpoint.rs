//! Where a node listens, as users write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Address of one node: a unix socket or a TCP port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Absolute path of a socket. Written `/path` or `unix:///path`.
    Unix(PathBuf),
    /// Written `http://host:port`; an IPv6 address in brackets.
    Http { host: String, port: u16 },
}

/// A text that names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("endpoint {text:?}: {reason}; write http://host:port, unix:///path or /path")]
pub struct EndpointError {
    pub text: String,
    pub reason: &'static str,
}

fn http(authority: &str) -> Result<Endpoint, &'static str> {
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
    Ok(Endpoint::Http { host: host.to_owned(), port })
}

fn parse(text: &str) -> Result<Endpoint, &'static str> {
    if let Some(authority) = text.strip_prefix("http://") {
        return http(authority);
    }
    if text.starts_with("https://") {
        return Err("TLS is not supported");
    }
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if !path.starts_with('/') {
        return Err(if path.len() < text.len() {
            "the path of the socket is not absolute"
        } else {
            "neither a URL nor an absolute path"
        });
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
            Self::Http { host, port } => write!(f, "http://{host}:{port}"),
        }
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
        let http = |host: &str, port| Endpoint::Http { host: host.into(), port };
        assert_eq!("http://localhost:2379".parse(), Ok(http("localhost", 2379)));
        assert_eq!("http://127.0.0.1:1/".parse(), Ok(http("127.0.0.1", 1)));
        assert_eq!("http://[::1]:2379".parse(), Ok(http("[::1]", 2379)));
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for text in ["unix:///run/socket", "http://node-1:2379", "http://[::1]:2379"] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn bad_text_is_refused_by_name() {
        let cases = [
            ("", "neither a URL"),
            ("localhost:2379", "neither a URL"),
            ("run/socket", "neither a URL"),
            ("unix://run/socket", "not absolute"),
            ("unix://", "not absolute"),
            ("/", "names no socket"),
            ("/run/\0", "names no socket"),
            ("https://localhost:2379", "TLS"),
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
}
