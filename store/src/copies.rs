//! Copies of many small byte strings in few allocations.
//!
//! A scan copies a key and a value for each row, and two calls of the allocator would cost more than
//! the copying. Small copies share a block, which lives as long as the longest of them; what is not
//! small has memory of its own, so that whoever keeps one key keeps little else alive.

use bytes::{Bytes, BytesMut};

/// The first block: a scan of one row should not pay for a thousand.
const BLOCK_BYTES_MIN: usize = 512;
/// What one copy keeps alive at most, besides itself.
const BLOCK_BYTES_MAX: usize = 16 * 1024;
/// Longer ones are copied alone.
const SHARED_BYTES_MAX: usize = 1024;

/// See the module.
#[derive(Default)]
pub(crate) struct Copies {
    block: BytesMut,
    block_bytes: usize,
}

impl Copies {
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.len() > SHARED_BYTES_MAX {
            return Bytes::copy_from_slice(bytes);
        }
        if self.block.capacity() < bytes.len() {
            let doubled = (self.block_bytes * 2).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
            self.block_bytes = doubled.max(bytes.len());
            self.block = BytesMut::with_capacity(self.block_bytes);
        }
        self.block.extend_from_slice(bytes);
        self.block.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES_MAX, Copies, SHARED_BYTES_MAX};

    #[test]
    fn copies_equal_what_was_copied_and_outlive_the_block() {
        let mut copies = Copies::default();
        let wanted: Vec<Vec<u8>> = (0..2_000)
            .map(|n| vec![u8::try_from(n % 251).unwrap(); (n * 7) % (SHARED_BYTES_MAX + 50)])
            .collect();
        let made: Vec<_> = wanted.iter().map(|bytes| copies.add(bytes)).collect();
        assert!(copies.block_bytes <= BLOCK_BYTES_MAX);
        drop(copies);
        assert_eq!(made, wanted);
    }
}
