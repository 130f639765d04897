//! Which node a command asks.
//!
//! In this order: `--endpoint` (or `REVFS_ENDPOINT`), the mount that an argument lies in, the mount
//! that the current directory lies in, the only mount of this user (root: the only mount at all). If
//! none of them names a node, the error names `--endpoint`; nothing is guessed. The file of a backup
//! is asked as a node is.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use revfs_api::KeySpace;
use revfs_api::client::{Client, Endpoints, Settings};
use revfs_api::keyspace::Revision;
use revfs_cluster::backup_keys::BackupKeys;

use crate::args::Globals;
use crate::error::{Asked as _, Failure, Kind, Result};
use crate::mounts::{self, Mount, MountStatus, Probe};
use crate::target::{self, Place, Shown, Target};

/// A node, and what the arguments mean to it.
pub(crate) struct Node {
    pub(crate) keys: Arc<dyn KeySpace>,
    pub(crate) targets: Vec<Target>,
    /// Where it is, as `--endpoint` takes it.
    pub(crate) endpoint: String,
}

/// Finds the node that `arguments` belong to and connects.
///
/// # Errors
/// Usage errors if the arguments lie in different mounts, `Unreachable` if no node is found or it
/// does not answer.
pub(crate) async fn open(globals: &Globals, arguments: &[OsString], literal: bool) -> Result<Node> {
    open_with(globals, arguments, literal, globals.connection.settings()?).await
}

/// As [`open`], with other settings than those that the user gave.
pub(crate) async fn open_with(
    globals: &Globals,
    arguments: &[OsString],
    literal: bool,
    settings: Settings,
) -> Result<Node> {
    let (endpoint, targets) = find(globals, arguments, literal)?;
    let keys = connect_with(&endpoint, settings).await?;
    Ok(Node { keys, targets, endpoint })
}

/// The client of the node that is asked without a path, for what a key space has no words for.
///
/// # Errors
/// As [`open`], but nobody is asked yet.
pub(crate) fn client(globals: &Globals) -> Result<Client> {
    let (endpoint, _) = find(globals, &[], true)?;
    client_of(&endpoint, globals)
}

pub(crate) async fn connect(text: &str, globals: &Globals) -> Result<Arc<dyn KeySpace>> {
    connect_with(text, globals.connection.settings()?).await
}

async fn connect_with(text: &str, settings: Settings) -> Result<Arc<dyn KeySpace>> {
    if is_backup(text) {
        return open_backup(Path::new(text));
    }
    let connected = client_with(text, settings)?.key_space().await;
    connected.asked(|| format!("reach the node at {text}"))
}

pub(crate) fn client_of(text: &str, globals: &Globals) -> Result<Client> {
    client_with(text, globals.connection.settings()?)
}

/// Whether an endpoint is a file: no socket is one.
pub(crate) fn is_backup(text: &str) -> bool {
    Path::new(text).is_file()
}

/// The key space of a file that `revfs snapshot save` made.
pub(crate) fn open_backup(file: &Path) -> Result<Arc<dyn KeySpace>> {
    let failed = |error| Failure::caused(format!("cannot read '{}'", file.display()), &error);
    let keys = BackupKeys::open(file).map_err(failed)?;
    Ok(Arc::new(keys))
}

fn client_with(text: &str, settings: Settings) -> Result<Client> {
    if is_backup(text) {
        let message = format!("'{text}' is a backup: this asks a node that runs");
        return Err(Failure::new(Kind::Unreachable, message).hint("name a node with --endpoint"));
    }
    let endpoints: Endpoints = text.parse().map_err(|error| {
        Failure::caused(format!("--endpoint '{text}' names no node"), &error)
            .hint("unix:///path/revfs.sock, /path/revfs.sock, http://host:port, or several with commas")
            .of_kind(Kind::Usage)
    })?;
    Client::new(&endpoints, settings).asked(|| format!("use --endpoint {text}"))
}

/// The endpoint to ask, and what the arguments mean there.
fn find(globals: &Globals, arguments: &[OsString], literal: bool) -> Result<(String, Vec<Target>)> {
    let mounts = mounts::ours().unwrap_or_default();
    let place_of = |argument: &OsString| match literal {
        true => Place::Key,
        false => target::place(argument, &mounts),
    };
    let places: Vec<Place> = arguments.iter().map(place_of).collect();
    let mut probed = Probed::default();
    let endpoint = match &globals.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => {
            let mount = choose(&mounts, &places)?;
            endpoint_in(mount, probed.status(mount)?)?
        }
    };
    let mut targets = Vec::new();
    for (argument, place) in arguments.iter().zip(&places) {
        targets.push(match place {
            Place::Key => Target::key(argument),
            Place::Inside { mount, below } => {
                Target::inside(argument, below, &shown(mount, &probed.status(mount)?)?)?
            }
        });
    }
    Ok((endpoint, targets))
}

/// Mounts that have been asked what they are: each is asked once.
#[derive(Default)]
struct Probed(HashMap<PathBuf, MountStatus>);

