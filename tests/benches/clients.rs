//! Figures of a node, or of a cluster, beside etcd, with the same clients, in one run on one machine.
//!
//!     cargo bench -p revfs-tests --bench clients                     a table, about six minutes
//!     cargo bench -p revfs-tests --bench clients -- --members 3      three members each; lost leaders too
//!     cargo bench -p revfs-tests --bench clients -- --quick          two rounds of short samples
//!     cargo bench -p revfs-tests --bench clients -- put watch        only workloads whose name has one of these
//!     … -- --rounds N --seconds S --json
//!     … -- --million                 what a million keys cost, starts on them, counts of them
//!     … -- --sweep DIR [--keys N]     how rates grow with clients, keys, watchers and sizes, as pictures
//!
//! Both servers run all the time, on data directories of the same disk, and are loaded in turn: a
//! sample of etcd, then the same of revfs, and so on. A ratio is the median of the rounds' own ratios.
//! Clients and servers share the processors, as they do in every line alike; the processor time of the
//! servers for each operation is given beside the rate, because it does not depend on the client.
//!
//! Beside one node stands a server that answers at once (the program `null-handler`): what the calls of
//! some workloads take at least, with these clients on these processors; and what the disk takes to sync.
//!
//! Of several members all are asked in turn. Heartbeats (100 ms) and the election timeout (1 s) are the
//! default of both.

#[path = "clients/compare.rs"]
mod compare;
#[path = "clients/load.rs"]
mod load;
#[path = "clients/lost_leader.rs"]
mod lost_leader;
#[path = "clients/million.rs"]
mod million;
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
#[path = "clients/versions.rs"]
mod versions;
#[path = "clients/watching.rs"]
mod watching;
#[path = "clients/workloads.rs"]
mod workloads;

use revfs_tests::{bounds, synced};

use load::Outcome;
use server::Server;
use settings::{Settings, disk_dir};
use table::Line;
use workloads::{OF_SEVERAL, WORKLOADS};

/// Syncs whose median is taken.
const SYNCED: usize = 1_000;

fn main() -> Outcome<()> {
    let settings = Settings::read()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&settings))
}

async fn run(settings: &Settings) -> Outcome<()> {
    let disk = tempfile::TempDir::with_prefix_in("revfs-bench-", disk_dir())?;
    if settings.million {
        let million::Million { lines, bounded } = million::measure(settings, disk.path()).await?;
        if settings.json {
            let (lines, bounded) = (table::json(&lines), bounds::json(&bounded));
            println!("{}", serde_json::json!({ "workloads": lines, "bounded": bounded }));
        } else {
            println!("{}\n{}", table::text(&lines), bounds::table("etcd", &bounded));
        }
        return Ok(());
    }
    let mut servers = [
        Server::etcd(&disk.path().join("etcd"), settings.members).await?,
        Server::revfs(&disk.path().join("revfs"), settings.members).await?,
    ];
    if let Some(directory) = &settings.sweep {
        return sweep::sweep(settings, &servers, directory).await;
    }
    let lines = measure(settings, &mut servers).await?;
    let synced = bounds::median(synced::fdatasyncs(&disk.path().join("synced"), SYNCED));
    let synced = 1.0 / synced.as_secs_f64();
    if settings.json {
        let document =
            serde_json::json!({ "workloads": table::json(&lines), "fdatasyncs": synced });
        println!("{document}");
    } else {
        print!("{}", table::text(&lines));
        println!("\nfdatasync of a file allocated in advance, one after the other: {synced:.0}/s");
    }
    Ok(())
}

async fn measure(settings: &Settings, servers: &mut [Server; 2]) -> Outcome<Vec<Line>> {
    if settings.members == 1 {
        let wanted = WORKLOADS.iter().filter(|workload| settings.wants(workload.name));
        let null_handler = Server::null_handler().await?;
        return compare::compare(settings, servers, Some(&null_handler), wanted).await;
    }
    let wanted = OF_SEVERAL.iter().filter(|workload| settings.wants(workload.name));
    let mut lines = compare::compare(settings, servers, None, wanted).await?;
    if settings.members > 2 && settings.wants(lost_leader::NAME) {
        lines.push(lost_leader::measure(settings, servers).await?);
    }
    Ok(lines)
}
