//! Figures of a node, or of a cluster, beside etcd, with the same clients, in one run on one machine.
//!
//!     cargo bench -p revfs-tests --bench clients                     a table, about six minutes
//!     cargo bench -p revfs-tests --bench clients -- --members 3      three members each; lost leaders too
//!     cargo bench -p revfs-tests --bench clients -- --quick          two rounds of short samples
//!     cargo bench -p revfs-tests --bench clients -- put watch        only workloads whose name has one of these
//!     … -- --rounds N --seconds S --json
//!     … -- --sweep DIR [--keys N]     how rates grow with clients, keys, watchers and sizes, as pictures
//!
//! Both servers run all the time, on data directories of the same disk, and are loaded in turn: a
//! sample of etcd, then the same of revfs, and so on. A ratio is the median of the rounds' own ratios.
//! Clients and servers share the processors, as they do in every line alike; the processor time of the
//! servers for each operation is given beside the rate, because it does not depend on the client.
//!
//! Of several members all are asked in turn. Heartbeats (100 ms) and the election timeout (1 s) are the
//! default of both.

#[path = "clients/compare.rs"]
mod compare;
#[path = "clients/load.rs"]
mod load;
#[path = "clients/lost_leader.rs"]
mod lost_leader;
#[path = "clients/plot.rs"]
mod plot;
#[path = "clients/server.rs"]
mod server;
#[path = "clients/settings.rs"]
mod settings;
#[path = "clients/sweep.rs"]
mod sweep;
#[path = "clients/table.rs"]
mod table;
#[path = "clients/unread.rs"]
mod unread;
#[path = "clients/watching.rs"]
mod watching;
#[path = "clients/workloads.rs"]
mod workloads;

use load::Outcome;
use server::Server;
use settings::{Settings, disk_dir};
use table::Line;
use workloads::{OF_SEVERAL, WORKLOADS};

fn main() -> Outcome<()> {
    let settings = Settings::read()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&settings))
}

async fn run(settings: &Settings) -> Outcome<()> {
    let disk = tempfile::TempDir::with_prefix_in("revfs-bench-", disk_dir())?;
    let mut servers = [
        Server::etcd(&disk.path().join("etcd"), settings.members).await?,
        Server::revfs(&disk.path().join("revfs"), settings.members).await?,
    ];
    if let Some(directory) = &settings.sweep {
        return sweep::sweep(settings, &servers, directory).await;
    }
    let lines = measure(settings, &mut servers).await?;
    table::print(&lines, settings.json);
    Ok(())
}

async fn measure(settings: &Settings, servers: &mut [Server; 2]) -> Outcome<Vec<Line>> {
    let all = if settings.members == 1 { WORKLOADS } else { OF_SEVERAL };
    let wanted = all.iter().filter(|workload| settings.wants(workload.name));
    let mut lines = compare::compare(settings, servers, wanted).await?;
    if settings.members > 2 && settings.wants(lost_leader::NAME) {
        lines.push(lost_leader::measure(settings, servers).await?);
    }
    Ok(lines)
}
