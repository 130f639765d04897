//! The client of a cluster: of revfs, or of a real etcd.
//!
//! [`Client`] knows several endpoints and how to call them; [`connect`] makes a [`KeySpace`] of it:
//! [`Remote`] where the nodes offer revfs.v1, [`Etcd`] where they offer etcd's API only. What a caller may rely on ([`Settings`] names every number):
//! - **Requests go to all endpoints in turn.** One that does not answer is passed over for a while, and
//!   its requests go to the next in bounded time. A connection that was lost is made again when it is
//!   needed; one whose endpoint is not wanted any more ends with its last request.
//! - **At most once.** A change is sent to one node. Only if nothing of it was sent, or the node refused
//!   it before it looked at it (a learner, a token that does not hold any more), it is sent again. If
//!   anything else fails and the node did not say what happened, it is [`Error::OutcomeUnknown`].
//! - **Reads are repeated** a bounded number of times, on other nodes first, with growing pauses, within
//!   one deadline.
//! - **Every call ends** by its deadline, on a dead network too.
//! - **A watch** goes on at the next revision after a lost connection, without gap or repeat; it ends
//!   with an error when the cluster stays away for longer than a bound.

mod backup;
mod balancer;
mod connection;
mod endpoint;
mod etcd;
mod failure;
mod lease;
mod lease_keeper;
mod login;
mod members;
mod members_detail;
mod remote;
mod resuming;
mod settings;
mod txn;
mod users;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

pub use self::backup::EtcdSnapshot;
use self::balancer::{Balancer, Node};
pub use self::connection::{Connection, Headers, Wire, channel};
pub use self::endpoint::{Endpoint, EndpointError, Endpoints};
pub use self::etcd::{BACKEND as ETCD, Etcd};
pub use self::lease_keeper::LeaseKeeper;
use self::login::{Login, Token};
pub use self::members::{Alarm, Member};
pub use self::members_detail::{MemberDetail, MemberRole, MemberState};
pub use self::remote::Remote;
pub use self::settings::{Credentials, Settings, Tls, TlsError, TlsFiles};
pub use self::users::{AuthStatus, Permission};
use crate::convert;
use crate::keyspace::{Error, KeySpace, Result};

/// Connects with the default settings.
///
/// # Errors
/// [`Error::Unavailable`] if no node answers there, [`Error::Unsupported`] if it is neither revfs nor etcd.
pub async fn connect(endpoints: &Endpoints) -> Result<Arc<dyn KeySpace>> {
    connect_with(endpoints, Settings::default()).await
}

/// Connects, and asks the cluster what it can do.
///
/// # Errors
/// As [`connect`]; [`Error::Invalid`] for settings that cannot be used.
pub async fn connect_with(endpoints: &Endpoints, settings: Settings) -> Result<Arc<dyn KeySpace>> {
    Client::new(endpoints, settings)?.key_space().await
}

/// The nodes of one cluster and how they are called. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    balancer: Balancer,
    login: Option<Login>,
}

/// Tokens that one call asks for at most.
const LOGINS_MAX: u32 = 2;

/// How one attempt ended that brought no answer.
enum Failed {
    /// Not within its part of the time.
    Silent,
    /// There was no token to send it with.
    Unsent(Status),
    /// The token does not hold any more, and was given up.
    LoggedOut(Status),
    Refused(Status),
}

impl Client {
    /// Knows the endpoints; connects when it is first used.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the settings cannot be used.
    pub fn new(endpoints: &Endpoints, settings: Settings) -> Result<Self> {
        let balancer = Balancer::new(endpoints, &settings)?;
        let login = settings.login.clone().map(Login::new);
        Ok(Self { shared: Arc::new(Shared { settings, balancer, login }) })
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.shared.balancer.endpoints()
    }

    /// Asks other endpoints from now on. Connections to those that stay are kept; the others end with
    /// the requests and watches that are under way on them.
    ///
    /// # Errors
    /// [`Error::Invalid`] if one cannot be used with the settings.
    pub fn set_endpoints(&self, endpoints: &Endpoints) -> Result<()> {
        self.shared.balancer.set(endpoints, self.settings())
    }

