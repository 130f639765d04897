//! Connections to other members: one a member, made when it is needed.
//!
//! Before the first call of its life a link asks who is there: a member whose data directory is another
//! than the one known is not spoken to.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;
use revfs_api::client::{Endpoint, Settings, channel};
use revfs_api::wire::peer::peer_client::PeerClient;
use revfs_api::wire::peer::{IntroduceRequest, IntroduceResponse};
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use super::caller::{Met, Whom, instance};
use super::complaints::Complaints;
use crate::data_dir::Identity;
use crate::tls::trouble;

/// The largest message: entries of [`crate::raft`]'s chunk, or one entry of the largest size.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 << 20;

pub(crate) type Client = PeerClient<InterceptedService<Channel, Whom>>;

/// Why a member did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("member {member:x} has no address that can be used: {reason}")]
    Address { member: u64, reason: String },
    #[error("member {member:x} at {address}: {status}", status = Shown(.status))]
    Call { member: u64, address: String, status: Status },
}

impl PeerError {
    /// The innermost cause, for people: where it was and who failed they know.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Address { reason, .. } => reason.clone(),
            Self::Call { status, .. } => {
                if let Some(trouble) = trouble(status) {
                    return trouble.to_owned();
                }
                let mut innermost = status.message().to_owned();
                let mut source = std::error::Error::source(status);
                while let Some(cause) = source {
                    innermost = cause.to_string();
                    source = cause.source();
                }
                innermost
            }
        }
    }
}

/// Code and words of a status: its metadata helps nobody.
struct Shown<'a>(&'a Status);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.0.message() {
            "" => "no reason given",
            words => words,
        };
        write!(f, "{words} ({:?})", self.0.code())?;
        let mut source = std::error::Error::source(self.0);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        trouble(self.0).map_or(Ok(()), |trouble| write!(f, "; {trouble}"))
    }
}

/// The other members, as this one reaches them.
pub(crate) struct Peers {
    own: Identity,
    settings: Settings,
    met: Arc<Met>,
    links: Mutex<HashMap<u64, Arc<Link>>>,
}

/// One member.
pub(crate) struct Link {
    whom: Whom,
    settings: Settings,
    at: Mutex<At>,
    complaints: Complaints,
}

/// Where a member is.
struct At {
    addresses: Vec<String>,
    /// Which of them is tried.
    tried: usize,
    channel: Option<Channel>,
    is_introduced: bool,
}

impl Peers {
    pub(crate) fn new(own: Identity, settings: Settings, met: Arc<Met>) -> Self {
        Self { own, settings, met, links: Mutex::default() }
    }

    pub(crate) fn met(&self) -> &Met {
        &self.met
    }

    pub(crate) fn own(&self) -> &Identity {
        &self.own
    }

    /// The link to a member at `address`: URLs with commas between them.
    pub(crate) fn link(&self, member: u64, address: &str) -> Arc<Link> {
        let addresses: Vec<String> =
            address.split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect();
        let mut links = self.links.lock();
        let link = links.entry(member).or_insert_with(|| {
            let whom = Whom { own: self.own, to: member, met: Arc::clone(&self.met) };
            let at = At { addresses: Vec::new(), tried: 0, channel: None, is_introduced: false };
            let (settings, at) = (self.settings.clone(), Mutex::new(at));
            Arc::new(Link { whom, settings, at, complaints: Complaints::default() })
        });
        let mut at = link.at.lock();
        if at.addresses != addresses {
            at.addresses = addresses;
            at.forget();
        }
        drop(at);
        Arc::clone(link)
    }

