//! `revfs mirror`: a prefix of one cluster, kept up to date in another.

mod sides;
mod told;

use bytes::Bytes;
use clap::ValueHint;
use revfs_api::mirror::{Mirror, Places};

use crate::args::Globals;
use crate::error::Result;
use crate::origin::origin;
use crate::output::{Output, Progress};
use crate::signals::Signals;

pub(super) use sides::{DestinationArgs, PatienceArgs, Sides};
pub(super) use told::{end, failure, print};

/// Keep the keys of a prefix up to date in another cluster, of revfs or of etcd
///
/// What differs is changed first; then each revision of SOURCE becomes one transaction at DESTINATION,
/// which also notes the place, so that a mirror that was interrupted goes on where it was. Leases are not
/// mirrored: a key goes when it goes at SOURCE. Runs until it is interrupted.
///
/// A cluster that does not answer is asked again after a pause that grows to 5 seconds, up to the bounds of
/// --retries and --retry-for; then the mirror ends with code 4. Whatever is acknowledged starts both anew.
/// To move all of an etcd into revfs, see `revfs import --to`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs mirror http://etcd:2379 http://node:2379 --prefix /app/
  revfs mirror http://node:2379 http://etcd:2379 --prefix /app/ --dest-prefix /copy/app/
  revfs mirror http://etcd:2379 http://node:2379 --prefix '' --once")]
pub(crate) struct MirrorArgs {
    /// Whose keys are taken: endpoints of one cluster
    #[arg(value_name = "SOURCE", value_hint = ValueHint::Url)]
    source: String,

    /// Where they are kept
    #[arg(value_name = "DESTINATION", value_hint = ValueHint::Url)]
    destination: String,

    /// The keys that begin so; '' are all
    #[arg(long, value_name = "PREFIX")]
    prefix: String,

    /// What they begin with at the destination, if it is something else
    #[arg(long, value_name = "PREFIX")]
    dest_prefix: Option<String>,

    /// End once the destination shows what the source had at the beginning
    #[arg(long)]
    once: bool,

    /// Replace what the destination holds below the prefix, whoever put it there
    #[arg(long)]
    overwrite: bool,

    /// With --once: do not compare both sides at the end
    #[arg(long, requires = "once")]
    no_verify: bool,

    #[command(flatten)]
    patience: PatienceArgs,

    #[command(flatten)]
    destination_connection: DestinationArgs,
}

pub(crate) async fn run(args: MirrorArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let mut signals = Signals::new()?;
    let urls = (args.source.as_str(), args.destination.as_str());
    let sides = args.destination_connection.connect(urls, globals).await?;
    tokio::select! {
        mirrored = mirrored(&args, sides, output) => mirrored,
        _ = signals.next() => Ok(()),
    }
}

async fn mirrored(args: &MirrorArgs, sides: Sides, output: &mut Output) -> Result<()> {
    let what = format!("mirror {} to {}", args.source, args.destination);
    let failed = |error| failure(&what, &error);
    let prefix = Bytes::from(args.prefix.clone());
    let destination = args.dest_prefix.clone().map_or_else(|| prefix.clone(), Bytes::from);
    let places = Places { source: prefix, destination, leaves_out_long: false };
    let begun = Mirror::begin(sides, places, args.overwrite, origin()).await;
    let mut mirror = begun.map_err(failed)?.with_patience(args.patience.patience());
    let progress = Progress::new();
    let mut printed = Ok(());
    let ran = mirror
        .run(!args.once, &mut |step| {
            if printed.is_ok() {
                printed = print(&step, &progress, output);
            }
        })
        .await;
    printed?;
    ran.map_err(failed)?;
    drop(progress);
    let verified = match args.no_verify {
        true => None,
        false => Some(mirror.verify().await.map_err(failed)?),
    };
    end(mirror.position(), verified.as_ref(), output)
}