    /// The key space that the cluster serves.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn key_space(&self) -> Result<Arc<dyn KeySpace>> {
        let response = self
            .repeat(|at, limit| async move {
                at.revfs()
                    .status(connection::leader_or_not(within(Default::default(), limit)))
                    .await
            })
            .await;
        match response {
            Ok(response) => {
                let (_, capabilities) = self.understood(convert::status_answer(response))?;
                Ok(Arc::new(Remote::new(self.clone(), capabilities)))
            }
            Err(Error::Unsupported(_)) => Ok(Arc::new(Etcd::open(self.clone()).await?)),
            Err(error) => Err(error),
        }
    }

    /// Sends a read until it is answered, within one deadline: see [`Settings::read_attempts`].
    ///
    /// # Errors
    /// What the last attempt met.
    pub async fn repeat<T, F, Fut>(&self, send: F) -> Result<T>
    where
        F: FnMut(Connection, Duration) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        Ok(self.repeat_at(send).await?.1.into_inner())
    }

    /// [`Self::repeat`], and the endpoint that answered.
    async fn repeat_at<T, F, Fut>(&self, mut send: F) -> Result<(Endpoint, Response<T>)>
    where
        F: FnMut(Connection, Duration) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let Shared { settings, balancer, .. } = &*self.shared;
        let timeout = settings.call_timeout;
        let deadline = Instant::now() + timeout;
        let count = u32::try_from(balancer.count()).unwrap_or(u32::MAX);
        let attempts = settings.read_attempts.max(count);
        let (mut sent, mut logins) = (0, 0);
        let mut last: Option<Arc<Node>> = None;
        loop {
            let node = balancer.next(last.as_ref());
            let round = sent / count;
            let left = deadline.saturating_duration_since(Instant::now());
            let part = settings.failover_timeout.saturating_mul(2_u32.saturating_pow(round));
            let limit = if count > 1 { left.min(part) } else { left };
            let error = match self.attempt(&node, limit, |at| send(at, limit)).await {
                Ok(response) => return Ok((node.endpoint.clone(), response)),
                Err(Failed::Silent) => Error::Timeout(timeout),
                Err(Failed::LoggedOut(_)) if logins < LOGINS_MAX => {
                    logins += 1;
                    continue;
                }
                Err(
                    Failed::Unsent(status) | Failed::LoggedOut(status) | Failed::Refused(status),
                ) => failure::read_error(&node.endpoint, &status, timeout),
            };
            sent += 1;
            let pause = match sent % count {
                0 => settings.pause_before(round),
                _ => Duration::ZERO,
            };
            let is_alone = count == 1;
            let may_repeat = match &error {
                Error::Unavailable { .. } => true,
                Error::NoQuorum { .. } | Error::Timeout(_) => !is_alone,
                _ => false,
            };
            if !may_repeat || sent >= attempts || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            last = Some(node);
        }
    }

    /// Sends a change once, to one node: again only where nothing of it was sent or looked at.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] if it may have happened.
    pub async fn once<T, F, Fut>(&self, timeout: Duration, mut send: F) -> Result<T>
    where
        F: FnMut(Connection, Duration) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let balancer = &self.shared.balancer;
        let deadline = Instant::now() + timeout;
        let (mut left_to_try, mut logins) = (balancer.count(), 0);
        let mut last: Option<Arc<Node>> = None;
        loop {
            let node = balancer.next(last.as_ref());
            let limit = deadline.saturating_duration_since(Instant::now());
            left_to_try -= 1;
            let is_last = left_to_try == 0 || Instant::now() >= deadline;
            match self.attempt(&node, limit, |at| send(at, limit)).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(Failed::Silent) => {
                    let reason = format!("{}: no answer within {timeout:?}", node.endpoint);
                    return Err(Error::OutcomeUnknown { reason });
                }
                Err(Failed::LoggedOut(_)) if logins < LOGINS_MAX => {
                    logins += 1;
                    left_to_try += 1;
                }
                // Nothing of it was sent.
                Err(Failed::Unsent(status)) => {
                    let error = failure::read_error(&node.endpoint, &status, timeout);
                    if is_last || matches!(error, Error::Denied { .. }) {
                        return Err(error);
                    }
                }
                Err(Failed::LoggedOut(status) | Failed::Refused(status)) => {
                    let is_untouched =
                        failure::was_never_sent(&status) || failure::is_of_learner(&status);
                    if !is_untouched || is_last {
                        return Err(failure::change_error(&node.endpoint, &status));
                    }
                }
            }
            last = Some(node);
        }
    }

    /// One request to one node; remembers whether it answered.
    async fn attempt<T, F, Fut>(
        &self,
        node: &Node,
        limit: Duration,
        send: F,
    ) -> Result<Response<T>, Failed>
    where
        F: FnOnce(Connection) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let Shared { settings, login, .. } = &*self.shared;
        let pass_over = settings.pass_over;
        let begun = Instant::now();
        let token = match login {
            Some(login) => match tokio::time::timeout(limit, login.token(&node.channel())).await {
                Ok(Ok(token)) => token,
                Ok(Err(status)) => {
                    if status.code() == Code::Unavailable {
                        node.pass_over(pass_over);
                    }
                    return Err(Failed::Unsent(status));
                }
                Err(_) => {
                    node.pass_over(pass_over);
                    return Err(Failed::Unsent(Status::deadline_exceeded(
                        "no answer to the login",
                    )));
                }
            },
            None => None,
        };
        let limit = limit.saturating_sub(begun.elapsed());
        let sent = send(self.connection(node, token.clone()));
        match tokio::time::timeout(limit, sent).await {
            Err(_) => {
                node.pass_over(pass_over);
                Err(Failed::Silent)
            }
            Ok(Err(status)) => {
                // What the transport says has a cause; what a node says has none.
                let is_well = std::error::Error::source(&status).is_none()
                    && status.code() != Code::Unavailable
                    && !failure::is_silence(&status)
                    && !failure::is_of_learner(&status);
                if !is_well {
                    node.pass_over(pass_over);
                }
                let Some(login) = login.as_ref().filter(|_| failure::wants_login(&status)) else {
                    return Err(Failed::Refused(status));
                };
                login.forget(token.as_ref()).await;
                Err(Failed::LoggedOut(status))
            }
            Ok(Ok(response)) => {
                node.answered();
                Ok(response)
            }
        }
    }

    fn connection(&self, node: &Node, token: Option<Token>) -> Connection {
        let headers = Headers { token, require_leader: self.shared.settings.require_leader };
        let wire = Wire::new(node.channel(), headers);
        Connection { endpoint: node.endpoint.clone(), wire }
    }

    /// What a failed read, or a stream that was cut, means.
    fn read_error(&self, endpoint: &Endpoint, status: &Status) -> Error {
        failure::read_error(endpoint, status, self.shared.settings.call_timeout)
    }

    /// An answer to a read that makes no sense is as good as none.
    fn understood<T>(&self, answer: Result<T, convert::Malformed>) -> Result<T> {
        answer.map_err(|error| Error::Unavailable { reason: format!("{}: {error}", self.names()) })
    }

    /// The endpoints, for words about them.
    fn names(&self) -> String {
        let names: Vec<String> = self.endpoints().iter().map(ToString::to_string).collect();
        names.join(",")
    }
}

/// A request that tells the server how long the answer is waited for.
pub fn within<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}
