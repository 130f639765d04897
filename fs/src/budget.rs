//! The bound on the staged bytes of all files of a mount together.
//!
//! Each staged copy holds a [`Charge`]; what the charges sum up to never passes the [`Budget`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The staged bytes of all files of a mount are over their bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverBudget;

/// Staged bytes of all files of a mount together.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The share of one staged copy in the budget; given back when the copy is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    pub(crate) fn new(budget: &Arc<Budget>, bytes: usize) -> Result<Self, OverBudget> {
        let mut charge = Self { budget: Arc::clone(budget), bytes: 0 };
        charge.resize(bytes)?;
        Ok(charge)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Of the whole budget.
    pub(crate) fn max(&self) -> usize {
        self.budget.max
    }

    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), OverBudget> {
        if let Some(more) = bytes.checked_sub(self.bytes) {
            let max = self.budget.max;
            let grow = |used: usize| used.checked_add(more).filter(|sum| *sum <= max);
            self.budget
                .used
                .try_update(Ordering::Relaxed, Ordering::Relaxed, grow)
                .map_err(|_| OverBudget)?;
        } else {
            self.budget.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }

    pub(crate) fn force(&mut self, bytes: usize) {
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
