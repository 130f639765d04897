//! What the members of this process log, for what an operator is to read there.

use std::io;
use std::sync::{Mutex, Once};

use tokio::sync::Notify;

use crate::rig::PATIENCE;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// There are more lines.
static MORE: Notify = Notify::const_new();

struct Lines;

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().unwrap().extend_from_slice(bytes);
        MORE.notify_waiters();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From here on warnings are kept, of whatever test.
pub(crate) fn keep() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let warnings = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN);
        warnings.with_ansi(false).with_writer(|| Lines).init();
    });
}

/// Waits until somebody has logged a line with all these words.
pub(crate) async fn logged(words: &[String]) -> String {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let more = MORE.notified();
        let lines = String::from_utf8_lossy(&LINES.lock().unwrap()).into_owned();
        let has = |line: &str| words.iter().filter(|words| line.contains(&words[..])).count();
        if let Some(line) = lines.lines().find(|line| has(line) == words.len()) {
            return line.to_owned();
        }
        if tokio::time::timeout_at(deadline, more).await.is_err() {
            let some: Vec<&str> = lines.lines().filter(|line| has(line) > 0).collect();
            panic!("nobody logged a line with {words:#?}; with some of them: {some:#?}");
        }
    }
}
