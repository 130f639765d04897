//! Figures of the store beside raw LMDB, in one run, on one machine and disk.
//!
//!     cargo bench -p revfs-store --bench store                     everything, full sizes
//!     cargo bench -p revfs-store --bench store -- get range        only these groups
//!     cargo bench -p revfs-store --bench store -- --divide 100     sizes divided by 100
//!     cargo bench -p revfs-store --bench store -- --quick          a smoke run
//!     … -- --dir DIR --rounds N
//!     … -- large --stores DIR         loads the large stores there, or finds them loaded; keeps them
//!
//! Ours and the peer take turns, round by round, so that load on the machine hits both; a figure is
//! the median over the rounds. Absolute times are those of one machine: compare the ratios. Full
//! sizes need 20 GB of disk and half an hour.

#[path = "store/disk.rs"]
mod disk;
#[path = "store/figures.rs"]
mod figures;
#[path = "store/large.rs"]
mod large;
#[path = "store/latency.rs"]
mod latency;
#[path = "store/list.rs"]
mod list;
#[path = "store/load.rs"]
mod load;
#[path = "store/peer.rs"]
mod peer;
#[path = "store/read.rs"]
mod read;
#[path = "store/write.rs"]
mod write;

use std::error::Error;
use std::path::{Path, PathBuf};

use figures::{Figure, print_figure, print_table};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a run is asked for.
struct Settings {
    groups: Vec<String>,
    /// Every size of the table is divided by this.
    divide: usize,
    rounds: usize,
    dir: PathBuf,
    /// Where the stores of the group `large` stay.
    stores: Option<PathBuf>,
}

impl Settings {
    fn size(&self, full: usize) -> usize {
        (full / self.divide).max(1)
    }
}

type Group = (&'static str, fn(&Settings, &Path) -> Outcome<Vec<Figure>>);

const GROUPS: [Group; 7] = [
    ("get", read::one_version),
    ("versions", read::many_versions),
    ("write", write::run),
    ("list", list::run),
    ("disk", disk::run),
    ("latency", latency::run),
    ("large", large::run),
];

fn settings() -> Outcome<Settings> {
    let disk = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let mut settings =
        Settings { groups: Vec::new(), divide: 1, rounds: 5, dir: disk, stores: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            // cargo bench says so to every benchmark.
            "--bench" => {}
            "--quick" => (settings.divide, settings.rounds) = (200, 2),
            "--divide" => settings.divide = value()?.parse()?,
            "--rounds" => settings.rounds = value()?.parse()?,
            "--dir" => settings.dir = value()?.into(),
            "--stores" => settings.stores = Some(value()?.into()),
            group if GROUPS.iter().any(|(name, _)| *name == group) => {
                settings.groups.push(group.to_owned());
            }
            other => {
                let known: Vec<_> = GROUPS.iter().map(|(name, _)| *name).collect();
                return Err(format!(
                    "\"{other}\" is no option and no group ({})",
                    known.join(", ")
                )
                .into());
            }
        }
    }
    Ok(settings)
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, dir] = arguments.as_slice()
        && flag == large::IDLE_FLAG
    {
        return large::idle(Path::new(dir));
    }
    let settings = settings()?;
    let mut all = Vec::new();
    for (name, run) in GROUPS {
        if !settings.groups.is_empty() && !settings.groups.iter().any(|group| group == name) {
            continue;
        }
        let dir = tempfile::TempDir::with_prefix_in("revfs-bench-", &settings.dir)?;
        let figures = run(&settings, dir.path())?;
        figures.iter().for_each(print_figure);
        all.extend(figures);
    }
    print_table(&all);
    Ok(())
}
