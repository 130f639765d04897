//! Samples and what is printed of them.

use std::fmt;
use std::time::Duration;

use crate::load::Done;

/// What a line compares, and what is wanted of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Operations a second, revfs : etcd.
    Rate { at_least: f64 },
    /// The median of one operation, revfs : etcd.
    Latency { at_most: f64 },
    /// Processor time of the server for one operation, revfs : etcd.
    Processor { at_most: f64 },
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    per_second: f64,
    median: Duration,
    /// Processor time of the server for one operation, in seconds.
    processor: f64,
}

impl Sample {
    pub(crate) fn new(done: &Done, processor: Duration) -> Self {
        // Counts of a sample are far below what a float holds exactly.
        let operations = done.operations.max(1) as f64;
        Self {
            per_second: operations / done.took.as_secs_f64(),
            median: done.median,
            processor: processor.as_secs_f64() / operations,
        }
    }
}

/// One workload: pairs of etcd and revfs.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) goal: Goal,
    pub(crate) rounds: Vec<[Sample; 2]>,
    /// The null handler, beside each pair if it can do this at all.
    pub(crate) floor: Vec<Sample>,
}

const HEAD: &str = "| workload | etcd | revfs | ratio | wanted | met | null handler | revfs : null | \
                    server CPU an operation: etcd | revfs | ratio | null handler |\n\
                    | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";

pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Line {
    fn of(&self, side: usize, read: impl Fn(&Sample) -> f64) -> f64 {
        median(self.rounds.iter().map(|pair| read(&pair[side])).collect())
    }

    fn ratio(&self, read: impl Fn(&Sample) -> f64) -> f64 {
        median(self.rounds.iter().map(|[etcd, revfs]| read(revfs) / read(etcd)).collect())
    }

    /// What is wanted, and whether it is met.
    fn met(&self) -> (String, bool) {
        let ratio = self.ratio(|sample| self.goal.read(sample));
        match self.goal {
            Goal::Rate { at_least } => (format!(">= {at_least}"), ratio >= at_least),
            Goal::Latency { at_most } | Goal::Processor { at_most } => {
                (format!("<= {at_most}"), ratio <= at_most)
            }
        }
    }

    /// The null handler's, and what ours is of it.
    fn beside_floor(&self) -> Option<(f64, f64)> {
        let read = |sample: &Sample| self.goal.read(sample);
        let ratios = self
            .rounds
            .iter()
            .zip(&self.floor)
            .map(|([_, revfs], floor)| read(revfs) / read(floor));
        let ratios: Vec<f64> = ratios.collect();
        let floor = median(self.floor.iter().map(read).collect());
        (!ratios.is_empty()).then(|| (floor, median(ratios)))
    }
}

impl Goal {
    fn read(self, sample: &Sample) -> f64 {
        match self {
            Self::Rate { .. } => sample.per_second,
            Self::Latency { .. } => sample.median.as_secs_f64(),
            Self::Processor { .. } => sample.processor,
        }
    }

    fn shown(self, read: f64) -> String {
        match self {
            Self::Rate { .. } => format!("{read:.0}/s"),
            Self::Latency { .. } | Self::Processor { .. } => microseconds(read),
        }
    }
}

fn microseconds(seconds: f64) -> String {
    format!("{:.0} µs", seconds * 1e6)
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = |sample: &Sample| self.goal.read(sample);
        let shown = |side| self.goal.shown(self.of(side, read));
        let (ratio, (wanted, met)) = (self.ratio(read), self.met());
        let met = if met { "yes" } else { "**no**" };
        write!(f, "| {} | {} | {} | {ratio:.2} | ", self.name, shown(0), shown(1))?;
        write!(f, "{wanted} | {met} | ")?;
        match self.beside_floor() {
            Some((floor, ratio)) => write!(f, "{} | {ratio:.2} | ", self.goal.shown(floor))?,
            None => write!(f, " |  | ")?,
        }
        let processor = |sample: &Sample| sample.processor;
        for side in 0..2 {
            write!(f, "{} | ", microseconds(self.of(side, processor)))?;
        }
        write!(f, "{:.2} | ", self.ratio(processor))?;
        if !self.floor.is_empty() {
            let floor = median(self.floor.iter().map(processor).collect());
            write!(f, "{}", microseconds(floor))?;
        }
        write!(f, " |")
    }
}

pub(crate) fn text(lines: &[Line]) -> String {
    let mut text = String::from(HEAD);
    for line in lines {
        text.push_str(&format!("{line}\n"));
    }
    text
}

pub(crate) fn json(lines: &[Line]) -> serde_json::Value {
    lines
        .iter()
        .map(|line| {
            let (wanted, met) = line.met();
            serde_json::json!({
                "workload": line.name,
                "ratio": line.ratio(|sample| line.goal.read(sample)),
                "wanted": wanted,
                "met": met,
                "of_null_handler": line.beside_floor().map(|(_, ratio)| ratio),
                "server_processor_ratio": line.ratio(|sample| sample.processor),
            })
        })
        .collect()
}
