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
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) goal: Goal,
    pub(crate) rounds: Vec<[Sample; 2]>,
}

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

    /// etcd, revfs, their ratio, what is wanted, whether it is met.
    fn compared(&self) -> (String, String, f64, String, bool) {
        match self.goal {
            Goal::Rate { at_least } => {
                let shown = |side| format!("{:.0}/s", self.of(side, |sample| sample.per_second));
                let ratio = self.ratio(|sample| sample.per_second);
                (shown(0), shown(1), ratio, format!(">= {at_least}"), ratio >= at_least)
            }
            Goal::Latency { at_most } => {
                let seconds = |sample: &Sample| sample.median.as_secs_f64();
                let shown = |side| format!("{:.0} µs", self.of(side, seconds) * 1e6);
                let ratio = self.ratio(seconds);
                (shown(0), shown(1), ratio, format!("<= {at_most}"), ratio <= at_most)
            }
        }
    }

    fn processor(&self) -> (f64, f64, f64) {
        let read = |sample: &Sample| sample.processor * 1e6;
        (self.of(0, read), self.of(1, read), self.ratio(read))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (etcd, revfs, ratio, wanted, met) = self.compared();
        let (etcd_processor, revfs_processor, processor) = self.processor();
        write!(
            f,
            "| {} | {etcd} | {revfs} | {ratio:.2} | {wanted} | {} | {etcd_processor:.0} µs | {revfs_processor:.0} µs | {processor:.2} |",
            self.name,
            if met { "yes" } else { "**no**" },
        )
    }
}

pub(crate) fn print(lines: &[Line], as_json: bool) {
    if as_json {
        println!("{}", json(lines));
    } else {
        print!("{}", text(lines));
    }
}

fn text(lines: &[Line]) -> String {
    let mut text = String::from(
        "| workload | etcd | revfs | ratio | wanted | met | server CPU an operation: etcd | revfs | ratio |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for line in lines {
        text.push_str(&format!("{line}\n"));
    }
    text
}

fn json(lines: &[Line]) -> serde_json::Value {
    lines
        .iter()
        .map(|line| {
            let (_, _, ratio, wanted, met) = line.compared();
            let (.., processor) = line.processor();
            serde_json::json!({
                "workload": line.name, "ratio": ratio, "wanted": wanted, "met": met,
                "server_processor_ratio": processor,
            })
        })
        .collect()
}
