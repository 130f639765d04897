//! Inode numbers: h(tree, path, k).
//!
//! A node's number is the first of h(…, 0), h(…, 1), … that no living node has; it then keeps it
//! through rename and unlink. h is the XXH3-64 hash (seed 0) with its highest bit cleared, plus 2 if
//! that leaves 0 or 1, of these bytes, numbers big-endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | tree: 1 live file, 2 live directory, 3 past file, 4 past directory, 5 hidden node |
//! | 4 | k |
//! | 8, 8 | numbers of the tree, see [`Identity`]; 0 where it has none |
//! | 4 + n | the key, or the directory's prefix |
//! | n | the hidden name, of tree 5 only |
//!
//! A transaction on the mount (`@txn/NAME`) has numbers of its own ([`Numbering`]): bit 63 is set, the next 24
//! bits are the number of the transaction, the last 39 those of h of what it shows. With all 25 bits set a
//! number is made up: it stands for what was, or for nothing, and no node has it ([`crate::events`]).
//!
//! The trees are part of the hash because live and past must not share a number: `cp` would say that
//! both "are the same file". A past file is its content and attributes, so that two revisions which
//! did not change it show one inode.

use revfs_api::keyspace::Revision;
use xxhash_rust::xxh3::Xxh3;

/// Node id of the mount's root directory, fixed by FUSE.
const FUSE_ROOT: u64 = 1;

const PRIVATE: u64 = 1 << 63;
const PRIVATE_SHIFT: u32 = 39;

/// All bits of a transaction's prefix.
const MADE_UP: u64 = !((1 << PRIVATE_SHIFT) - 1);

/// Whose numbers: the mount's, or those of a transaction on it. None is in two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbering {
    /// The first bits of all numbers; 0 for the mount itself.
    prefix: u64,
}

impl Numbering {
    /// As many transactions have numbers of their own; then they begin again. The last 24 bits are left to what
    /// is made up.
    pub const TRANSACTIONS: u32 = (1 << 24) - 1;

    /// The numbers of the transaction `number`.
    #[must_use]
    pub fn of_transaction(number: u32) -> Self {
        let number = u64::from(number % Self::TRANSACTIONS);
        Self { prefix: PRIVATE | (number << PRIVATE_SHIFT) }
    }

    /// The transaction that a number belongs to; `None` for one of the mount itself.
    #[must_use]
    pub fn transaction_of(ino: u64) -> Option<u32> {
        let number = u32::try_from((ino & !PRIVATE) >> PRIVATE_SHIFT).expect("24 bits");
        (ino & PRIVATE != 0 && number < Self::TRANSACTIONS).then_some(number)
    }

    /// A number that no node has, of the mount or of a transaction.
    pub(crate) fn made_up(count: u64) -> u64 {
        MADE_UP | (count & !MADE_UP)
    }

    pub(crate) fn is_made_up(ino: u64) -> bool {
        ino & MADE_UP == MADE_UP
    }

    /// The number of the root directory.
    #[must_use]
    pub fn root(self) -> u64 {
        self.prefix | FUSE_ROOT
    }

    /// The number that `hash` is here.
    #[must_use]
    pub fn number(self, hash: u64) -> u64 {
        match self.prefix {
            0 => hash,
            prefix => prefix | in_range(hash & ((1 << PRIVATE_SHIFT) - 1)),
        }
    }

    /// Whether a number is one of these.
    #[must_use]
    pub fn has(self, ino: u64) -> bool {
        match Self::transaction_of(ino) {
            None => self.prefix == 0,
            Some(_) => ino & !((1 << PRIVATE_SHIFT) - 1) == self.prefix,
        }
    }
}

/// What a node is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity<'a> {
    LiveFile {
        key: &'a [u8],
    },
    LiveDirectory {
        prefix: &'a [u8],
    },
    /// `record_revision` is [`Revision::NONE`] without a record.
    PastFile {
        key: &'a [u8],
        mod_revision: Revision,
        record_revision: Revision,
    },
    PastDirectory {
        prefix: &'a [u8],
        revision: Revision,
    },
    /// `@rev`, `@history/NAME` and the like in a directory: `path` is the path from the hidden name
    /// on, `revision` that of the past directory it lies in, or [`Revision::NONE`].
    Hidden {
        prefix: &'a [u8],
        revision: Revision,
        path: &'a [u8],
    },
}

/// h(tree, path, k).
#[must_use]
pub fn inode_number(identity: &Identity<'_>, k: u32) -> u64 {
    let none = Revision::NONE;
    let (tree, numbers, path, hidden): (u8, [Revision; 2], &[u8], &[u8]) = match *identity {
        Identity::LiveFile { key } => (1, [none, none], key, b""),
        Identity::LiveDirectory { prefix } => (2, [none, none], prefix, b""),
        Identity::PastFile { key, mod_revision, record_revision } => {
            (3, [mod_revision, record_revision], key, b"")
        }
        Identity::PastDirectory { prefix, revision } => (4, [revision, none], prefix, b""),
        Identity::Hidden { prefix, revision, path } => (5, [revision, none], prefix, path),
    };
    let path_bytes = u32::try_from(path.len()).expect("a key is bounded by KEY_BYTES_MAX");
    let mut hash = Xxh3::new();
    hash.update(&[tree]);
    hash.update(&k.to_be_bytes());
    for Revision(number) in numbers {
        hash.update(&number.to_be_bytes());
    }
    hash.update(&path_bytes.to_be_bytes());
    hash.update(path);
    hash.update(hidden);
    in_range(hash.digest())
}

