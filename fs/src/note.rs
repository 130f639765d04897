//! The note that this mount stores with each of its revisions: what was done, in order.
//!
//! Other mounts read it to repeat the operations as events, and this mount to know its own revisions
//! again. Layout, all numbers big-endian:
//!
//! ```text
//! mount id 8 | sequence 8 | format version 1 | cut 1 | operation …
//! operation: tag 1, then for each of its keys: length 2, bytes
//! ```
//!
//! The mount id stands first, so that "is it mine?" is a comparison of the first eight bytes. A note
//! that would pass [`NOTE_BYTES_MAX`] ends before the operation that no longer fits and says so.

use bytes::{BufMut, Bytes, BytesMut};

/// What a store keeps with a revision: opaque to it, bounded by the contract of `Origin`.
pub const NOTE_BYTES_MAX: usize = 4096;

const FORMAT_VERSION: u8 = 1;
const HEAD_BYTES: usize = 18;

/// One operation of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Create(Bytes),
    Write(Bytes),
    Append(Bytes),
    Truncate(Bytes),
    Attributes(Bytes),
    Rename {
        from: Bytes,
        to: Bytes,
    },
    Exchange {
        one: Bytes,
        other: Bytes,
    },
    MakeDirectory(Bytes),
    RemoveDirectory(Bytes),
    Unlink(Bytes),
    /// A link, or what else is made without being opened: a fifo, a socket, a device.
    Symlink(Bytes),
    Close(Bytes),
}

impl Operation {
    fn parts(&self) -> (u8, &Bytes, Option<&Bytes>) {
        match self {
            Self::Create(key) => (1, key, None),
            Self::Write(key) => (2, key, None),
            Self::Append(key) => (3, key, None),
            Self::Truncate(key) => (4, key, None),
            Self::Attributes(key) => (5, key, None),
            Self::Rename { from, to } => (6, from, Some(to)),
            Self::Exchange { one, other } => (7, one, Some(other)),
            Self::MakeDirectory(key) => (8, key, None),
            Self::RemoveDirectory(key) => (9, key, None),
            Self::Unlink(key) => (10, key, None),
            Self::Symlink(key) => (11, key, None),
            Self::Close(key) => (12, key, None),
        }
    }

    fn read(rest: &mut Bytes) -> Option<Self> {
        let tag = read_bytes(rest, 1)?[0];
        let key = read_key(rest)?;
        Some(match tag {
            1 => Self::Create(key),
            2 => Self::Write(key),
            3 => Self::Append(key),
            4 => Self::Truncate(key),
            5 => Self::Attributes(key),
            6 => Self::Rename { from: key, to: read_key(rest)? },
            7 => Self::Exchange { one: key, other: read_key(rest)? },
            8 => Self::MakeDirectory(key),
            9 => Self::RemoveDirectory(key),
            10 => Self::Unlink(key),
            11 => Self::Symlink(key),
            12 => Self::Close(key),
            _ => return None,
        })
    }
}

/// A note, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub mount_id: u64,
    /// Counts the revisions that this mount asked for; with `mount_id` it names one.
    pub sequence: u64,
    pub operations: Vec<Operation>,
    /// More was done than the note has room for.
    pub is_cut: bool,
}

impl Note {
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut note = BytesMut::with_capacity(128);
        note.put_u64(self.mount_id);
        note.put_u64(self.sequence);
        note.put_u8(FORMAT_VERSION);
        note.put_u8(u8::from(self.is_cut));
        for operation in &self.operations {
            let (tag, key, other) = operation.parts();
            let bytes = 3 + key.len() + other.map_or(0, |other| 2 + other.len());
            if note.len() + bytes > NOTE_BYTES_MAX {
                note[HEAD_BYTES - 1] = 1;
                break;
            }
            note.put_u8(tag);
            put_key(&mut note, key);
            if let Some(other) = other {
                put_key(&mut note, other);
            }
        }
        note.freeze()
    }

    /// `None` for what is no note of a mount, or of a format that came later.
    #[must_use]
    pub fn decode(note: &Bytes) -> Option<Self> {
        let (mount_id, sequence) = maker(note)?;
        let mut rest = note.slice(16..);
        let head = read_bytes(&mut rest, 2)?;
        if head[0] != FORMAT_VERSION {
            return None;
        }
        let is_cut = match head[1] {
            0 => false,
            1 => true,
            _ => return None,
        };
        let mut operations = Vec::new();
        while !rest.is_empty() {
            operations.push(Operation::read(&mut rest)?);
        }
        Some(Self { mount_id, sequence, operations, is_cut })
    }
}

