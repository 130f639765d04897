//! The serving node: started, served, and taken down again after all that was accepted is answered.

use std::time::Duration;

use revfs_cluster::Node;
use revfs_cluster::grpc::{Address, Drained, Listen, Listener, ServeHandle, Shows, serve_node};
use sd_notify::NotifyState;
use tokio::sync::oneshot;

use super::encryption::Encryption;
use super::plan::Plan;
use super::value::{ListenUrl, Place};
use crate::commands::up::data_dir::DataDir;
use crate::error::{Failure, Kind, Result};
use crate::output::Output;
use crate::signals::Signals;

/// Storing everything at the end: the log has it already, so that a cut costs only a slower start.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

/// Starts everything, says where it is, and runs until it is told to end.
pub(super) async fn run(plan: Plan, output: &mut Output) -> Result<()> {
    let mut signals = Signals::new()?;
    let data = DataDir::open(plan.data_dir.clone(), std::path::Path::new(""))?;
    let mut config = plan.node.clone();
    config.endpoint = format!("unix://{}", data.socket().display());
    let node = tokio::select! {
        node = Node::start(config) => node.map_err(|error| {
            let data_dir = data.path.display();
            Failure::caused(format!("cannot start the node on '{data_dir}'"), &error)
        })?,
        name = signals.next() => {
            return Err(Failure::new(Kind::Failure, format!("{name} before anything was served")));
        }
    };
    let ended = served(&plan, &data, &node, &mut signals, output).await;
    let stopped = node.shutdown(SHUTDOWN_LIMIT).await;
    ended?;
    stopped.map_err(|error| {
        Failure::caused("the node did not end in order; nothing that was stored is lost", &error)
    })
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
    let announced = announce(plan, data, &server, output);
    if announced.is_ok() {
        let name = signals.next().await;
        tracing::info!("{name}: no new requests are taken, those that run are answered");
    }
    tell_manager(NotifyState::Stopping);
    drop(stop);
    if server.finished().await == Drained::Cut {
        tracing::warn!("clients were cut off: they did not end in time");
    }
    announced
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
            "process_id": std::process::id(),
        }))?;
    } else {
        output.line(&format!("serving {}", urls.join(", ")))?;
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
