//! `revfs stat DIR` of a mount: what is asked of it, how fast it answers, what waits to be committed.
//!
//! All of it is in `@status`, which only counts up. One look tells of the whole time since the mount began;
//! on a terminal, a look each second and the one before it tell what was between them.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use revfs_api::operations::percentile;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::commands::status::bytes;
use crate::endpoint;
use crate::error::Result;
use crate::mounts::Mount;
use crate::output::{Output, counted};

const REFRESH: Duration = Duration::from_secs(1);

/// The cursor goes home, and what stands below it goes.
const CLEAR: &str = "\x1b[H\x1b[J";

/// What `@status` says that is shown here.
#[derive(Clone, Debug, Deserialize)]
struct Status {
    revision: u64,
    #[serde(default)]
    read_only: String,
    mount: Counted,
}

#[derive(Clone, Debug, Deserialize)]
struct Counted {
    #[serde(default)]
    seconds: u64,
    #[serde(default)]
    operations: BTreeMap<String, Kind>,
    staged_files: u64,
    staged_bytes: u64,
    #[serde(default)]
    events: String,
    #[serde(default)]
    events_raised: u64,
    #[serde(default)]
    events_lost: u64,
    nodes: u64,
    watching: bool,
    #[serde(default)]
    fenced: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Kind {
    count: u64,
    errors: u64,
    histogram: Vec<(Option<u64>, u64)>,
}

impl Kind {
    /// What was counted since `before`. (All of it, if the process is another one by now.)
    fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) = before.filter(|before| before.count <= self.count) else {
            return self.clone();
        };
        let old =
            |bound| before.histogram.iter().find(|(own, _)| *own == bound).map_or(0, |own| own.1);
        let new =
            self.histogram.iter().map(|(bound, count)| (*bound, count.saturating_sub(old(*bound))));
        Self {
            count: self.count - before.count,
            errors: self.errors.saturating_sub(before.errors),
            histogram: new.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

/// One look, or what was between two.
struct Shown<'a> {
    mount: &'a Mount,
    status: Status,
    /// For how long it was counted.
    during: Duration,
    kinds: BTreeMap<String, Kind>,
}

/// Shows it once, or on a terminal until it is interrupted.
pub(super) async fn run(mount: &Mount, once: bool, output: &mut Output) -> Result<()> {
    let status: Status = endpoint::status_of(mount)?;
    // Whole seconds: the first one is not over.
    let during = Duration::from_secs(status.mount.seconds).max(REFRESH);
    let kinds = status.mount.operations.clone();
    let mut shown = Shown { mount, status, during, kinds };
    if output.json {
        output.document(&shown.document())?;
        return output.finish();
    }
    if once || !std::io::stdout().is_terminal() {
        shown.print("", output)?;
        return output.finish();
    }
    let mut ticks = tokio::time::interval(REFRESH);
    let mut looked = Instant::now();
    ticks.tick().await;
    loop {
        shown.print(CLEAR, output)?;
        output.finish()?;
        ticks.tick().await;
        let before = shown.status.mount.operations;
        let status: Status = endpoint::status_of(mount)?;
        let during = looked.elapsed();
        looked = Instant::now();
        let now = status.mount.operations.iter();
        let kinds = now.map(|(name, kind)| (name.clone(), kind.since(before.get(name)))).collect();
        shown = Shown { mount, status, during, kinds };
    }
}

impl Shown<'_> {
    fn document(&self) -> Value {
        let Counted { staged_files, staged_bytes, events, events_raised, events_lost, .. } =
            &self.status.mount;
        let kind = |(name, kind): (&String, &Kind)| {
            let at = |hundredths| percentile(&kind.histogram, hundredths);
            let document = json!({
                "count": kind.count,
                "errors": kind.errors,
                "p50": at(50),
                "p90": at(90),
                "p99": at(99),
            });
            (name.clone(), document)
        };
        json!({
            "directory": self.mount.point.display().to_string(),
            "seconds": self.during.as_secs(),
            "revision": self.status.revision,
            "read_only": self.status.read_only,
            "operations": self.kinds.iter().map(kind).collect::<serde_json::Map<_, _>>(),
            "staged_files": staged_files,
            "staged_bytes": staged_bytes,
            "events": events,
            "events_raised": events_raised,
            "events_lost": events_lost,
            "nodes": self.status.mount.nodes,
            "watching": self.status.mount.watching,
            "fenced": self.status.mount.fenced,
        })
    }

