//! The signals that tell a node to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Failure, Result};

/// SIGINT, SIGTERM, SIGHUP. From its making on these do not kill the process.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self> {
        let handler =
            |kind| signal(kind).map_err(|error| Failure::caused("cannot handle signals", &error));
        Ok(Self {
            interrupt: handler(SignalKind::interrupt())?,
            terminate: handler(SignalKind::terminate())?,
            hangup: handler(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one; its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
