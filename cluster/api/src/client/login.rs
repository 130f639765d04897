//! Who logs in, and the token that holds now.
//!
//! A token is asked for when a request first needs one, and again when one was refused; requests that come
//! together share it. Where authentication is off there is none, until a request is told that it needs one.

use tokio::sync::Mutex;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::settings::Credentials;
use crate::status::AUTH_NOT_ENABLED;
use crate::wire::etcdserverpb as pb;

/// etcd's call, of which nothing else of its service is needed here.
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

#[derive(Clone, PartialEq, prost::Message)]
struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    password: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AuthenticateResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<pb::ResponseHeader>,
    #[prost(string, tag = "2")]
    token: String,
}

async fn authenticate(channel: &Channel, login: &Credentials) -> Result<String, Status> {
    let Credentials { user, password } = login.clone();
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let request = Request::new(AuthenticateRequest { name: user, password });
    let codec = ProstCodec::<AuthenticateRequest, AuthenticateResponse>::default();
    let path = PathAndQuery::from_static(AUTHENTICATE);
    Ok(client.unary(request, path, codec).await?.into_inner().token)
}

pub(super) type Token = MetadataValue<Ascii>;

#[derive(Debug)]
pub(super) struct Login {
    credentials: Credentials,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Unknown,
    /// Nobody has to log in.
    Off,
    Token(Token),
}

impl Login {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self { credentials, state: Mutex::new(State::Unknown) }
    }

    /// The token for a request on `channel`; asks there if there is none.
    pub(super) async fn token(&self, channel: &Channel) -> Result<Option<Token>, Status> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Token(token) => return Ok(Some(token.clone())),
            State::Off => return Ok(None),
            State::Unknown => {}
        }
        match authenticate(channel, &self.credentials).await {
            Ok(token) => {
                let token = Token::try_from(token);
                let mut token =
                    token.map_err(|_| Status::unauthenticated("the token is no header"))?;
                token.set_sensitive(true);
                *state = State::Token(token.clone());
                Ok(Some(token))
            }
            Err(status) if status.message() == AUTH_NOT_ENABLED => {
                *state = State::Off;
                Ok(None)
            }
            Err(status) => Err(status),
        }
    }

    /// `used`, or that there was none, was refused: the next request asks for another.
    pub(super) async fn forget(&self, used: Option<&Token>) {
        let mut state = self.state.lock().await;
        let is_that = match (&*state, used) {
            (State::Token(own), Some(used)) => own == used,
            (State::Off, None) => true,
            // Somebody else has seen to it.
            _ => false,
        };
        if is_that {
            *state = State::Unknown;
        }
    }
}