    /// Whoever is at this address; it need not be a member, or not yet. `own_urls` are those of a node that
    /// looks for its cluster.
    pub(crate) async fn who_is_at(
        &self,
        address: &str,
        own_urls: &[String],
    ) -> Result<IntroduceResponse, PeerError> {
        let failed = |status| PeerError::Call { member: 0, address: address.to_owned(), status };
        let channel = open(0, address, &self.settings)?;
        let whom = Whom { own: self.own, to: 0, met: Arc::default() };
        let mut client = PeerClient::with_interceptor(channel, whom);
        let asked = client.introduce(IntroduceRequest { peer_urls: own_urls.to_vec() });
        let answer = tokio::time::timeout(self.settings.connect_timeout, asked).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        Ok(answer.map_err(failed)?.into_inner())
    }
}

impl At {
    fn forget(&mut self) {
        self.channel = None;
        self.is_introduced = false;
    }

    fn address(&self) -> String {
        self.addresses.get(self.tried % self.addresses.len().max(1)).cloned().unwrap_or_default()
    }
}

fn open(member: u64, address: &str, settings: &Settings) -> Result<Channel, PeerError> {
    let wrong = |reason: String| PeerError::Address { member, reason };
    let endpoint = Endpoint::from_str(address).map_err(|error| wrong(error.to_string()))?;
    channel(&endpoint, settings).map_err(|error| wrong(error.to_string()))
}

impl Link {
    pub(crate) fn member(&self) -> u64 {
        self.whom.to
    }

    /// A client of the member, once that has said who it is.
    pub(crate) async fn client(&self) -> Result<Client, PeerError> {
        let (channel, is_introduced) = {
            let mut at = self.at.lock();
            let channel = match &at.channel {
                Some(channel) => channel.clone(),
                None => {
                    let channel = open(self.whom.to, &at.address(), &self.settings)?;
                    at.channel.insert(channel).clone()
                }
            };
            (channel, at.is_introduced)
        };
        let mut client = PeerClient::with_interceptor(channel, self.whom.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        if !is_introduced {
            self.introduce(&mut client).await?;
        }
        Ok(client)
    }

    /// Whether the member answers at all: asked before something costly is prepared for it.
    pub(crate) async fn answers(&self) -> Result<(), PeerError> {
        let mut client = self.client().await?;
        self.introduce(&mut client).await
    }

    async fn introduce(&self, client: &mut Client) -> Result<(), PeerError> {
        let asked = client.introduce(IntroduceRequest::default());
        let answer = tokio::time::timeout(self.settings.connect_timeout, asked).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        let answer = answer.map_err(|status| self.failed(status))?.into_inner();
        self.check(&answer).map_err(|reason| self.failed(Status::failed_precondition(reason)))?;
        self.at.lock().is_introduced = true;
        Ok(())
    }

    fn check(&self, answer: &IntroduceResponse) -> Result<(), String> {
        let Whom { own, to, met } = &self.whom;
        if answer.cluster != own.cluster {
            return Err(format!(
                "member {:x} of cluster {:016x} answers there, not one of {:016x}: check the peer URLs, and \
                 that node's initial-cluster-token",
                answer.member, answer.cluster, own.cluster
            ));
        }
        if answer.member != *to {
            return Err(format!(
                "member {:x} answers there, not {to:x}: check the peer URLs of both ('revfs member list'; \
                 'revfs member update' corrects them)",
                answer.member
            ));
        }
        let instance = instance(&answer.instance).ok_or("it does not tell its data directory")?;
        met.meet(*to, instance).map_err(|known| {
            format!(
                "it was known with data directory {known:032x} and has {instance:032x} now: \
                 it has lost what it promised; replace the member ('revfs member replace {to:x} URL')"
            )
        })
    }

    /// Tells of a call that failed. The next one tries another address, if there is one, and asks again
    /// who is there.
    pub(crate) fn failed(&self, status: Status) -> PeerError {
        let mut at = self.at.lock();
        let error = PeerError::Call { member: self.whom.to, address: at.address(), status };
        if at.addresses.len() > 1 {
            at.tried = at.tried.wrapping_add(1);
            at.channel = None;
        }
        at.is_introduced = false;
        drop(at);
        if self.complaints.is_news(&error.to_string()) {
            tracing::warn!(%error, "another member did not do what it was asked");
        }
        error
    }
}
