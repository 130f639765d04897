//! From a running etcd into a running cluster, through their APIs: the state at one revision, then what has
//! changed since, then a comparison of every key. The engine is that of `revfs mirror`, which keeps its place
//! at the destination; what is added here is the look before it and the end that is wanted of a move.

use bytes::Bytes;
use revfs_api::client::Client;
use revfs_api::keyspace::{self, KEY_BYTES_MAX, Revision};
use revfs_api::mirror::{Leases, Mirror, MirrorError, Places, Survey, Verified, survey};
use serde_json::json;

use super::ImportArgs;
use super::long_keys::{LongKeys, refused};
use super::roles::Authority;
use crate::args::Globals;
use crate::commands::mirror::{DestinationArgs, PatienceArgs, Sides, end, failure, print};
use crate::error::{Failure, Kind, Result};
use crate::origin::origin;
use crate::output::{Output, Progress, counted};
use crate::signals::Signals;

/// Comparisons that may end because the source forgot the revision.
const COMPARISONS_MAX: u32 = 5;

/// What the API of an etcd does not tell.
const HISTORY: &str = "history before this revision: the destination's revisions are its own";
const USERS: &str = "users: nobody is told the hashes of their passwords; add them by hand";
/// Nobody renews them at the destination before clients have changed over: until then a key goes when it goes
/// at the source.
const LEASES: &str = "leases, without --finish: a key goes when it goes at the source";
const ROLES: &str = "roles: only a part of the keys is taken";

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Into a cluster that runs")]
pub(super) struct LiveArgs {
    /// Copy into the cluster at these endpoints, while both serve their clients
    #[arg(long, value_name = "ENDPOINTS", conflicts_with = "data_dir")]
    pub(super) to: Option<String>,

    /// Then go on with each revision of the source, until SIGINT or SIGTERM; what has happened until then is
    /// taken over and compared
    #[arg(long, conflicts_with = "data_dir")]
    follow: bool,

    /// Only the keys that begin so
    #[arg(long, conflicts_with = "data_dir", value_name = "PREFIX")]
    prefix: Option<String>,

    /// What they begin with at the destination, if it is something else
    #[arg(long, conflicts_with = "data_dir", value_name = "PREFIX")]
    dest_prefix: Option<String>,

    /// Replace what the destination holds there, whoever put it there
    #[arg(long, conflicts_with = "data_dir")]
    overwrite: bool,

    /// At the end, once all was compared, take over the leases, each with its whole time, and remove the note of
    /// the place from the destination: it is done for good
    #[arg(long, conflicts_with_all = ["data_dir", "no_verify"])]
    finish: bool,

    #[command(flatten)]
    patience: PatienceArgs,

    #[command(flatten)]
    destination_connection: DestinationArgs,
}

impl LiveArgs {
    fn places(&self, skip_long_keys: bool) -> Places {
        let source = self.prefix.clone().map(Bytes::from).unwrap_or_default();
        let destination = self.dest_prefix.clone().map_or_else(|| source.clone(), Bytes::from);
        Places { source, destination, leaves_out_long: skip_long_keys }
    }

    /// Whether every key of the source keeps its name: only then roles mean the same.
    fn is_whole(&self) -> bool {
        let empty = |prefix: &Option<String>| prefix.as_ref().is_none_or(String::is_empty);
        empty(&self.prefix) && empty(&self.dest_prefix)
    }
}

pub(super) async fn run(
    args: &ImportArgs,
    to: &str,
    globals: &Globals,
    output: &mut Output,
) -> Result<()> {
    if !args.source.contains("://") {
        let message = format!("--to copies from a running etcd, and '{}' is a file", args.source);
        return Err(
            Failure::usage(message).hint("take a file over into a new data directory: --data-dir")
        );
    }
    let mut signals = Signals::new()?;
    let sides = args.live.destination_connection.connect((&args.source, to), globals).await?;
    let clients = args.live.destination_connection.clients((&args.source, to), globals)?;
    let import = Import { args, clients, what: format!("import {} into {to}", args.source) };
    let mut mirror = tokio::select! {
        begun = import.begin(sides, output) => begun?,
        name = signals.next() => return Err(interrupted(name)),
    };
    if args.live.follow {
        tokio::select! {
            ran = import.ran(&mut mirror, true, output) => ran?,
            name = signals.next() => tracing::info!("{name}: what has happened until now is taken over"),
        }
    }
    let (revision, verified) = tokio::select! {
        done = import.completed(&mut mirror, output) => done?,
        name = signals.next() => return Err(interrupted(name)),
    };
    let is_equal = verified.as_ref().is_some_and(|verified| verified.differs.is_none());
    if is_equal || verified.is_none() {
        import.authority_taken(output).await?;
    }
    if args.live.finish && is_equal {
        let leases = mirror.take_leases().await.map_err(|error| import.failure(&error))?;
        import.leases_taken(leases, output)?;
        mirror.finish().await.map_err(|error| import.failure(&error))?;
    }
    end(revision, verified.as_ref(), output)
}

fn interrupted(signal: &str) -> Failure {
    Failure::new(Kind::Failure, format!("{signal} before everything was taken over and compared"))
        .hint("run the same line again: it goes on where it was")
}

