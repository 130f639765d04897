//! Bytes on disk of 1,000,000 keys with one version each, against their raw bytes.

use std::path::Path;

use revfs_store::StoreOptions;
use revfs_store::types::Revision;

use crate::figures::{Bound, Figure};
use crate::load::{ENTRY_PUTS, KEY_BYTES, Loaded, Random, VALUE_BYTES, Values, puts};
use crate::{Outcome, Settings};

pub(crate) fn run(settings: &Settings, dir: &Path) -> Outcome<Vec<Figure>> {
    let count = settings.size(1_000_000);
    let raw = u64::try_from(count * (KEY_BYTES + VALUE_BYTES))?;
    let in_order: Vec<usize> = (0..count).collect();
    let at_random = Random(3).shuffled(count);
    let mut figures = Vec::new();
    let cases = [("in order", &in_order, 2.2), ("at random", &at_random, 2.8)];
    for (order, keys, bound) in cases {
        for (per_entry, bound) in [(ENTRY_PUTS, Bound::AtMost(bound)), (1, Bound::Open)] {
            let dir = dir.join(format!("{order} {per_entry}"));
            let size = load(&dir, keys, per_entry)?;
            std::fs::remove_dir_all(&dir)?;
            let what = format!("bytes on disk, {count} keys {order}, entries of {per_entry}");
            figures.push(Figure::sizes(&what, size.0, raw, bound));
            let what = format!("… without free pages, {order}, entries of {per_entry}");
            figures.push(Figure::sizes(&what, size.1, raw, Bound::Open));
        }
    }
    Ok(figures)
}

/// Bytes of the file, and of its pages in use.
fn load(dir: &Path, keys: &[usize], per_entry: usize) -> Outcome<(u64, u64)> {
    let values = Values::new();
    let mut loaded = Loaded::create(dir, StoreOptions::default())?;
    let mut last = Revision::NONE;
    for part in keys.chunks(10_000) {
        last = loaded.apply_all(&puts(part, &values, per_entry))?;
    }
    assert_eq!(last.0, u64::try_from(keys.len().div_ceil(per_entry))? + 1, "every entry counts");
    loaded.store.commit()?;
    let size = loaded.store.size()?;
    loaded.close()?;
    Ok((size.file_bytes, size.in_use_bytes))
}
