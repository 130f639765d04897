//! What happened in a simulation, line by line: two runs of one seed say the same, byte for byte.

use std::fmt::Write as _;

use parking_lot::Mutex;

use super::executor;

#[derive(Default)]
struct Lines {
    text: String,
    /// All messages that came, folded into a number: they are too many to be listed.
    messages: u64,
    digest: u32,
}

/// See the module.
#[derive(Default)]
pub(super) struct Trace(Mutex<Lines>);

impl Trace {
    pub(super) fn line(&self, what: &str) {
        let now = executor::here().now();
        let mut lines = self.0.lock();
        let (messages, digest) = (lines.messages, lines.digest);
        writeln!(lines.text, "{:>9.3} ms {messages:>5} {digest:08x}  {what}", millis(now))
            .expect("a string takes all");
    }

    pub(super) fn message(&self, from: u64, to: u64, bytes: usize) {
        let now = executor::here().now();
        let mut lines = self.0.lock();
        lines.messages += 1;
        let said = format!("{now:?} {from} {to} {bytes}");
        lines.digest = crc32c::crc32c_append(lines.digest, said.as_bytes());
    }

    pub(super) fn text(&self) -> String {
        self.0.lock().text.clone()
    }
}

fn millis(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
