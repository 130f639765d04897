//! Workloads on two servers in turn.

use crate::load::{KEYS, Load, Outcome};
use crate::server::Server;
use crate::settings::Settings;
use crate::table::{Line, Sample};
use crate::workloads::Workload;

/// A sample of the first server, the same of the second, and so on.
pub(crate) async fn compare<'w>(
    settings: &Settings,
    servers: &[Server; 2],
    workloads: impl IntoIterator<Item = &'w Workload>,
) -> Outcome<Vec<Line>> {
    let mut loads = Vec::new();
    for server in servers {
        loads.push(Load::connect(server).await?);
    }
    for load in &loads {
        load.fill(0..KEYS).await?;
    }
    let mut lines = Vec::new();
    for workload in workloads {
        eprintln!("{} …", workload.name);
        let mut rounds = Vec::new();
        for _ in 0..settings.rounds {
            let mut pair = [Sample::default(); 2];
            for ((sample, load), server) in pair.iter_mut().zip(&loads).zip(servers) {
                let before = server.processor_time();
                let outcome = (workload.run)(load, settings.sample).await?;
                let spent = server.processor_time().saturating_sub(before);
                *sample = Sample::new(&outcome, spent);
            }
            rounds.push(pair);
        }
        let line = Line { name: workload.name, goal: workload.goal, rounds };
        eprintln!("{line}");
        lines.push(line);
    }
    Ok(lines)
}
