//! Figures that have a bound: ours beside another's of the same run, their ratio, and whether it is what is
//! wanted.

use std::time::Duration;

/// One line of the table.
pub(crate) struct Bounded {
    what: String,
    ours: String,
    beside: String,
    ratio: f64,
    /// What the ratio may be; none where nothing was promised.
    at_most: Option<f64>,
}

impl Bounded {
    /// Times of which the ratio counts.
    pub(crate) fn times(
        what: &str,
        ours: Duration,
        beside: Duration,
        at_most: Option<f64>,
    ) -> Self {
        let ratio = ours.as_secs_f64() / beside.as_secs_f64();
        let (ours, beside) = (format!("{ours:.1?}"), format!("{beside:.1?}"));
        Self { what: what.to_owned(), ours, beside, ratio, at_most }
    }

    /// So many of something for each of `of`.
    pub(crate) fn counts(what: &str, ours: u64, of: u64, at_most: f64) -> Self {
        // Counts of a run are far below what a float holds exactly.
        let ratio = ours as f64 / of as f64;
        let (ours, beside, at_most) = (ours.to_string(), of.to_string(), Some(at_most));
        Self { what: what.to_owned(), ours, beside, ratio, at_most }
    }

    fn is_met(&self) -> Option<bool> {
        self.at_most.map(|at_most| self.ratio <= at_most)
    }
}

pub(crate) fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

pub(crate) fn table(lines: &[Bounded]) -> String {
    let mut text = String::from(
        "| what | revfs | beside it | ratio | wanted | met |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for line in lines {
        let Bounded { what, ours, beside, ratio, at_most } = line;
        let wanted = at_most.map_or_else(String::new, |at_most| format!("<= {at_most}"));
        let met = match line.is_met() {
            None => "",
            Some(true) => "yes",
            Some(false) => "**no**",
        };
        text.push_str(&format!("| {what} | {ours} | {beside} | {ratio:.2} | {wanted} | {met} |\n"));
    }
    text
}

pub(crate) fn json(lines: &[Bounded]) -> serde_json::Value {
    lines
        .iter()
        .map(|line| {
            serde_json::json!({
                "what": line.what, "revfs": line.ours, "beside": line.beside, "ratio": line.ratio,
                "wanted": line.at_most, "met": line.is_met(),
            })
        })
        .collect()
}
