//! How a mount looks: as of when, whose plain keys are, for how long it waits.

use std::time::Duration;

use jiff::tz::TimeZone;
use revfs_api::KeySpace;
use revfs_api::keyspace::Read;
use revfs_fs::filesystem::MountOptions;
use revfs_fs::node::Tree;
use revfs_fs::path::DirectoryKey;

use crate::error::{Failure, Result};
use crate::moment::{At, Moment};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "How it looks")]
pub(crate) struct Look {
    #[command(flatten)]
    at: At,

    /// Show past modes as they were, not only what is allowed now as well
    #[arg(long, value_name = "HOW")]
    history: Option<History>,

    /// Owner of files that no mount has made: a name or a number; else who mounts
    #[arg(long, value_name = "USER", value_parser = user)]
    uid: Option<u32>,

    /// Their group
    #[arg(long, value_name = "GROUP", value_parser = group)]
    gid: Option<u32>,

    /// What their modes (0666, 0777 of directories) lack
    #[arg(long, value_name = "OCTAL", value_parser = umask, default_value = "022")]
    umask: u16,

    /// Run no program from the mount
    #[arg(long)]
    noexec: bool,

    /// Answer with an error what the cluster has not answered for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout: u64,

    /// Zone of times in `@time/T` that name none, as Europe/Berlin; else this machine's
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    tz: Option<TimeZone>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum History {
    Asis,
}

fn number(text: &str, name: impl FnOnce() -> Option<u32>, kind: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number) => Ok(number),
        Err(_) => name().ok_or_else(|| format!("this machine knows no such {kind}")),
    }
}

fn user(text: &str) -> Result<u32, String> {
    let known = || nix::unistd::User::from_name(text).ok()?.map(|user| user.uid.as_raw());
    number(text, known, "user")
}

fn group(text: &str) -> Result<u32, String> {
    let known = || nix::unistd::Group::from_name(text).ok()?.map(|group| group.gid.as_raw());
    number(text, known, "group")
}

fn umask(text: &str) -> Result<u16, String> {
    match u16::from_str_radix(text, 8) {
        Ok(mask) if mask <= 0o777 => Ok(mask),
        Ok(_) | Err(_) => Err("an octal number from 0 to 777".to_owned()),
    }
}

fn zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|error| error.to_string())
}

impl Look {
    /// The tree to mount. What is over or yet to come is refused here, and not by each file.
    pub(crate) async fn tree(&self, keys: &dyn KeySpace, root: &DirectoryKey) -> Result<Tree> {
        let moment = self.at.moment();
        if moment == Moment::Now {
            return Ok(Tree::Live);
        }
        let revision = moment.revision(keys).await?;
        // A read that asks nothing is not refused.
        let root = Read::Directory(root.as_bytes().clone());
        match keys.read(revision, vec![root]).await {
            Ok(_) => Ok(Tree::Past(revision)),
            Err(error) => Err(Failure::caused(format!("cannot mount revision {revision}"), &error)),
        }
    }

    pub(crate) fn over(&self, options: MountOptions) -> MountOptions {
        MountOptions {
            uid: self.uid.unwrap_or(options.uid),
            gid: self.gid.unwrap_or(options.gid),
            umask: self.umask,
            no_exec: self.noexec,
            timeout: Duration::from_secs(self.timeout),
            history_as_is: self.history.is_some(),
            time_zone: self.tz.clone().unwrap_or_else(|| options.time_zone.clone()),
            ..options
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names_or_numbers_and_masks_are_octal() {
        assert_eq!((user("0"), user("root"), group("root")), (Ok(0), Ok(0), Ok(0)));
        assert!(user("no such user").is_err() && group("-1").is_err());
        assert_eq!((umask("027"), umask("0")), (Ok(0o027), Ok(0)));
        assert!(umask("8").is_err() && umask("1000").is_err());
        assert!(zone("Europe/Berlin").is_ok() && zone("Nowhere/Near").is_err());
    }
}
