//! What members of version 1 wrote is read for ever: their messages, the entries of their logs, and the commands
//! in those.
//!
//! `testdata/version-1/bytes.txt` has a line for each: its name and its bytes. A number or a field that changes its
//! place changes the bytes, and what they are read as. While nothing is released, a change of a format makes the
//! file anew: `REVFS_WRITE_VERSION_1=1`. After the first release lines are only added.

mod commands;
mod messages;

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::num::NonZeroU64;
use std::path::PathBuf;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::impls::BasicNode;

use super::payload::{from_log_entry, from_log_id, from_position, to_log_entry, to_position};
use super::type_config::{EncodedCommand, Membership, RaftEntry, StoredMembership};
use crate::log::{Entry, LogId};

/// The bytes by their names.
struct Kept {
    lines: BTreeMap<String, String>,
    is_written: bool,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn from_hex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

impl Kept {
    fn path() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/version-1/bytes.txt")
    }

    fn open() -> Self {
        if std::env::var_os("REVFS_WRITE_VERSION_1").is_some() {
            return Self { lines: BTreeMap::new(), is_written: true };
        }
        let text = std::fs::read_to_string(Self::path()).unwrap();
        let pair = |line: &str| {
            let (name, bytes) = line.split_once(' ').unwrap();
            (name.to_owned(), bytes.to_owned())
        };
        Self { lines: text.lines().map(pair).collect(), is_written: false }
    }

    /// What is kept under this name is read as `value`, and `value` is written so.
    fn check<T: Debug>(
        &mut self,
        name: &str,
        value: &T,
        encode: impl Fn(&T) -> Vec<u8>,
        decode: impl Fn(&[u8]) -> T,
    ) {
        let now = encode(value);
        if self.is_written {
            assert!(
                self.lines.insert(name.to_owned(), hex(&now)).is_none(),
                "{name} is kept twice"
            );
        }
        let kept = self.lines.get(name).unwrap_or_else(|| panic!("{name} is not kept"));
        assert_eq!(*kept, hex(&now), "{name} is written in another way");
        let read = decode(&from_hex(kept));
        assert_eq!(format!("{read:?}"), format!("{value:?}"), "{name} is read as something else");
        // Secrets do not show themselves.
        assert_eq!(*kept, hex(&encode(&read)), "{name} is not what was read");
    }

    fn close(self) {
        if self.is_written {
            let lines = self.lines.iter().map(|(name, bytes)| format!("{name} {bytes}\n"));
            std::fs::write(Self::path(), lines.collect::<String>()).unwrap();
        }
    }
}

fn members() -> Membership {
    let node = |id: u64| (id, BasicNode::new(format!("http://10.0.0.{id}:2380")));
    let nodes: BTreeMap<u64, BasicNode> = [1, 2, 9].map(node).into();
    Membership::new(vec![[1, 2].into(), [2].into()], nodes).unwrap()
}

/// An entry as the log keeps it: the kind of its payload, then the payload.
fn entries(kept: &mut Kept) {
    let id = from_log_id(LogId { term: 3, index: 7 });
    let command = |forwarded| {
        EntryPayload::Normal(EncodedCommand { forwarded, bytes: Bytes::from_static(b"\x01abc") })
    };
    let payloads = [
        ("entry-blank", EntryPayload::Blank),
        ("entry-command", command(None)),
        ("entry-forwarded", command(NonZeroU64::new(0x0102_0304_0506_0708))),
        ("entry-membership", EntryPayload::Membership(members())),
    ];
    for (name, payload) in payloads {
        let encode = |entry: &RaftEntry| {
            let Entry { kind, payload, .. } = to_log_entry(entry.clone());
            [&[kind], &payload[..]].concat()
        };
        let decode = |bytes: &[u8]| {
            let payload = Bytes::copy_from_slice(&bytes[1..]);
            let id = LogId { term: 3, index: 7 };
            from_log_entry(Entry { id, kind: bytes[0], payload }).unwrap()
        };
        kept.check(name, &RaftEntry { log_id: id, payload }, encode, decode);
    }
    let stored = StoredMembership::new(Some(from_log_id(LogId { term: 1, index: 4 })), members());
    let position = to_position(id, &stored);
    kept.check(
        "position",
        &(Some(id), stored),
        |_| position.raft.to_vec(),
        |bytes| {
            from_position(&revfs_store::Position {
                raft: bytes.to_vec().into(),
                ..position.clone()
            })
            .unwrap()
        },
    );
}

#[test]
fn what_version_1_wrote_is_read_and_written_so() {
    let mut kept = Kept::open();
    entries(&mut kept);
    commands::check(&mut kept);
    messages::check(&mut kept);
    kept.close();
}
