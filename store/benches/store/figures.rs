//! A figure: what was measured on our side and on the other, their ratio and its bound.

use std::time::Duration;

/// What a ratio must keep to.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// For comparison only.
    Open,
}

pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) ours: String,
    pub(crate) peer: String,
    pub(crate) ratio: f64,
    pub(crate) bound: Bound,
}

impl Figure {
    /// Our time against the peer's, as a fraction of the peer's speed.
    pub(crate) fn speed(what: &str, pairs: &[(Duration, Duration)], bound: Bound) -> Self {
        let ratio =
            median(pairs.iter().map(|(ours, peer)| peer.as_secs_f64() / ours.as_secs_f64()));
        Self { ratio, ..Self::times(what, pairs, bound) }
    }

    /// Our time as a multiple of the other.
    pub(crate) fn times(what: &str, pairs: &[(Duration, Duration)], bound: Bound) -> Self {
        let ratio =
            median(pairs.iter().map(|(ours, peer)| ours.as_secs_f64() / peer.as_secs_f64()));
        let middle = |side: fn(&(Duration, Duration)) -> Duration| {
            let seconds = median(pairs.iter().map(|pair| side(pair).as_secs_f64()));
            format!("{:.3?}", Duration::from_secs_f64(seconds))
        };
        let (ours, peer) = (middle(|pair| pair.0), middle(|pair| pair.1));
        Self { what: what.to_owned(), ours, peer, ratio, bound }
    }

    /// Two sizes in bytes.
    pub(crate) fn sizes(what: &str, ours: u64, peer: u64, bound: Bound) -> Self {
        let mebibytes = |bytes: u64| format!("{:.1} MiB", float(bytes) / 1_048_576.0);
        let ratio = float(ours) / float(peer);
        Self { what: what.to_owned(), ours: mebibytes(ours), peer: mebibytes(peer), ratio, bound }
    }

    fn verdict(&self) -> (String, &'static str) {
        let mark = |is_met| if is_met { "yes" } else { "NO" };
        match self.bound {
            Bound::AtLeast(bound) => (format!(">= {bound}"), mark(self.ratio >= bound)),
            Bound::AtMost(bound) => (format!("<= {bound}"), mark(self.ratio <= bound)),
            Bound::Open => ("-".to_owned(), "-"),
        }
    }
}

/// The exact number, as far as a ratio needs it.
pub(crate) fn float(number: u64) -> f64 {
    let high = u32::try_from(number >> 32).expect("the upper half has 32 bits");
    let low = u32::try_from(number & u64::from(u32::MAX)).expect("the lower half has 32 bits");
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

pub(crate) fn median(samples: impl Iterator<Item = f64>) -> f64 {
    let mut samples: Vec<f64> = samples.collect();
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn print_figure(figure: &Figure) {
    let (bound, met) = figure.verdict();
    let Figure { what, ours, peer, ratio, .. } = figure;
    eprintln!("{what}: {ours} / {peer} = {ratio:.2} ({bound}, {met})");
}

pub(crate) fn print_table(figures: &[Figure]) {
    println!("| what | ours | peer | ratio | bound | met |\n| --- | --- | --- | --- | --- | --- |");
    for figure in figures {
        let (bound, met) = figure.verdict();
        let Figure { what, ours, peer, ratio, .. } = figure;
        println!("| {what} | {ours} | {peer} | {ratio:.2} | {bound} | {met} |");
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock; apply does not")]
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// How long `work` takes, and what it returns.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = now();
    let result = work();
    (start.elapsed(), result)
}
