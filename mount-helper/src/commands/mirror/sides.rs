//! The two clusters of a mirror or of an import: how each is reached, and how long it is waited for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueHint;
use revfs_api::KeySpace;
use revfs_api::client::Client;
use revfs_api::mirror::Patience;

use crate::args::Globals;
use crate::connection::ConnectionArgs;
use crate::endpoint;
use crate::error::Result;

/// Source and destination.
pub(in crate::commands) type Sides = (Arc<dyn KeySpace>, Arc<dyn KeySpace>);

/// What differs from the settings of the source.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "To the destination, where it differs")]
pub(in crate::commands) struct DestinationArgs {
    /// The authority that the destination's certificate is of
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    dest_cacert: Option<PathBuf>,

    /// The certificate to show to the destination
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    dest_client_cert: Option<PathBuf>,

    /// The key of that certificate
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    dest_client_key: Option<PathBuf>,

    /// The user at the destination: NAME, or NAME:PASSWORD
    #[arg(long, value_name = "USER")]
    dest_user: Option<String>,

    /// Its password: the first line of FILE
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    dest_password_file: Option<PathBuf>,
}

impl DestinationArgs {
    fn over(&self, source: &ConnectionArgs) -> ConnectionArgs {
        let path = |own: &Option<PathBuf>, other: &Option<PathBuf>| own.clone().or(other.clone());
        let (user, password_file) = match &self.dest_user {
            Some(user) => (Some(user.clone()), self.dest_password_file.clone()),
            None => (source.user.clone(), path(&self.dest_password_file, &source.password_file)),
        };
        ConnectionArgs {
            cacert: path(&self.dest_cacert, &source.cacert),
            client_cert: path(&self.dest_client_cert, &source.client_cert),
            client_key: path(&self.dest_client_key, &source.client_key),
            user,
            password_file,
            ..source.clone()
        }
    }

    /// Connects to both.
    pub(in crate::commands) async fn connect(
        &self,
        (source, destination): (&str, &str),
        globals: &Globals,
    ) -> Result<Sides> {
        let source = endpoint::connect(source, globals).await?;
        let destination = endpoint::connect(destination, &self.there(globals)).await?;
        Ok((source, destination))
    }

    fn there(&self, globals: &Globals) -> Globals {
        Globals { connection: self.over(&globals.connection), ..globals.clone() }
    }

    /// Clients of both, for what a key space has no words for.
    pub(in crate::commands) fn clients(
        &self,
        (source, destination): (&str, &str),
        globals: &Globals,
    ) -> Result<(Client, Client)> {
        let there = endpoint::client_of(destination, &self.there(globals))?;
        Ok((endpoint::client_of(source, globals)?, there))
    }
}

/// How long a cluster that does not answer is asked again.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(in crate::commands) struct PatienceArgs {
    /// Give up after so many failures in a row of a cluster that has answered before
    #[arg(long, value_name = "N", default_value_t = Patience::default().retries)]
    retries: u32,

    /// Give up when so many seconds have passed since the first of them
    #[arg(long, value_name = "SECONDS", default_value_t = Patience::default().within.as_secs())]
    retry_for: u64,
}

impl PatienceArgs {
    pub(in crate::commands) fn patience(self) -> Patience {
        Patience { retries: self.retries, within: Duration::from_secs(self.retry_for) }
    }
}
