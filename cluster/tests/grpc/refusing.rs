//! A server that answers every request of every service with the statuses that a test has put into its
//! queue, and with a last one for ever after: what nodes say that no node here says yet.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use revfs_api::client::Endpoint;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Code, Status};

#[derive(Clone)]
pub(crate) struct Refusing {
    pub(crate) endpoint: Endpoint,
    script: Arc<Mutex<Script>>,
}

struct Script {
    statuses: VecDeque<(Code, &'static str)>,
    /// `token` and `hasleader` of each request.
    seen: Vec<(Option<String>, bool)>,
}

impl Refusing {
    /// Runs as long as the test's runtime.
    pub(crate) async fn start(statuses: &[(Code, &'static str)]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address: SocketAddr = listener.local_addr().expect("it is bound");
        let endpoint = format!("http://{address}").parse().expect("an endpoint");
        let statuses = statuses.iter().copied().collect();
        let script = Arc::new(Mutex::new(Script { statuses, seen: Vec::new() }));
        let this = Self { endpoint, script };
        let server = tonic::transport::Server::builder().add_service(this.clone());
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        this
    }

    /// `token` and `hasleader` of each request that came.
    pub(crate) fn seen(&self) -> Vec<(Option<String>, bool)> {
        self.script.lock().seen.clone()
    }
}

impl NamedService for Refusing {
    const NAME: &'static str = "revfs.v1.Revfs";
}

impl Service<http::Request<Body>> for Refusing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut script = self.script.lock();
        let header = |name: &str| {
            let value = request.headers().get(name)?;
            Some(value.to_str().expect("a test sends text").to_owned())
        };
        let seen = (header("token"), header("hasleader").as_deref() == Some("true"));
        script.seen.push(seen);
        let is_last = script.statuses.len() == 1;
        let status = script.statuses.front().copied();
        if !is_last {
            script.statuses.pop_front();
        }
        let (code, text) = status.expect("a script has a status at least");
        std::future::ready(Ok(Status::new(code, text).into_http()))
    }
}
