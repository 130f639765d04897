//! The verdict on each way in which a compare can fail, without a key space.

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{KeyValue, Op, Revision};

use super::{Site, Surroundings, Verdict};
use crate::attributes::{Attributes, Defaults, Kind, record_key};
use crate::path::DirectoryKey;
use crate::staged::{Basis, Creation, Draft, Life};

const UNBORN: Life = Life { create: Revision(0), birth: Revision(0) };
const BORN: Life = Life { create: Revision(4), birth: Revision(3) };
const CHANGE: Basis = Basis::Change { modified: Revision(5), content: Revision(5) };
const APPEND: Basis = Basis::Append { kept: 0, modified: Revision(5), content: Revision(5) };

fn draft(life: Life, basis: Basis, creation: Creation) -> Draft {
    Draft {
        life,
        bytes: std::sync::Arc::new(b"x".to_vec()),
        attributes: Attributes::new(Kind::File, 0o644),
        stored: None,
        basis,
        creation,
        steps: Vec::new(),
        generation: 1,
    }
}

fn kv(create: u64, birth: u64, content: u64) -> KeyValue {
    KeyValue {
        create_revision: Revision(create),
        birth_revision: Revision(birth),
        mod_revision: Revision(9),
        content_revision: Revision(content),
        ..KeyValue::default()
    }
}

fn around(kv: Option<KeyValue>) -> Surroundings {
    Surroundings { kv, parent_exists: true, ..Surroundings::default() }
}

#[test]
fn a_taken_name_is_adopted_unless_the_file_was_to_be_new() {
    let taken = around(Some(kv(8, 8, 8)));
    let exclusive = Creation { is_exclusive: true, ..Creation::default() };
    let stale = Verdict::Refused(Errno::ESTALE);
    assert_eq!(taken.judge(&draft(UNBORN, Basis::Rewrite, exclusive)), stale);
    assert_eq!(taken.judge(&draft(UNBORN, CHANGE, Creation::default())), stale);
    for basis in [Basis::Rewrite, APPEND] {
        let life = Life { create: Revision(8), birth: Revision(8) };
        let again = Verdict::Again { life, creation: Creation::default(), basis };
        assert_eq!(taken.judge(&draft(UNBORN, basis, Creation::default())), again);
    }
}

#[test]
fn a_new_file_needs_its_directory() {
    let new = draft(UNBORN, Basis::Rewrite, Creation::default());
    let gone = Surroundings::default();
    assert_eq!(gone.judge(&new), Verdict::Refused(Errno::ENOENT));
    let file = Surroundings { parent_value: true, ..Surroundings::default() };
    assert_eq!(file.judge(&new), Verdict::Refused(Errno::ENOTDIR));
    let full = Surroundings { has_children: true, ..around(None) };
    assert_eq!(full.judge(&new), Verdict::Refused(Errno::EISDIR));
    let learnt = Surroundings { parent_value: true, parent_marker: true, ..around(None) };
    let creation = Creation { parent_value: true, parent_marker: true, ..Creation::default() };
    let again = Verdict::Again { life: UNBORN, creation, basis: Basis::Rewrite };
    assert_eq!(learnt.judge(&new), again);
}

#[test]
fn a_file_that_was_moved_is_the_same_and_its_content_too() {
    let moved = around(Some(kv(9, 3, 5)));
    let life = Life { create: Revision(9), birth: Revision(3) };
    let basis = Basis::Change { modified: Revision(9), content: Revision(5) };
    let again = Verdict::Again { life, creation: Creation::default(), basis };
    assert_eq!(moved.judge(&draft(BORN, CHANGE, Creation::default())), again);
    let changed = around(Some(kv(9, 3, 9)));
    let stale = Verdict::Refused(Errno::ESTALE);
    assert_eq!(changed.judge(&draft(BORN, CHANGE, Creation::default())), stale);
    for basis in [Basis::Rewrite, APPEND] {
        let again = Verdict::Again { life, creation: Creation::default(), basis };
        assert_eq!(changed.judge(&draft(BORN, basis, Creation::default())), again);
    }
}

#[test]
fn another_file_of_the_name_is_never_written_to() {
    let other = around(Some(kv(4, 4, 4)));
    let may_repeat = Creation { may_repeat: true, ..Creation::default() };
    for basis in [Basis::Rewrite, CHANGE, APPEND] {
        let verdict = other.judge(&draft(BORN, basis, may_repeat));
        assert_eq!(verdict, Verdict::Refused(Errno::ESTALE), "{basis:?}");
    }
}

#[test]
fn a_free_name_is_created_again_only_by_who_began_from_empty() {
    let free = around(None);
    let may_repeat = Creation { may_repeat: true, ..Creation::default() };
    let again = Verdict::Again { life: UNBORN, creation: may_repeat, basis: Basis::Rewrite };
    assert_eq!(free.judge(&draft(BORN, Basis::Rewrite, may_repeat)), again);
    let stale = Verdict::Refused(Errno::ESTALE);
    assert_eq!(free.judge(&draft(BORN, Basis::Rewrite, Creation::default())), stale);
    assert_eq!(free.judge(&draft(BORN, APPEND, may_repeat)), stale);
    assert_eq!(Surroundings::default().judge(&draft(BORN, Basis::Rewrite, may_repeat)), stale);
}

#[test]
fn a_record_is_written_only_where_a_plain_key_looks_different() {
    let (key, root, defaults) = (Bytes::from("/d/f"), DirectoryKey::default(), Defaults::default());
    let site = Site { key: &key, root: &root, defaults: &defaults };
    let records = |draft: &Draft| {
        let ops = site.transaction(draft).success;
        let record = record_key(&key);
        ops.into_iter()
            .filter(|op| match op {
                Op::Put { key, .. } => *key == record,
                Op::Delete { range, .. } => range.start() == &record,
                _ => false,
            })
            .collect::<Vec<_>>()
    };
    let plain = draft(UNBORN, Basis::Rewrite, Creation::default());
    assert_eq!(records(&plain), []);
    let private = Attributes::new(Kind::File, 0o600);
    let mut own = plain.clone();
    own.attributes = private.clone();
    assert_eq!(records(&own), [Op::put(record_key(&key), private.encode())]);
    // Nothing new to say, and default again.
    let mut rewritten = draft(BORN, Basis::Rewrite, Creation::default());
    (rewritten.attributes, rewritten.stored) = (private.clone(), Some(private.clone()));
    assert_eq!(records(&rewritten), []);
    rewritten.attributes = Attributes::new(Kind::File, 0o644);
    assert_eq!(records(&rewritten), [Op::delete(record_key(&key))]);
    // A time set by hand must be said again of the new content.
    let timed = Attributes { mtime: Some(revfs_api::keyspace::Time(1)), ..private };
    (rewritten.attributes, rewritten.stored) = (timed.clone(), Some(timed));
    assert_eq!(records(&rewritten).len(), 1);
}
