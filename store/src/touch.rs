//! Bringing the pages of a command's keys into memory before it is applied.
//!
//! Apply is one thread; whoever proposes a command has time to wait for the disk, so it reads the
//! keys first. What is read is thrown away, and an error is left for apply to meet.

use crate::command::{Body, Command};
use crate::store::Store;
use crate::types::{Op, Revision, Txn};
use crate::view::ReadView;

/// More keys than this are not looked up: the proposer's own time counts too.
const KEYS_MAX: usize = 1_000;

impl Store {
    /// Reads the keys that `command` names, for the pages' sake.
    pub fn touch(&self, command: &Command) {
        let Body::Txn(txn) = command.body.inner() else { return };
        let Ok(view) = self.read_view() else { return };
        let mut left = KEYS_MAX;
        touch_txn(&view, txn, &mut left);
    }
}

fn touch_txn(view: &ReadView, txn: &Txn, left: &mut usize) {
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Put { key, .. } | Op::Append { key, .. } => touch_key(view, key, left),
            Op::Exchange { a: from, b: to } if from.ends_with(b"/") || to.ends_with(b"/") => {}
            Op::MoveKey { from, to } | Op::Exchange { a: from, b: to } => {
                touch_key(view, from, left);
                touch_key(view, to, left);
            }
            Op::Txn(nested) => touch_txn(view, nested, left),
            Op::Delete { .. } | Op::Range(_) | Op::Move { .. } | Op::Restore { .. } => {}
        }
    }
}

fn touch_key(view: &ReadView, key: &[u8], left: &mut usize) {
    if *left > 0 {
        *left -= 1;
        // Only the pages matter.
        view.get(Revision::NONE, key, true).ok();
    }
}
