//! Samples and what is printed of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Samples by (operation, subject).
#[derive(Default)]
pub(crate) struct Figures {
    samples: BTreeMap<(String, String), Vec<Duration>>,
}

/// What the create of a file is compared with.
pub(crate) const CREATE: &str = "create + write 100 B + close";
pub(crate) const FDATASYNC: &str = "fdatasync";
pub(crate) const EMPTY_CREATE: &str = "empty handler";
/// LOOKUP, CREATE, GETXATTR, WRITE, FLUSH.
pub(crate) const EMPTY_ROUND_TRIPS: u32 = 5;

impl Figures {
    pub(crate) fn add(&mut self, operation: &str, subject: &str, sample: Duration) {
        self.samples.entry((operation.to_owned(), subject.to_owned())).or_default().push(sample);
    }

    pub(crate) fn median(&self, operation: &str, subject: &str) -> Option<Duration> {
        let mut sorted = self.samples.get(&(operation.to_owned(), subject.to_owned()))?.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    fn operations(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.samples.keys().map(|(operation, _)| operation.as_str()).collect();
        names.dedup();
        names.retain(|name| *name != FDATASYNC && *name != EMPTY_CREATE);
        names
    }

    /// The least that a create must cost: one fdatasync and the round trips.
    fn create_floor(&self) -> Option<(Duration, Duration)> {
        let synced = self.median(FDATASYNC, "disk")?;
        let empty = self.median(EMPTY_CREATE, "fuse")?;
        Some((synced, empty))
    }

    /// A table of medians and ratios; the first subject is compared with the others.
    pub(crate) fn table(&self, header: &str, subjects: &[String]) -> String {
        let mut text = format!("{header}\n\n| operation |");
        for subject in subjects {
            write!(text, " {subject} |").expect("a string takes everything");
        }
        for other in &subjects[1..] {
            write!(text, " {} : {other} |", subjects[0]).expect("a string takes everything");
        }
        text.push_str("\n|");
        text.push_str(&" --- |".repeat(2 * subjects.len()));
        text.push('\n');
        for operation in self.operations() {
            write!(text, "| {operation} |").expect("a string takes everything");
            let medians: Vec<_> =
                subjects.iter().map(|subject| self.median(operation, subject)).collect();
            for median in &medians {
                write!(text, " {} |", shown(*median)).expect("a string takes everything");
            }
            for other in &medians[1..] {
                write!(text, " {} |", ratio(medians[0], *other))
                    .expect("a string takes everything");
            }
            text.push('\n');
        }
        if let Some((synced, empty)) = self.create_floor() {
            let created = self.median(CREATE, &subjects[0]);
            writeln!(
                text,
                "\none fdatasync of a file allocated in advance: {}; {EMPTY_ROUND_TRIPS} round trips \
                 to an empty handler: {}\n{CREATE} : (fdatasync + {EMPTY_ROUND_TRIPS} round trips) = {}",
                shown(Some(synced)),
                shown(Some(empty)),
                ratio(created, Some(synced + empty)),
            )
            .expect("a string takes everything");
        }
        text
    }

    pub(crate) fn json(&self, header: &str) -> serde_json::Value {
        let medians: Vec<_> = self
            .samples
            .keys()
            .map(|(operation, subject)| {
                let nanoseconds = self.median(operation, subject).map(|median| median.as_nanos());
                serde_json::json!({
                    "operation": operation,
                    "subject": subject,
                    "median_nanoseconds": nanoseconds.and_then(|number| u64::try_from(number).ok()),
                })
            })
            .collect();
        serde_json::json!({ "run": header, "medians": medians })
    }
}

fn shown(median: Option<Duration>) -> String {
    median.map_or_else(|| "-".to_owned(), |median| format!("{median:.1?}"))
}

fn ratio(left: Option<Duration>, right: Option<Duration>) -> String {
    match (left, right) {
        (Some(left), Some(right)) if !right.is_zero() => {
            format!("{:.2}", left.as_secs_f64() / right.as_secs_f64())
        }
        _ => "-".to_owned(),
    }
}