/// The first number of a node that `is_taken` does not refuse.
///
/// # Panics
/// If all 2^32 numbers of the node are taken.
#[must_use]
pub fn free_inode_number(identity: &Identity<'_>, is_taken: impl Fn(u64) -> bool) -> u64 {
    (0..=u32::MAX)
        .map(|k| inode_number(identity, k))
        .find(|&number| !is_taken(number))
        .expect("fewer nodes live than a node has numbers")
}

/// 63 bits, and neither 0 ("no node") nor 1 (the root of every FUSE mount).
fn in_range(hash: u64) -> u64 {
    let number = hash & (u64::MAX >> 1);
    if number <= 1 { number + 2 } else { number }
}

#[cfg(test)]
mod tests {
    //! The hash is part of the format: its values must not change.

    use std::collections::BTreeSet;

    use revfs_api::keyspace::Revision;

    use super::{Identity, Numbering, free_inode_number, in_range, inode_number};

    const R1: Revision = Revision(1);
    const R2: Revision = Revision(2);

    #[test]
    fn different_nodes_have_different_numbers() {
        let nodes = [
            Identity::LiveFile { key: b"/a" },
            Identity::LiveFile { key: b"/a/" },
            Identity::LiveDirectory { prefix: b"/a/" },
            Identity::PastFile { key: b"/a", mod_revision: R1, record_revision: Revision::NONE },
            Identity::PastFile { key: b"/a", mod_revision: R2, record_revision: Revision::NONE },
            Identity::PastFile { key: b"/a", mod_revision: R1, record_revision: R2 },
            Identity::PastFile { key: b"/a", mod_revision: R2, record_revision: R1 },
            Identity::PastDirectory { prefix: b"/a/", revision: R1 },
            Identity::PastDirectory { prefix: b"/a/", revision: R2 },
            Identity::Hidden { prefix: b"/a/", revision: Revision::NONE, path: b"@rev" },
            Identity::Hidden { prefix: b"/a/", revision: R1, path: b"@rev" },
            Identity::Hidden { prefix: b"/a/@", revision: Revision::NONE, path: b"rev" },
        ];
        let numbers: BTreeSet<u64> =
            nodes.iter().flat_map(|node| (0..3).map(|k| inode_number(node, k))).collect();
        assert_eq!(numbers.len(), nodes.len() * 3);
        assert!(numbers.iter().all(|number| (2..1 << 63).contains(number)));
    }

    #[test]
    fn numbers_are_the_same_for_ever() {
        let live = Identity::LiveFile { key: b"/app/color" };
        let past = Identity::PastFile { key: b"/app/color", mod_revision: R1, record_revision: R2 };
        let hidden = Identity::Hidden { prefix: b"/", revision: R1, path: b"@status" };
        assert_eq!(
            [inode_number(&live, 0), inode_number(&past, 7), inode_number(&hidden, 0)],
            [1_320_286_601_769_869_782, 4_273_796_837_798_334_382, 4_906_677_869_256_868_979]
        );
    }

    #[test]
    fn a_taken_number_is_passed_over() {
        let node = Identity::LiveDirectory { prefix: b"/" };
        let taken = [inode_number(&node, 0), inode_number(&node, 1)];
        let number = free_inode_number(&node, |number| taken.contains(&number));
        assert_eq!(number, inode_number(&node, 2));
        assert_eq!(free_inode_number(&node, |_| false), taken[0]);
    }

    #[test]
    fn each_transaction_has_numbers_of_its_own() {
        let hash = inode_number(&Identity::LiveDirectory { prefix: b"/" }, 0);
        let live = Numbering::default();
        assert_eq!((live.root(), live.number(hash)), (1, hash));
        assert_eq!(Numbering::transaction_of(hash), None);
        let last = Numbering::TRANSACTIONS - 1;
        for number in [0, 1, last] {
            let own = Numbering::of_transaction(number);
            for ino in [own.root(), own.number(hash), own.number(0), own.number(u64::MAX)] {
                assert_eq!(Numbering::transaction_of(ino), Some(number));
                assert!(own.has(ino) && !live.has(ino));
                assert!(!Numbering::of_transaction(number + 1).has(ino));
            }
            assert_ne!(own.number(1), own.root());
            assert!(live.has(hash) && !own.has(hash));
        }
    }

    #[test]
    fn the_numbers_that_fuse_reserves_are_never_given() {
        assert_eq!([0, 1, 2, 1 << 63, u64::MAX].map(in_range), [2, 3, 2, 2, (1 << 63) - 1]);
    }
}
