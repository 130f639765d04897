//! The serving node: started, served, and taken down again after all that was accepted is answered.

use std::time::Duration;

use revfs_cluster::grpc::{Address, Drained, Listen, Listener, ServeHandle, Shows, serve_node};
use revfs_cluster::{Node, PeerListen, PeerListener, Removal, StartError};
use sd_notify::NotifyState;
use tokio::sync::oneshot;

use super::encryption::Encryption;
use super::joining;
use super::members::Coming;
use super::plan::Plan;
use super::value::{ListenUrl, Place};
use super::view::{self, ViewPlan};
use crate::commands::up::data_dir::{DataDir, Use};
use crate::error::{Failure, Kind, Result};
use crate::mounting::ending;
use crate::output::Output;
use crate::signals::Signals;

/// Storing everything at the end: the log has it already, so that a cut costs only a slower start.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

/// Starts everything, says where it is, and runs until it is told to end.
pub(super) async fn run(plan: Plan, output: &mut Output) -> Result<()> {
    let mut signals = Signals::new()?;
    let point = plan.view.as_ref().map(|view| view.point.as_path());
    let data = DataDir::open(plan.data_dir.clone(), Use::Serves(point))?;
    plan.view.as_ref().map_or(Ok(()), ViewPlan::prepare)?;
    let mut config = plan.node.clone();
    config.endpoint = format!("unix://{}", data.socket().display());
    config.peers = peers(&plan)?;
    if revfs_cluster::is_in_use(&config.data_dir) {
        tell_unused(&plan);
    } else {
        let tls = config.peers.tls.clone();
        config.founding = tokio::select! {
            founding = joining::founding(&plan.members, tls) => founding?,
            name = signals.next() => return Err(interrupted(name)),
        };
    }
    let node = tokio::select! {
        node = Node::start(config) => node.map_err(|error| {
            let data_dir = data.path.display();
            let failure = Failure::caused(format!("cannot start the node on '{data_dir}'"), &error);
            match error {
                StartError::Removed { .. } => failure.of_kind(Kind::Removed),
                _ => failure,
            }
        })?,
        name = signals.next() => return Err(interrupted(name)),
    };
    let ended = served(&plan, &data, &node, &mut signals, output).await;
    let stopped = node.shutdown(SHUTDOWN_LIMIT).await;
    ended?;
    stopped.map_err(|error| {
        Failure::caused("the node did not end in order; nothing that was stored is lost", &error)
    })
}

/// Unit files keep saying how the cluster began.
fn tell_unused(plan: &Plan) {
    if let Coming::Back { unused } = &plan.members.coming
        && !unused.is_empty()
    {
        let unused = unused.join(", ");
        tracing::info!("the data directory belongs to a cluster already; not looked at: {unused}");
    }
}

