//! Names that are being created exclusively, for a backend whose mounts are all in this process.
//!
//! Whoever creates a name that must be free holds it here from before it looks whether it is free until
//! its creation is in the store. Of two, one holds it; the other is told that the name exists. It costs
//! no write. A backend that mounts of other processes use as well cannot offer it: there a reservation
//! is a key of the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// See the module.
#[derive(Debug, Default)]
pub struct Reservations {
    taken: Mutex<BTreeSet<Bytes>>,
}

impl Reservations {
    /// `None` if somebody holds the name.
    #[must_use]
    pub fn take(self: &Arc<Self>, name: &Bytes) -> Option<ReservedName> {
        let is_free = self.taken.lock().insert(name.clone());
        is_free.then(|| ReservedName { table: Arc::clone(self), name: name.clone() })
    }
}

/// Holds a name until it is dropped.
#[derive(Debug)]
#[must_use = "dropped, it gives the name up"]
pub struct ReservedName {
    table: Arc<Reservations>,
    name: Bytes,
}

impl Drop for ReservedName {
    fn drop(&mut self) {
        self.table.taken.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::Reservations;

    #[test]
    fn a_name_has_one_holder_at_a_time() {
        let table = Arc::new(Reservations::default());
        let (one, other) = (Bytes::from_static(b"/a"), Bytes::from_static(b"/b"));
        let held = table.take(&one).unwrap();
        assert!(table.take(&one).is_none());
        assert!(table.take(&other).is_some());
        drop(held);
        assert!(table.take(&one).is_some());
    }
}