impl Probed {
    fn status(&mut self, mount: &Mount) -> Result<MountStatus> {
        if let Some(status) = self.0.get(&mount.point) {
            return Ok(status.clone());
        }
        let status: MountStatus = status_of(mount)?;
        self.0.insert(mount.point.clone(), status.clone());
        Ok(status)
    }
}

fn shown(mount: &Mount, status: &MountStatus) -> Result<Shown> {
    let root = status.mount.root().map_err(|error| {
        let message = format!("{}/@status names no root", mount.point.display());
        Failure::caused(message, &error)
    })?;
    Ok(Shown { root, revision: status.mount.revision.map(Revision) })
}

/// The mount whose node is asked.
fn choose<'a>(mounts: &'a [Mount], places: &'a [Place]) -> Result<&'a Mount> {
    let mut inside = places.iter().filter_map(|place| match place {
        Place::Inside { mount, .. } => Some(mount),
        Place::Key => None,
    });
    if let Some(first) = inside.next() {
        if let Some(other) = inside.find(|mount| mount.point != first.point) {
            let (first, other) = (first.point.display(), other.point.display());
            return Err(Failure::usage(format!(
                "the arguments lie in different mounts, {first} and {other}"
            ))
            .hint("run the command once for each mount"));
        }
        return Ok(first);
    }
    if let Place::Inside { .. } = target::place(OsStr::new("."), mounts)
        && let Ok(here) = std::env::current_dir()
        && let Some(mount) = mounts::containing(mounts, &here)
    {
        return Ok(mount);
    }
    only_one(mounts, nix::unistd::geteuid().as_raw())
}

fn only_one(mounts: &[Mount], user: u32) -> Result<&Mount> {
    let own: Vec<&Mount> =
        mounts.iter().filter(|mount| user == 0 || mount.owner == Some(user)).collect();
    match own.as_slice() {
        [mount] => Ok(mount),
        [] => Err(Failure::new(
            Kind::Unreachable,
            "no running node was found: nothing of revfs is mounted",
        )
        .hint("start one with `revfs up DIR`, or name one with --endpoint or REVFS_ENDPOINT")),
        several => {
            let points: Vec<String> =
                several.iter().map(|mount| mount.point.display().to_string()).collect();
            let message = format!("which node? {} are mounted", points.join(", "));
            Err(Failure::usage(message)
                .hint("name a path inside one of them, or the node with --endpoint"))
        }
    }
}

fn endpoint_in(mount: &Mount, status: MountStatus) -> Result<String> {
    if !status.endpoint.is_empty() {
        return Ok(status.endpoint);
    }
    let message = format!("the node behind {} listens nowhere", mount.point.display());
    Err(Failure::new(Kind::Unreachable, message).hint("name a node with --endpoint"))
}

/// What `@status` of a mount says.
pub(crate) fn status_of<Status: serde::de::DeserializeOwned>(mount: &Mount) -> Result<Status> {
    let point = mount.point.display();
    let unreachable = |message: String| Failure::new(Kind::Unreachable, message);
    match mounts::probe_for(&mount.point) {
        Probe::Live(status) => Ok(status),
        Probe::Dead => Err(unreachable(format!("the process behind the mount {point} is gone"))
            .hint(format!("start it again: revfs up {point}"))),
        Probe::Closed => Err(unreachable(format!("this user may not look into {point}"))
            .hint("ask as the user who mounted it, or mount with --allow-other")),
        Probe::Silent => Err(unreachable(format!("the process behind {point} does not answer"))
            .hint(format!("see its log, or: revfs umount --lazy {point}"))),
        Probe::Strange(reason) => {
            Err(unreachable(format!("cannot read {point}/@status: {reason}"))
                .hint("name a node with --endpoint"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(point: &str, owner: u32) -> Mount {
        let fs_type = mounts::FS_TYPE.to_owned();
        Mount { point: PathBuf::from(point), fs_type, owner: Some(owner) }
    }

    fn inside(mount: &Mount) -> Place {
        Place::Inside { mount: mount.clone(), below: PathBuf::from("x") }
    }

    #[test]
    fn the_mount_of_an_argument_is_asked() {
        let mounts = [mount("/srv/a", 0), mount("/srv/b", 0)];
        let places = [Place::Key, inside(&mounts[1])];
        assert_eq!(choose(&mounts, &places).unwrap().point, PathBuf::from("/srv/b"));
        let both = [inside(&mounts[0]), inside(&mounts[1])];
        assert_eq!(choose(&mounts, &both).unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn without_a_path_the_only_mount_of_the_user_is_asked() {
        let mounts = [mount("/srv/a", 0), mount("/home/b", 1000)];
        assert_eq!(only_one(&mounts, 1000).unwrap().point, PathBuf::from("/home/b"));
        assert_eq!(only_one(&mounts, 0).unwrap_err().kind, Kind::Usage);
        let none = only_one(&mounts, 7).unwrap_err();
        assert_eq!(none.kind, Kind::Unreachable);
        assert!(none.render().contains("--endpoint"), "{}", none.render());
    }
}
