//! Figures of a node beside etcd, with the same clients, in one run on one machine.
//!
//!     cargo bench -p revfs-tests --bench clients                     a table, about six minutes
//!     cargo bench -p revfs-tests --bench clients -- --quick          two rounds of short samples
//!     cargo bench -p revfs-tests --bench clients -- put watch        only workloads whose name has one of these
//!     … -- --rounds N --seconds S --json
//!
//! Both servers run all the time, on data directories of the same disk, and are loaded in turn: a
//! sample of etcd, then the same of revfs, and so on. A ratio is the median of the rounds' own ratios.
//! Clients and servers share the processors, as they do in every line alike; the processor time of the
//! server for each operation is given beside the rate, because it does not depend on the client.

#[path = "clients/load.rs"]
mod load;
#[path = "clients/server.rs"]
mod server;
#[path = "clients/table.rs"]
mod table;
#[path = "clients/watching.rs"]
mod watching;
#[path = "clients/workloads.rs"]
mod workloads;

use std::path::PathBuf;
use std::time::Duration;

use load::{Load, Outcome};
use server::Server;
use table::{Line, Sample};
use workloads::WORKLOADS;

struct Settings {
    rounds: usize,
    sample: Duration,
    json: bool,
    wanted: Vec<String>,
}

fn settings() -> Outcome<Settings> {
    let mut settings =
        Settings { rounds: 5, sample: Duration::from_secs(3), json: false, wanted: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or(format!("{argument} needs a number"))?;
            value.parse::<u32>().map_err(|error| format!("{argument} {value}: {error}"))
        };
        match argument.as_str() {
            // cargo bench says so to every benchmark.
            "--bench" => {}
            "--json" => settings.json = true,
            "--quick" => (settings.rounds, settings.sample) = (2, Duration::from_millis(500)),
            "--rounds" => settings.rounds = usize::try_from(number()?.max(1))?,
            "--seconds" => settings.sample = Duration::from_secs(u64::from(number()?.max(1))),
            name if !name.starts_with('-') => settings.wanted.push(name.to_owned()),
            other => {
                let known = "--rounds N, --seconds S, --quick, --json, or names of workloads";
                return Err(format!("unknown argument {other}: {known}").into());
            }
        }
    }
    Ok(settings)
}

fn main() -> Outcome<()> {
    let settings = settings()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let lines = runtime.block_on(measure(&settings))?;
    if settings.json {
        println!("{}", table::json(&lines));
    } else {
        print!("{}", table::text(&lines));
    }
    Ok(())
}

async fn measure(settings: &Settings) -> Outcome<Vec<Line>> {
    let disk = tempfile::TempDir::with_prefix_in("revfs-bench-", disk_dir())?;
    let servers = [
        Server::etcd(&disk.path().join("etcd")).await?,
        Server::revfs(&disk.path().join("revfs")).await?,
    ];
    let mut loads = Vec::new();
    for server in &servers {
        loads.push(Load::connect(server).await?);
    }
    for load in &loads {
        load.fill().await?;
    }
    let is_wanted = |name: &str| {
        settings.wanted.is_empty() || settings.wanted.iter().any(|part| name.contains(part))
    };
    let mut lines = Vec::new();
    for workload in WORKLOADS.iter().filter(|workload| is_wanted(workload.name)) {
        eprintln!("{} …", workload.name);
        let mut rounds = Vec::new();
        for _ in 0..settings.rounds {
            let mut pair = [Sample::default(); 2];
            for ((sample, load), server) in pair.iter_mut().zip(&loads).zip(&servers) {
                let before = server.processor_time()?;
                let outcome = (workload.run)(load, settings.sample).await?;
                let spent = server.processor_time()?.saturating_sub(before);
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

/// A directory of the disk: TMPDIR if it is set, else /var/tmp.
fn disk_dir() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}
