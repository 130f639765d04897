//! Workloads on two servers in turn, and beside them on one that only answers.

use crate::load::{KEYS, Load, Outcome};
use crate::server::Server;
use crate::settings::Settings;
use crate::table::{Line, Sample};
use crate::workloads::Workload;

/// A server and the connections to it.
pub(crate) struct Side<'s> {
    server: &'s Server,
    pub(crate) load: Load,
}

impl<'s> Side<'s> {
    pub(crate) async fn of(server: &'s Server) -> Outcome<Self> {
        Ok(Self { server, load: Load::connect(server).await? })
    }

    async fn sample(&self, workload: &Workload, settings: &Settings) -> Outcome<Sample> {
        let before = self.server.processor_time();
        let outcome = (workload.run)(&self.load, settings.sample).await?;
        let spent = self.server.processor_time().saturating_sub(before);
        Ok(Sample::new(&outcome, spent))
    }
}

/// A sample of etcd, the same of revfs and of the null handler, if there is one that can do it, and so on.
pub(crate) async fn compare<'w>(
    settings: &Settings,
    servers: &[Server; 2],
    null_handler: Option<&Server>,
    workloads: impl IntoIterator<Item = &'w Workload>,
) -> Outcome<Vec<Line>> {
    let sides = [Side::of(&servers[0]).await?, Side::of(&servers[1]).await?];
    for side in &sides {
        side.load.fill(0..KEYS).await?;
    }
    let floor = match null_handler {
        Some(server) => Some(Side::of(server).await?),
        None => None,
    };
    let mut lines = Vec::new();
    for workload in workloads {
        let floor = floor.as_ref().filter(|_| workload.has_floor);
        for side in &sides {
            if let Some(prepare) = workload.prepare {
                prepare(&side.load).await?;
            }
        }
        let line = measure(settings, &sides, floor, workload).await?;
        let also = workload.also.map(|(name, goal)| Line { name, goal, ..line.clone() });
        lines.push(line);
        lines.extend(also);
    }
    Ok(lines)
}

/// One workload, for which everything is there, on both in turn.
pub(crate) async fn measure(
    settings: &Settings,
    [etcd, revfs]: &[Side<'_>; 2],
    null_handler: Option<&Side<'_>>,
    workload: &Workload,
) -> Outcome<Line> {
    eprintln!("{} …", workload.name);
    let (mut rounds, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        let etcd = etcd.sample(workload, settings).await?;
        rounds.push([etcd, revfs.sample(workload, settings).await?]);
        if let Some(side) = null_handler {
            floor.push(side.sample(workload, settings).await?);
        }
    }
    let line = Line { name: workload.name, goal: workload.goal, rounds, floor };
    eprintln!("{line}");
    Ok(line)
}
