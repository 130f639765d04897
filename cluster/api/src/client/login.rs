//! Who logs in, and the token that holds now.
//!
//! A token is asked for when a request first needs one, and again when one was refused; requests that come
//! together share it. Where authentication is off there is none, until a request is told that it needs one.

use tokio::sync::Mutex;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use super::settings::Credentials;
use crate::status::AUTH_NOT_ENABLED;
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::auth_client::AuthClient;

async fn authenticate(channel: &Channel, login: &Credentials) -> Result<String, Status> {
    let Credentials { user: name, password } = login.clone();
    let request = pb::AuthenticateRequest { name, password };
    let answer = AuthClient::new(channel.clone()).authenticate(request).await?;
    Ok(answer.into_inner().token)
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