/// One run of the command.
struct Import<'a> {
    args: &'a ImportArgs,
    /// Of the source, and of the destination.
    clients: (Client, Client),
    /// Completes the sentence "cannot …".
    what: String,
}

impl Import<'_> {
    fn failure(&self, error: &MirrorError) -> Failure {
        failure(&self.what, error)
    }

    /// Looks, tells, refuses, and leaves a record at the destination.
    async fn begin(&self, sides: Sides, output: &mut Output) -> Result<Mirror> {
        let (live, skips) = (&self.args.live, self.args.skip_long_keys);
        let places = live.places(skips);
        let progress = Progress::new();
        let mut on_keys = |keys| progress.at(format!("looking: {}", counted(keys, "key")));
        let survey = survey(&sides.0, &places, &mut on_keys).await;
        let survey = survey.map_err(|error| self.failure(&error))?;
        drop(progress);
        let authority = self.authority().await?;
        self.announce(&survey, &authority, output)?;
        if survey.long_keys_count > 0 && !skips {
            let keys = counted(survey.long_keys_count, "key");
            return Err(refused(
                Failure::new(Kind::Conflict, format!("cannot {}", self.what))
                    .because(format!("{keys} longer than {KEY_BYTES_MAX} bytes")),
            ));
        }
        if !live.overwrite {
            authority.check(&self.clients.1).await?;
        }
        let begun = Mirror::begin(sides, places, live.overwrite, origin()).await;
        let mirror = begun.map_err(|error| self.failure(&error))?;
        Ok(mirror.with_patience(live.patience.patience()))
    }

    /// The roles that are to be taken, and whom else there is.
    async fn authority(&self) -> Result<Authority> {
        match self.args.live.is_whole() {
            true => Authority::of(&self.clients.0).await,
            false => Ok(Authority::none()),
        }
    }

    async fn authority_taken(&self, output: &mut Output) -> Result<()> {
        let authority = self.authority().await?;
        if !self.args.live.overwrite {
            authority.check(&self.clients.1).await?;
        }
        let taken = authority.take(&self.clients.1).await?;
        match taken {
            _ if output.json => output.document(&json!({ "roles_taken": taken }))?,
            None => {
                output.line("no role taken over: only root may see those of the destination")?;
            }
            Some(0) => {}
            Some(roles) => output.line(&format!("{} taken over", counted(roles, "role")))?,
        }
        output.finish()
    }

    fn leases_taken(&self, Leases { leases, keys }: Leases, output: &mut Output) -> Result<()> {
        if output.json {
            output.document(&json!({ "leases_taken": leases, "keys_on_leases": keys }))?;
        } else if leases > 0 {
            let (leases, keys) = (counted(leases, "lease"), counted(keys, "key"));
            output.line(&format!("{leases} with {keys} taken over"))?;
        }
        output.finish()
    }

    async fn ran(&self, mirror: &mut Mirror, follow: bool, output: &mut Output) -> Result<()> {
        let progress = Progress::new();
        let mut printed = Ok(());
        let ran = mirror
            .run(follow, &mut |step| {
                if printed.is_ok() {
                    printed = print(&step, &progress, output);
                }
            })
            .await;
        printed?;
        ran.map_err(|error| self.failure(&error))
    }

    /// Takes over what is missing to the present, and compares.
    async fn completed(
        &self,
        mirror: &mut Mirror,
        output: &mut Output,
    ) -> Result<(Revision, Option<Verified>)> {
        let mut compared = 0;
        loop {
            self.ran(mirror, false, output).await?;
            let revision = mirror.position();
            if self.args.no_verify {
                return Ok((revision, None));
            }
            compared += 1;
            match mirror.verify().await {
                Ok(verified) => return Ok((revision, Some(verified))),
                Err(MirrorError::KeySpace(keyspace::Error::Compacted { .. }))
                    if compared < COMPARISONS_MAX => {}
                Err(error) => return Err(self.failure(&error)),
            }
        }
    }

    /// What is not taken over.
    fn left_out(&self, authority: &Authority) -> Vec<String> {
        let mut left = vec![HISTORY.to_owned(), USERS.to_owned()];
        if !self.args.live.finish {
            left.push(LEASES.to_owned());
        }
        match self.args.live.is_whole() {
            true => left.extend(authority.left()),
            false => left.push(ROLES.to_owned()),
        }
        left
    }

    fn announce(&self, survey: &Survey, authority: &Authority, output: &mut Output) -> Result<()> {
        let named = survey.long_keys.iter().map(|long| (&long.key[..], long.bytes)).collect();
        let long_keys = LongKeys { named, count: survey.long_keys_count };
        let source = &self.args.source;
        if output.json {
            output.document(&json!({
                "source": source,
                "revision": survey.revision.0,
                "keys": survey.keys,
                "leased_keys": survey.leased_keys,
                "left_out": self.left_out(authority),
                "authority": authority.document(),
                "long_keys_count": survey.long_keys_count,
                "long_keys": long_keys.documents(),
            }))?;
            return output.finish();
        }
        output.line(&format!(
            "{source}: revision {}, {}, {} of them on leases",
            survey.revision,
            counted(survey.keys, "key"),
            survey.leased_keys,
        ))?;
        for what in self.left_out(authority) {
            output.line(&format!("not taken over: {what}"))?;
        }
        long_keys.print(output)?;
        output.finish()
    }
}
