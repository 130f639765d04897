//! The staged copy by itself: what writes make of it, what a commit takes, what stays afterwards.

use bytes::Bytes;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::{collection, prop_assert, prop_assert_eq};
use revfs_api::keyspace::{KeyValue, Revision, Time};

use super::{Basis, Committed, Content, Creation, FileState, Position, Staged, Step};
use crate::attributes::{Attributes, Kind};
use crate::budget::{Budget, Charge, OverBudget};

const NOW: Time = Time(7);

fn attributes() -> Attributes {
    Attributes::new(Kind::File, 0o644)
}

fn content(text: &str, revision: u64) -> Content {
    let revision = Revision(revision);
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    Content { mod_revision: revision, content_revision: revision, bytes }
}

fn charge() -> Charge {
    Charge::new(&Budget::new(usize::MAX), 0).unwrap()
}

fn committed(revision: u64, value_bytes: usize) -> Committed {
    let revision = Revision(revision);
    let kv = KeyValue {
        create_revision: Revision(2),
        birth_revision: Revision(2),
        mod_revision: revision,
        content_revision: revision,
        value_bytes: value_bytes as u64,
        ..KeyValue::default()
    };
    Committed { kv, has_foreign_bytes: false }
}

fn staged_on(text: &str, basis: impl Fn(&Content) -> Basis) -> FileState {
    let content = content(text, 5);
    let mut state = FileState::default();
    state.life.create = Revision(2);
    let basis = basis(&content);
    state.stage(Staged::on_content(&content, attributes(), basis, charge(), NOW));
    state
}

fn write(state: &mut FileState, position: Position, text: &str) {
    let step = if position == Position::End { Step::Append } else { Step::Write };
    let written = state.change(step, |staged| staged.write(position, text.as_bytes(), NOW));
    assert_eq!(written, Some(Ok(())));
}

#[test]
fn only_what_was_appended_is_sent() {
    let mut state = staged_on("log\n", Basis::append_to);
    write(&mut state, Position::End, "a\n");
    let draft = state.draft().unwrap();
    assert_eq!(draft.value(), "a\n");
    assert_eq!(draft.whole(), "log\na\n");
    write(&mut state, Position::End, "b\n");
    assert!(state.settle(&draft, &committed(6, 6)));
    assert_eq!(state.draft().unwrap().value(), "b\n");
    assert_eq!(state.draft().unwrap().steps, []);
}

#[test]
fn a_write_in_the_middle_makes_appending_a_change() {
    let mut state = staged_on("log\n", Basis::append_to);
    write(&mut state, Position::End, "a\n");
    assert!(state.staged.as_ref().unwrap().is_append_only());
    write(&mut state, Position::At(0), "LOG");
    let draft = state.draft().unwrap();
    let revision = Revision(5);
    assert_eq!(draft.basis, Basis::Change { modified: revision, content: revision });
    assert_eq!(draft.value(), "LOG\na\n");
    assert!(!state.staged.as_ref().unwrap().is_append_only());
}

#[test]
fn emptied_content_rests_on_nothing() {
    let mut state = staged_on("old", |content| Basis::Change {
        modified: content.mod_revision,
        content: content.content_revision,
    });
    state.change(Step::Truncate, |staged| staged.resize(0, NOW)).unwrap().unwrap();
    write(&mut state, Position::At(2), "x");
    let draft = state.draft().unwrap();
    assert_eq!((draft.basis, draft.value().as_ref()), (Basis::Rewrite, b"\0\0x".as_slice()));
}

#[test]
fn what_others_appended_comes_before_what_is_still_staged() {
    let mut state = staged_on("1", Basis::append_to);
    write(&mut state, Position::End, "2");
    let draft = state.draft().unwrap();
    write(&mut state, Position::End, "3");
    let foreign = Committed { has_foreign_bytes: true, ..committed(9, 3) };
    assert!(state.settle(&draft, &foreign));
    assert!(state.content.is_none(), "this mount does not know it");
    state.staged.as_mut().unwrap().put_before(&content("1x2", 9));
    let draft = state.draft().unwrap();
    assert_eq!((draft.whole().as_ref(), draft.value().as_ref()), (&b"1x23"[..], &b"3"[..]));
}

#[test]
fn a_change_in_the_middle_of_what_lacks_foreign_bytes_keeps_its_base() {
    let old = Revision(5);
    let foreign = Committed { has_foreign_bytes: true, ..committed(9, 3) };
    for is_written_before_settling in [true, false] {
        let mut state = staged_on("1", Basis::append_to);
        write(&mut state, Position::End, "2");
        let draft = state.draft().unwrap();
        if is_written_before_settling {
            write(&mut state, Position::At(0), "X");
            assert!(state.settle(&draft, &foreign));
        } else {
            write(&mut state, Position::End, "3");
            assert!(state.settle(&draft, &foreign));
            write(&mut state, Position::At(0), "X");
        }
        state.staged.as_mut().unwrap().put_before(&content("1x2", 9));
        assert_eq!(state.draft().unwrap().basis, Basis::Change { modified: old, content: old });
    }
}

