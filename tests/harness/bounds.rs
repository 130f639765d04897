//! Lines with a bound: a figure of ours, one beside it of the same run, their ratio, and whether it is what is
//! wanted.

use std::time::Duration;

/// What a ratio is wanted to be.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing was promised.
    Anything,
}

impl Wanted {
    fn is_met_by(self, ratio: f64) -> Option<bool> {
        match self {
            Self::AtMost(bound) => Some(ratio <= bound),
            Self::AtLeast(bound) => Some(ratio >= bound),
            Self::Anything => None,
        }
    }

    fn shown(self) -> String {
        match self {
            Self::AtMost(bound) => format!("<= {bound}"),
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::Anything => String::new(),
        }
    }

    /// Two cells of a table: what is wanted, and whether it is met.
    #[must_use]
    pub fn cells(self, ratio: f64) -> String {
        let met = match self.is_met_by(ratio) {
            None => "",
            Some(true) => "yes",
            Some(false) => "**no**",
        };
        format!("{} | {met}", self.shown())
    }
}

/// One line of the table.
pub struct Bounded {
    what: String,
    ours: String,
    beside: String,
    ratio: f64,
    wanted: Wanted,
}

impl Bounded {
    /// Times of which the ratio counts.
    #[must_use]
    pub fn times(what: &str, ours: Duration, beside: Duration, wanted: Wanted) -> Self {
        let ratio = ours.as_secs_f64() / beside.as_secs_f64();
        let (ours, beside) = (format!("{ours:.1?}"), format!("{beside:.1?}"));
        Self { what: what.to_owned(), ours, beside, ratio, wanted }
    }

    /// So many of something for each of `of`.
    #[must_use]
    pub fn counts(what: &str, ours: u64, of: u64, at_most: f64) -> Self {
        // Counts of a run are far below what a float holds exactly.
        let ratio = ours as f64 / of as f64;
        let (ours, beside) = (ours.to_string(), of.to_string());
        Self { what: what.to_owned(), ours, beside, ratio, wanted: Wanted::AtMost(at_most) }
    }

    /// So many of something a second.
    #[must_use]
    pub fn rates(what: &str, ours: f64, beside: f64, wanted: Wanted) -> Self {
        let ratio = ours / beside;
        let (ours, beside) = (format!("{ours:.0}/s"), format!("{beside:.0}/s"));
        Self { what: what.to_owned(), ours, beside, ratio, wanted }
    }

    /// Room in memory or on the disk.
    #[must_use]
    pub fn bytes(what: &str, ours: u64, beside: u64, wanted: Wanted) -> Self {
        let ratio = ours as f64 / beside as f64;
        let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let (ours, beside) = (mebibytes(ours), mebibytes(beside));
        Self { what: what.to_owned(), ours, beside, ratio, wanted }
    }
}

/// # Panics
/// If there are none.
#[must_use]
pub fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

/// The lines under a heading that names whom ours is beside.
#[must_use]
pub fn table(beside: &str, lines: &[Bounded]) -> String {
    let mut text = format!(
        "| what | revfs | {beside} | ratio | wanted | met |\n| --- | --- | --- | --- | --- | --- |\n"
    );
    for line in lines {
        let Bounded { what, ours, beside, ratio, wanted } = line;
        let wanted = wanted.cells(*ratio);
        text.push_str(&format!("| {what} | {ours} | {beside} | {ratio:.2} | {wanted} |\n"));
    }
    text
}

#[must_use]
pub fn json(lines: &[Bounded]) -> serde_json::Value {
    lines
        .iter()
        .map(|line| {
            serde_json::json!({
                "what": line.what, "revfs": line.ours, "beside": line.beside, "ratio": line.ratio,
                "wanted": line.wanted.shown(), "met": line.wanted.is_met_by(line.ratio),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Bounded, Wanted, table};

    #[test]
    fn a_line_says_whether_its_ratio_is_what_is_wanted() {
        let second = Duration::from_secs(1);
        let lines = [
            Bounded::times("short enough", second, second, Wanted::AtMost(1.0)),
            Bounded::rates("too slow", 1.0, 2.0, Wanted::AtLeast(0.6)),
            Bounded::bytes("no bound", 1 << 20, 1 << 20, Wanted::Anything),
        ];
        let shown = table("beside it", &lines);
        let lines: Vec<&str> = shown.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| short enough | 1.0s | 1.0s | 1.00 | <= 1 | yes |",
                "| too slow | 1/s | 2/s | 0.50 | >= 0.6 | **no** |",
                "| no bound | 1.0 MiB | 1.0 MiB | 1.00 |  |  |",
            ]
        );
    }
}
