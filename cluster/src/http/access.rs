//! Who may ask by HTTP, as far as a browser lets itself be told: which names of this node are its own, so
//! that no page reaches it under a name that was pointed here, and which pages may read its answers. And a
//! client whose certificate is his user is told that this counts for gRPC alone. gRPC itself is none of this.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::grpc::Peer;
use crate::local::Local;

/// Names of which some are known, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    All,
    These(Vec<String>),
}

impl Names {
    /// A list in which `*` means all.
    #[must_use]
    pub fn of(list: Vec<String>) -> Self {
        if list.iter().any(|name| name == "*") { Self::All } else { Self::These(list) }
    }

    fn contain(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.iter().any(|known| known.eq_ignore_ascii_case(name)),
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Access {
    /// `--host-whitelist`: what a request that is not encrypted may call this node.
    pub hosts: Names,
    /// `--cors`: whose pages may ask and read.
    pub origins: Names,
}

impl Default for Access {
    /// Any name, and no page.
    fn default() -> Self {
        Self { hosts: Names::All, origins: Names::These(Vec::new()) }
    }
}

/// etcd's, word for word: what a page may do, and which headers it may send.
const CORS: [(HeaderName, HeaderValue); 2] = [
    (
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"),
    ),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("accept, content-type, authorization"),
    ),
];

const NAME_IS_IGNORED: &str = "CommonName of client sending a request against gateway will be \
                               ignored and not used as expected\n";

pub(super) async fn control(
    access: Arc<Access>,
    node: Option<Arc<Local>>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let host = host(&request);
    if !peer.is_encrypted && !peer.is_trusted && !access.hosts.contain(&host) {
        tracing::warn!(host, "a request by HTTP came under a name that is not known");
        return (StatusCode::MISDIRECTED_REQUEST, unknown_host(&host)).into_response();
    }
    let is_call = request.uri().path().starts_with("/v3/");
    if is_call && peer.certificate_name().is_some() && node.is_some_and(|node| node.has_users()) {
        return (StatusCode::BAD_REQUEST, NAME_IS_IGNORED).into_response();
    }
    let allowed = allowed_origin(&access.origins, &request);
    let mut response = match *request.method() {
        Method::OPTIONS => StatusCode::OK.into_response(),
        _ => next.run(request).await,
    };
    if let Some(origin) = allowed {
        let headers = response.headers_mut();
        headers.extend(CORS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        // What is kept of an answer for one page is not for another.
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}

pub(super) fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// What the request calls this node, without the port.
fn host(request: &Request) -> String {
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host = named.or(authority).unwrap_or_default();
    match host.parse::<axum::http::uri::Authority>() {
        Ok(authority) => authority.host().trim_matches(['[', ']']).to_owned(),
        Err(_) => host.to_owned(),
    }
}

fn allowed_origin(origins: &Names, request: &Request) -> Option<HeaderValue> {
    if *origins == Names::All {
        return Some(HeaderValue::from_static("*"));
    }
    let origin = request.headers().get(header::ORIGIN)?;
    origins.contain(origin.to_str().ok()?).then(|| origin.clone())
}

fn unknown_host(host: &str) -> String {
    format!(
        "the request came, but under a name that this node does not know itself by: {host:?}\n\
         Encrypt (https://): then every name will do. Or let it know the name: \
         revfs serve --host-whitelist {host:?}\n"
    )
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).expect("a request")
    }

    #[test]
    fn a_host_is_a_name_without_its_port() {
        for (value, expected) in [
            ("example.org", "example.org"),
            ("example.org:2379", "example.org"),
            ("[::1]:2379", "::1"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(host(&request("/", &[("host", value)])), expected);
        }
        assert_eq!(host(&request("http://a.example:1/x", &[])), "a.example");
        assert_eq!(host(&request("/", &[])), "");
    }

    #[test]
    fn an_origin_is_allowed_as_it_is_written() {
        let page = request("/", &[("origin", "https://a.example")]);
        let none = request("/", &[]);
        let all = Names::of(vec!["https://b.example".into(), "*".into()]);
        assert_eq!(allowed_origin(&all, &none).unwrap(), "*");
        let some = Names::of(vec!["https://a.example".into()]);
        assert_eq!(allowed_origin(&some, &page).unwrap(), "https://a.example");
        assert_eq!(allowed_origin(&some, &none), None);
        assert_eq!(allowed_origin(&Names::of(Vec::new()), &page), None);
    }
}