#[test]
fn a_commit_does_not_see_later_writes() {
    let mut state = staged_on("abc", |_| Basis::Rewrite);
    write(&mut state, Position::At(0), "first");
    let draft = state.draft().unwrap();
    write(&mut state, Position::At(0), "F");
    assert_eq!(draft.value(), "first");
    assert_eq!(state.draft().unwrap().value(), "First");
}

#[test]
fn new_content_ends_a_time_set_by_hand() {
    let mut state = staged_on("abc", |_| Basis::Rewrite);
    let set = state.change(Step::Attributes, |staged| {
        staged.attributes.mtime = Some(Time(1));
        Ok::<(), OverBudget>(())
    });
    assert_eq!(set, Some(Ok(())));
    write(&mut state, Position::At(0), "x");
    assert_eq!(state.staged.as_ref().unwrap().attributes.mtime, None);
}

#[test]
fn a_new_file_that_was_not_emptied_adds_to_what_came_meanwhile() {
    let exclusive = Creation { is_exclusive: true, ..Creation::default() };
    let emptied = Creation { may_repeat: true, ..Creation::default() };
    for (creation, is_rewrite) in [(exclusive, true), (emptied, true), (Creation::default(), false)]
    {
        let staged = Staged::new_file(attributes(), creation, charge(), NOW);
        assert_eq!(staged.basis == Basis::Rewrite, is_rewrite, "{creation:?}");
    }
}

#[test]
fn the_budget_bounds_all_copies_and_is_given_back() {
    let budget = Budget::new(10);
    let first = Charge::new(&budget, 6).unwrap();
    assert_eq!(Charge::new(&budget, 5).err(), Some(OverBudget));
    let mut second = Charge::new(&budget, 4).unwrap();
    assert_eq!(second.resize(5), Err(OverBudget));
    second.resize(1).unwrap();
    assert_eq!(budget.used(), 7);
    drop(first);
    second.force(20);
    assert_eq!(budget.used(), 20);
    drop(second);
    assert_eq!(budget.used(), 0);
}

#[derive(Clone, Debug)]
enum Action {
    Write(Position, String),
    Resize(usize),
    Commit,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0..12usize, "[a-z]{0,4}").prop_map(|(at, text)| Action::Write(Position::At(at), text)),
        3 => "[a-z]{0,4}".prop_map(|text| Action::Write(Position::End, text)),
        1 => (0..12usize).prop_map(Action::Resize),
        2 => Just(Action::Commit),
    ]
}

proptest! {
    /// A store that applies each draft as its basis says ends up with what the mount showed.
    #[test]
    fn drafts_applied_one_after_the_other_are_what_was_written(
        actions in collection::vec(action(), 0..30), appends in any::<bool>(),
    ) {
        let mut state = staged_on("base", |content| {
            if appends { Basis::append_to(content) } else {
                Basis::Change { modified: content.mod_revision, content: content.content_revision }
            }
        });
        let (mut shown, mut store, mut revision) = (b"base".to_vec(), b"base".to_vec(), 5);
        for action in actions {
            if state.staged.is_none() {
                let content = state.content.clone().unwrap();
                prop_assert_eq!(content.bytes.as_ref(), shown.as_slice());
                let basis = Basis::append_to(&content);
                state.stage(Staged::on_content(&content, attributes(), basis, charge(), NOW));
            }
            match action {
                Action::Write(position, text) => {
                    write(&mut state, position, &text);
                    let start = match position {
                        Position::At(start) => start,
                        Position::End => shown.len(),
                    };
                    let end = start + text.len();
                    shown.resize(shown.len().max(end), 0);
                    shown[start..end].copy_from_slice(text.as_bytes());
                }
                Action::Resize(size) => {
                    state.change(Step::Truncate, |staged| staged.resize(size, NOW)).unwrap().unwrap();
                    shown.resize(size, 0);
                }
                Action::Commit => {
                    let draft = state.draft().unwrap();
                    match draft.basis {
                        Basis::Append { .. } => store.extend_from_slice(&draft.value()),
                        Basis::Change { .. } | Basis::Rewrite => store = draft.value().to_vec(),
                    }
                    revision += 1;
                    let is_staged = state.settle(&draft, &committed(revision, store.len()));
                    prop_assert!(!is_staged);
                    prop_assert_eq!(&store, &shown);
                }
            }
            if let Some(staged) = &state.staged {
                prop_assert_eq!(staged.bytes.as_ref(), &shown);
            }
        }
    }
}