    fn print(&self, before: &str, output: &mut Output) -> Result<()> {
        let Counted {
            staged_files, staged_bytes, events, events_raised, events_lost, nodes, ..
        } = &self.status.mount;
        let refused = self.status.mount.fenced.as_deref().unwrap_or(&self.status.read_only);
        let changes = match refused {
            "" => "accepted".to_owned(),
            reason => format!("refused: {reason}"),
        };
        let caches = match self.status.mount.watching {
            true => format!("kept in step with the store, {}", counted(*nodes, "name")),
            false => "off: changes made elsewhere are not heard of".to_owned(),
        };
        let facts = [
            ("mount", self.mount.point.display().to_string()),
            ("revision", self.status.revision.to_string()),
            ("changes", changes),
            ("staged", format!("{}, {}", counted(*staged_files, "file"), bytes(*staged_bytes))),
            ("events", format!("{events}, {events_raised} raised, {events_lost} lost")),
            ("caches", caches),
            ("counted", format!("for {}", span(self.during))),
        ];
        output.bytes(before.as_bytes())?;
        let cells =
            |(name, value): (&str, String)| vec![name.as_bytes().to_vec(), value.into_bytes()];
        output.table(&facts.map(cells))?;
        output.line("")?;
        output.table(&self.rows())
    }

    fn rows(&self) -> Vec<Vec<Vec<u8>>> {
        let names = ["OPERATION", "PER SECOND", "COUNT", "ERRORS", "P50", "P90", "P99"];
        let head = names.map(|name| name.as_bytes().to_vec()).to_vec();
        let row = |(name, kind): (&String, &Kind)| {
            let at = |hundredths| match kind.count {
                0 => "-".to_owned(),
                _ => percentile(&kind.histogram, hundredths).map_or("longer".to_owned(), time),
            };
            let cells = [
                name.clone(),
                rate(kind.count, self.during),
                kind.count.to_string(),
                kind.errors.to_string(),
                at(50),
                at(90),
                at(99),
            ];
            cells.map(String::into_bytes).to_vec()
        };
        [head].into_iter().chain(self.kinds.iter().map(row)).collect()
    }
}

/// `12.3`
fn rate(count: u64, during: Duration) -> String {
    let milliseconds = during.as_millis().max(1);
    let tenths = u128::from(count) * 10_000 / milliseconds;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// `12 µs`, `1.5 ms`, `3.1 s`
fn time(microseconds: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", microseconds / unit, microseconds % unit * 10 / unit);
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => format!("{} ms", tenths(1_000)),
        _ => format!("{} s", tenths(1_000_000)),
    }
}

/// `3h 12m`, `12m 5s`, `1.0 s`
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}.{} s", time.subsec_millis() / 100),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_looks_tell_what_was_between_them() {
        let before = Kind { count: 3, errors: 1, histogram: vec![(Some(2), 2), (Some(8), 1)] };
        let now =
            Kind { count: 9, errors: 1, histogram: vec![(Some(2), 2), (Some(8), 4), (None, 3)] };
        let between = Kind { count: 6, errors: 0, histogram: vec![(Some(8), 3), (None, 3)] };
        assert_eq!(now.since(Some(&before)), between);
        assert_eq!(now.since(None), now);
        assert_eq!(before.since(Some(&now)), before, "another process counts from 0");
    }

    #[test]
    fn rates_and_times_are_short() {
        assert_eq!(rate(25, Duration::from_secs(2)), "12.5");
        assert_eq!(rate(0, Duration::ZERO), "0.0");
        assert_eq!([7, 1_500, 3_145_728].map(time), ["7 µs", "1.5 ms", "3.1 s"]);
        assert_eq!(
            [3, 725, 11_520].map(|seconds| span(Duration::from_secs(seconds))),
            ["3.0 s", "12m 5s", "3h 12m"]
        );
    }
}
