//! etcd's HashKV, from the whole history.

use revfs_store::ReadError;
use revfs_store::types::{ChangeKind, Event, Revision};

use super::{Moment, Reference};

fn number(field: u8, value: u64) -> Vec<u8> {
    let mut out = if value == 0 { Vec::new() } else { vec![field * 8] };
    let mut left = value;
    while left > 0 {
        let seven = u8::try_from(left % 128).unwrap();
        left /= 128;
        out.push(if left > 0 { seven + 128 } else { seven });
    }
    out
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let mut out = number(field, u64::try_from(value.len()).unwrap());
    if let Some(tag) = out.first_mut() {
        *tag += 2;
    }
    [out, value.to_vec()].concat()
}

/// The row that etcd stores for an event.
fn row(main: u64, sub: usize, event: &Event) -> Vec<u8> {
    let sub = u64::try_from(sub).unwrap();
    let mut row = [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes()].concat();
    let kv = &event.kv;
    if event.kind == ChangeKind::Delete {
        row.push(b't');
        row.extend(bytes(1, &kv.key));
        return row;
    }
    row.extend(bytes(1, &kv.key));
    row.extend(number(2, kv.create_revision.0));
    row.extend(number(3, kv.mod_revision.0));
    row.extend(number(4, kv.version));
    row.extend(bytes(5, &kv.value));
    row.extend(number(6, kv.lease.0.cast_unsigned()));
    row
}

impl Reference {
    pub(crate) fn hash_kv(&self, at: Revision) -> Result<u32, ReadError> {
        let at = self.resolve(at)?;
        let then = self.moment(Revision(at))?;
        // Where nothing is kept nothing is skipped: what compaction left is hashed.
        let kept = match (&then, self.compacted) {
            (then, Some(compacted)) if then.keys.is_empty() && compacted > 1 => {
                self.moment(Revision(compacted))?
            }
            _ => then,
        };
        let keeps = |kept: &Moment, event: &Event| {
            let own = kept.keys.get(&event.kv.key);
            own.is_some_and(|own| own.mod_revision == event.kv.mod_revision)
        };
        let mut hash = crc32c::crc32c(b"key");
        for (&(main, sub), event) in self.events.range(..(at + 1, 0)) {
            if main > self.compacted() || keeps(kept, event) {
                hash = crc32c::crc32c_append(hash, &row(main, sub, event));
            }
        }
        Ok(hash)
    }
}
