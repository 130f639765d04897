//! Keeps the kernel's caches true: changes made elsewhere become notices to it.

use std::sync::atomic::{AtomicBool, Ordering};

pub use crate::notices::{Notice, Notices};

/// How far the kernel has been told of changes made elsewhere.
#[derive(Debug, Default)]
pub struct Coherence {
    /// Whether changes are being watched: only then may the kernel keep anything for long.
    connected: AtomicBool,
}

impl Coherence {
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }
}