/// The mount that made a revision and its number there, from the revision's note.
#[must_use]
pub fn maker(note: &[u8]) -> Option<(u64, u64)> {
    let (mount_id, rest) = note.split_first_chunk::<8>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    (rest.len() >= 2).then(|| (u64::from_be_bytes(*mount_id), u64::from_be_bytes(*sequence)))
}

fn put_key(note: &mut BytesMut, key: &Bytes) {
    let bytes = u16::try_from(key.len()).expect("a key is shorter than a note, which has 4 KiB");
    note.put_u16(bytes);
    note.put_slice(key);
}

fn read_key(rest: &mut Bytes) -> Option<Bytes> {
    let bytes = read_bytes(rest, 2)?;
    read_bytes(rest, usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
}

fn read_bytes(rest: &mut Bytes, count: usize) -> Option<Bytes> {
    (rest.len() >= count).then(|| rest.split_to(count))
}

#[cfg(test)]
mod tests {
    //! Every operation comes back; what does not fit is cut and marked; other bytes are no note.

    use bytes::Bytes;
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use proptest::{collection, prop_assert, prop_assert_eq};

    use super::{NOTE_BYTES_MAX, Note, Operation, maker};

    fn key() -> impl Strategy<Value = Bytes> {
        prop_oneof![
            9 => collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from),
            1 => Just(Bytes::from(vec![7; 1900])),
        ]
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            key().prop_map(Operation::Create),
            key().prop_map(Operation::Write),
            key().prop_map(Operation::Append),
            key().prop_map(Operation::Truncate),
            key().prop_map(Operation::Attributes),
            (key(), key()).prop_map(|(from, to)| Operation::Rename { from, to }),
            (key(), key()).prop_map(|(one, other)| Operation::Exchange { one, other }),
            key().prop_map(Operation::MakeDirectory),
            key().prop_map(Operation::RemoveDirectory),
            key().prop_map(Operation::Unlink),
            key().prop_map(Operation::Symlink),
            key().prop_map(Operation::Close),
        ]
    }

    proptest! {
        #[test]
        fn a_note_comes_back(
            mount_id in any::<u64>(),
            sequence in any::<u64>(),
            operations in collection::vec(operation(), 0..12),
        ) {
            let note = Note { mount_id, sequence, operations, is_cut: false };
            let encoded = note.encode();
            prop_assert!(encoded.len() <= NOTE_BYTES_MAX);
            prop_assert_eq!(maker(&encoded), Some((mount_id, sequence)));
            prop_assert_eq!(encoded[..8].to_vec(), mount_id.to_be_bytes().to_vec());
            let back = Note::decode(&encoded).unwrap();
            prop_assert_eq!(back.is_cut, back.operations.len() < note.operations.len());
            prop_assert_eq!(&note.operations[..back.operations.len()], &back.operations[..]);
        }

        #[test]
        fn other_bytes_never_panic(bytes in collection::vec(any::<u8>(), 0..60)) {
            let bytes = Bytes::from(bytes);
            if let Some(note) = Note::decode(&bytes) {
                prop_assert_eq!(note.encode(), bytes);
            }
        }
    }

    #[test]
    fn the_longest_rename_fits() {
        let rename = Operation::Rename { from: vec![1; 1900].into(), to: vec![2; 1900].into() };
        let note =
            Note { mount_id: 1, sequence: 2, operations: vec![rename.clone()], is_cut: false };
        assert_eq!(Note::decode(&note.encode()).unwrap().operations, [rename]);
    }

    #[test]
    fn a_later_format_is_not_read() {
        let note = Note { mount_id: 1, sequence: 2, operations: Vec::new(), is_cut: false };
        let mut encoded = note.encode().to_vec();
        encoded[16] += 1;
        assert_eq!(Note::decode(&encoded.clone().into()), None);
        assert_eq!(maker(&encoded), Some((1, 2)));
        assert_eq!(maker(b"short"), None);
    }
}
