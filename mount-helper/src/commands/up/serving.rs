//! The running node: started, served, mounted, and taken down again.
//!
//! Each stage ends what the stages within it need: the node outlives the server, the server the mount.

use std::time::Duration;

use revfs_cluster::grpc::{Drained, Listen, ServeHandle, serve_node};
use revfs_cluster::{Node, NodeConfig, StartError};
use tokio::sync::oneshot;

use crate::error::{Failure, Result};
use crate::mounting::{self, daemon::Parent};
use crate::output::Output;
use crate::signals::Signals;

use super::Plan;
use super::keep::Kept;

/// Storing everything at the end: the log has it already, so that a cut costs only a slower start.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

/// Starts everything, says where it is, and runs until it is told to end.
pub(super) async fn run(plan: &Plan, parent: Option<Parent>, output: &mut Output) -> Result<()> {
    let mut signals = Signals::new()?;
    let node = tokio::select! {
        node = Node::start(node_config(plan)) => node.map_err(|error| not_started(plan, &error))?,
        name = signals.next() => return Err(mounting::interrupted(name)),
    };
    let ended = served(plan, &node, &mut signals, parent, output).await;
    let stopped = node.shutdown(SHUTDOWN_LIMIT).await;
    ended?;
    stopped.map_err(|error| {
        Failure::caused("the node did not end in order; nothing that was stored is lost", &error)
    })
}

fn node_config(plan: &Plan) -> NodeConfig {
    NodeConfig {
        endpoint: endpoint(plan),
        keep: plan.keep.keep.duration(),
        quota_bytes: plan.quota_bytes,
        ..NodeConfig::new(&plan.data.path)
    }
}

fn endpoint(plan: &Plan) -> String {
    format!("unix://{}", plan.data.socket().display())
}

fn not_started(plan: &Plan, error: &StartError) -> Failure {
    let data_dir = plan.data.path.display();
    Failure::caused(format!("cannot start the node on '{data_dir}'"), error)
}

/// The socket, and the mount within.
async fn served(
    plan: &Plan,
    node: &Node,
    signals: &mut Signals,
    parent: Option<Parent>,
    output: &mut Output,
) -> Result<()> {
    let listen =
        Listen { socket: Some(plan.data.socket()), tcp: plan.listen.clone(), ..Listen::default() };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = serve_node(listen, node.local(), async {
        // An error means that the sender is gone: an end as well.
        stopped.await.ok();
    });
    let server = server.await.map_err(|error| {
        Failure::caused("cannot listen", &error).hint(
            "the socket lies in the data directory (--data-dir); --listen names TCP addresses",
        )
    })?;
    let ended = mounted(plan, node, &server, signals, parent, output).await;
    drop(stop);
    if server.finished().await == Drained::Cut {
        tracing::warn!("clients were cut off: they did not end in time");
    }
    ended
}

/// The mount, from its first answer to its end.
async fn mounted(
    plan: &Plan,
    node: &Node,
    server: &ServeHandle,
    signals: &mut Signals,
    parent: Option<Parent>,
    output: &mut Output,
) -> Result<()> {
    let point = plan.point.display();
    let mounted = mounting::start(&plan.point, node.key_space(), plan.mount.clone()).await?;
    // If it fails the mount goes as it is dropped.
    announce(plan, server, parent, output).await?;
    tracing::info!("{point} is mounted; the data is in {}", plan.data.path.display());
    mounting::until_end(mounted, signals).await
}

/// Makes sure that the mount answers, says where things are, and lets the parent go.
async fn announce(
    plan: &Plan,
    server: &ServeHandle,
    parent: Option<Parent>,
    output: &mut Output,
) -> Result<()> {
    mounting::check(&plan.point, &[]).await?;
    let point = plan.point.display();
    let data = plan.data.path.display();
    let how = if parent.is_some() { "" } else { "Ctrl-C, or: " };
    if output.json {
        let tcp: Vec<String> = server.tcp().iter().map(ToString::to_string).collect();
        output.document(&serde_json::json!({
            "directory": plan.point.display().to_string(),
            "data_dir": plan.data.path.display().to_string(),
            "endpoint": endpoint(plan),
            "tcp": tcp,
            "process_id": std::process::id(),
            "keep": plan.keep.keep.to_string(),
        }))?;
    } else {
        let tcp: String =
            server.tcp().iter().map(|address| format!(", http://{address}")).collect();
        output.line(&format!("{point} is mounted; its past: ls {point}/@rev/"))?;
        output.line(&format!("data in {data}, listening on {}{tcp}", endpoint(plan)))?;
        output.line(&format!("to stop: {how}revfs umount {point}"))?;
        if let Kept { keep, before: Some(before) } = plan.keep {
            output.line(&format!("old revisions are now kept: {keep} (until now: {before})"))?;
        }
    }
    output.finish()?;
    match parent {
        Some(parent) => parent.release(&plan.data.open_log()?),
        None => Ok(()),
    }
}