async fn served(
    plan: &Plan,
    data: &DataDir,
    node: &Node,
    signals: &mut Signals,
    output: &mut Output,
) -> Result<()> {
    let listen = Listen {
        socket: Some(data.socket()),
        listeners: listeners(plan)?,
        limits: plan.limits.clone(),
        name: plan.name.clone(),
        advertise_client_urls: plan.advertised.clone(),
        watch_progress_interval: plan.watch_progress_interval,
        access: plan.access.clone(),
        ..Listen::default()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = serve_node(listen, node.local(), async {
        // An error means that the sender is gone: an end as well.
        stopped.await.ok();
    });
    let server = server.await.map_err(|error| {
        Failure::caused("cannot listen", &error)
            .hint("--listen-client-urls names the addresses; port 0 is any free one")
    })?;
    let ended = attended(plan, data, node, &server, signals, output).await;
    drop(stop);
    if server.finished().await == Drained::Cut {
        tracing::warn!("clients were cut off: they did not end in time");
    }
    ended
}

/// Why it ends.
enum End {
    Told(&'static str),
    Removed(Removal),
}

/// From the first answer to the signal that ends it, or to its removal, with the mount within.
async fn attended(
    plan: &Plan,
    data: &DataDir,
    node: &Node,
    server: &ServeHandle,
    signals: &mut Signals,
    output: &mut Output,
) -> Result<()> {
    let mut view = match &plan.view {
        Some(view) => Some(view.start(node.key_space()).await?),
        None => None,
    };
    announce(plan, data, server, output)?;
    let end = loop {
        tokio::select! {
            name = signals.next() => break End::Told(name),
            removal = node.removed() => break End::Removed(removal),
            () = view::gone(view.as_ref(), data) => {}
        }
        // It goes on without a mount.
        view = None;
    };
    tell_manager(NotifyState::Stopping);
    let unmounted = match view {
        Some(view) => ending::unmount(view, signals).await,
        None => Ok(()),
    };
    match end {
        End::Told(name) => {
            tracing::info!("{name}: no new requests are taken, those that run are answered");
            unmounted
        }
        End::Removed(removal) => {
            tracing::warn!("{removal}: no new requests are taken, streams end");
            Err(removed(&removal, data))
        }
    }
}

/// etcd's words.
fn removed(removal: &Removal, data: &DataDir) -> Failure {
    Failure::new(Kind::Removed, format!("the {removal}")).hint(format!(
        "its data in {} is not used any more: move it away; with an empty data directory the node may be \
         added anew",
        data.path.display()
    ))
}

fn interrupted(signal: &str) -> Failure {
    Failure::new(Kind::Failure, format!("{signal} before anything was served"))
}

/// Where other members find this one, and how they believe each other.
fn peers(plan: &Plan) -> Result<PeerListen> {
    let members = &plan.members;
    let failed = |error: &dyn std::error::Error| {
        Failure::caused("other members cannot be reached with encryption", error)
            .hint("see peer-cert-file, peer-key-file, peer-trusted-ca-file and peer-crl-file")
    };
    let encryption = members.encryption.as_ref();
    let tls = encryption.map(Encryption::start).transpose().map_err(|error| failed(&error))?;
    let to_others = encryption.map(|own| own.to_others(plan.members_trust.as_deref())).transpose();
    let listener = |url: &ListenUrl| match &url.place {
        Place::Tcp(address) => {
            Some(PeerListener { address: *address, tls: tls.clone().filter(|_| url.is_encrypted) })
        }
        Place::Unix(_) => None,
    };
    Ok(PeerListen {
        listeners: members.listen.iter().filter_map(listener).collect(),
        advertised: members.advertised.clone(),
        tls: to_others.map_err(|error| failed(&error))?.unwrap_or_default(),
    })
}

fn listeners(plan: &Plan) -> Result<Vec<Listener>> {
    let tls = plan.encryption.as_ref().map(Encryption::start).transpose();
    let tls = tls.map_err(|error| {
        Failure::caused("clients cannot be served with encryption", &error)
            .hint("see cert-file, key-file, trusted-ca-file and client-crl-file")
    })?;
    let listener = |url: &ListenUrl, shows: Shows| Listener {
        shows,
        address: match &url.place {
            Place::Tcp(address) => Address::Tcp(*address),
            Place::Unix(path) => Address::Unix(path.clone()),
        },
        tls: tls.clone().filter(|_| url.is_encrypted),
    };
    let clients = plan.clients.iter().map(|url| listener(url, Shows::Everything));
    let metrics = plan.metrics.iter().map(|url| listener(url, Shows::Metrics));
    Ok(clients.chain(metrics).collect())
}

/// The URLs as they are bound: a port 0 has become one.
fn bound(plan: &Plan, server: &ServeHandle) -> Vec<String> {
    let shown = |(url, bound): (&ListenUrl, &Address)| match bound {
        Address::Tcp(address) => {
            let scheme = if url.is_encrypted { "https" } else { "http" };
            format!("{scheme}://{address}")
        }
        Address::Unix(_) => url.text.clone(),
    };
    plan.clients.iter().chain(&plan.metrics).zip(server.bound()).map(shown).collect()
}

fn announce(plan: &Plan, data: &DataDir, server: &ServeHandle, output: &mut Output) -> Result<()> {
    let urls = bound(plan, server);
    let data_dir = data.path.display();
    tracing::info!(name = plan.name, %data_dir, listening = urls.join(","), "serving");
    tell_manager(NotifyState::Ready);
    if output.json {
        output.document(&serde_json::json!({
            "name": plan.name,
            "data_dir": data_dir.to_string(),
            "endpoint": format!("unix://{}", data.socket().display()),
            "listening": urls,
            "directory": plan.view.as_ref().map(|view| view.point.display().to_string()),
            "process_id": std::process::id(),
        }))?;
    } else {
        output.line(&format!("serving {}", urls.join(", ")))?;
        if let Some(view) = &plan.view {
            let point = view.point.display();
            output.line(&format!("{point} is mounted; its past: ls {point}/@rev/"))?;
        }
        output.line(&format!(
            "data in {data_dir}; to stop: Ctrl-C, or kill {}",
            std::process::id()
        ))?;
    }
    output.finish()
}

/// systemd, if it waits for a word.
fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
