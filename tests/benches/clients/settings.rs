//! What is said on the command line of a benchmark.

use std::path::PathBuf;
use std::time::Duration;

use crate::load::Outcome;

pub(crate) struct Settings {
    pub(crate) members: usize,
    pub(crate) rounds: usize,
    pub(crate) sample: Duration,
    pub(crate) json: bool,
    /// Draw how figures grow into this directory, instead of a table.
    pub(crate) sweep: Option<PathBuf>,
    /// The most keys that a sweep, or `--million`, goes up to.
    pub(crate) keys_max: usize,
    /// A million keys, instead of the workloads.
    pub(crate) million: bool,
    wanted: Vec<String>,
}

impl Settings {
    pub(crate) fn read() -> Outcome<Self> {
        let mut settings = Self {
            members: 1,
            rounds: 5,
            sample: Duration::from_secs(3),
            json: false,
            sweep: None,
            keys_max: 1_000_000,
            million: false,
            wanted: Vec::new(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            if argument == "--sweep" {
                let directory = arguments.next().ok_or("--sweep needs a directory")?;
                settings.sweep = Some(PathBuf::from(directory));
                continue;
            }
            let mut number = || {
                let value = arguments.next().ok_or(format!("{argument} needs a number"))?;
                value.parse::<u32>().map_err(|error| format!("{argument} {value}: {error}"))
            };
            match argument.as_str() {
                // cargo bench says so to every benchmark.
                "--bench" => {}
                "--million" => settings.million = true,
                "--json" => settings.json = true,
                "--quick" => {
                    (settings.rounds, settings.sample) = (2, Duration::from_millis(500));
                    settings.keys_max = 100_000;
                }
                "--members" => settings.members = usize::try_from(number()?.max(1))?,
                "--keys" => settings.keys_max = usize::try_from(number()?.max(10_000))?,
                "--rounds" => settings.rounds = usize::try_from(number()?.max(1))?,
                "--seconds" => settings.sample = Duration::from_secs(u64::from(number()?.max(1))),
                name if !name.starts_with('-') => settings.wanted.push(name.to_owned()),
                other => {
                    let known = "--members N, --rounds N, --seconds S, --quick, --json, --sweep DIR, --keys N, \
                                 --million, or names of workloads";
                    return Err(format!("unknown argument {other}: {known}").into());
                }
            }
        }
        Ok(settings)
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|part| name.contains(part))
    }
}

/// A directory of the disk: TMPDIR if it is set, else /var/tmp.
pub(crate) fn disk_dir() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}
