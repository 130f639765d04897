//! How many keys live where, as far as somebody has counted them: the next count walks only what has
//! changed since.
//!
//! The key space is cut into *sections*, whose borders are keys that a walk once passed. A section knows
//! the last revision at which a key appeared or vanished in it, and perhaps how many keys lived in it at
//! some revision. If none appeared or vanished between that revision and the one that is asked for, the
//! number is right for both.
//!
//! Apply tells of every key that appears or vanishes before its revision can be read. So whoever reads at
//! a revision finds all that happened up to there in the sections, and perhaps more, which makes a
//! number useless but never wrong.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::types::Revision;

/// Living keys between two borders when they are drawn; about so many are walked at each end of a span
/// whose middle is known.
const SECTION_KEYS: u64 = 256;

/// Each border is a key in memory. More are forgotten, all at once.
const SECTIONS_MAX: usize = 1 << 16;

/// `[from, to)`; without `to` to the last key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Bytes,
    pub(crate) to: Option<Bytes>,
}

impl Span {
    fn ends_before(&self, key: &[u8]) -> bool {
        self.to.as_ref().is_some_and(|to| to.as_ref() <= key)
    }

    /// Whether a section that ends at `to` ends within the span.
    fn reaches(&self, to: Option<&Bytes>) -> bool {
        match (&self.to, to) {
            (None, _) => true,
            (Some(end), Some(to)) => to <= end,
            (Some(_), None) => false,
        }
    }
}

/// What a walk over a span has found.
pub(crate) struct Walked {
    count: u64,
    section_keys: u64,
    /// The keys that a section's keys, or a multiple of them, precede.
    borders: Vec<Bytes>,
}

impl Walked {
    /// Counts a living key. Its `name` is asked for only where a border is to be drawn.
    pub(crate) fn add<E>(&mut self, name: impl FnOnce() -> Result<Bytes, E>) -> Result<(), E> {
        if self.count > 0 && self.count.is_multiple_of(self.section_keys) {
            self.borders.push(name()?);
        }
        self.count += 1;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct Section {
    /// The last revision at which a key appeared or vanished here.
    changed: Revision,
    /// So many keys lived here at that revision.
    counted: Option<(Revision, u64)>,
}

impl Section {
    fn unknown(changed: Revision) -> Self {
        Self { changed, counted: None }
    }

    fn keys(&self, at: Revision) -> Option<u64> {
        let (counted_at, keys) = self.counted?;
        let is_same = counted_at == at || self.changed <= counted_at.min(at);
        is_same.then_some(keys)
    }
}

/// By first border. There is always one that begins at the empty key.
type Sections = BTreeMap<Bytes, Section>;

/// See the module.
pub(crate) struct Counts {
    sections: Mutex<Sections>,
    section_keys: u64,
}

impl Counts {
    /// Of a key space in which anything may have happened up to `current`.
    pub(crate) fn since(current: Revision) -> Self {
        Self::with_sections_of(SECTION_KEYS, current)
    }

    fn with_sections_of(section_keys: u64, current: Revision) -> Self {
        Self { sections: Mutex::new(all_unknown(current)), section_keys }
    }

    /// Notes keys that appear or vanish at `revision`, at which nobody can read yet.
    pub(crate) fn change<'k>(&self, revision: Revision, keys: impl Iterator<Item = &'k [u8]>) {
        let mut sections = self.sections.lock();
        for key in keys {
            let up_to_key = (Bound::Unbounded, Bound::Included(key));
            if let Some((_, section)) = sections.range_mut::<[u8], _>(up_to_key).next_back() {
                section.changed = section.changed.max(revision);
            }
        }
    }

    /// How many keys of `span` live at `at`. `walk` goes over the parts of it that are not known.
    pub(crate) fn count<E>(
        &self,
        span: &Span,
        at: Revision,
        mut walk: impl FnMut(&Span, &mut Walked) -> Result<(), E>,
    ) -> Result<u64, E> {
        let (mut count, unknown) = self.look(span, at);
        for part in unknown {
            let section_keys = self.section_keys;
            let mut walked = Walked { count: 0, section_keys, borders: Vec::new() };
            walk(&part, &mut walked)?;
            count += walked.count;
            self.learn(&part, at, walked);
        }
        Ok(count)
    }

    /// How many keys are known of, and where there may be others.
    fn look(&self, span: &Span, at: Revision) -> (u64, Vec<Span>) {
        let (mut count, mut unknown) = (0, Vec::<Span>::new());
        let sections = self.sections.lock();
        let mut next = sections
            .range::<[u8], _>((border_of(&sections, &span.from), Bound::Unbounded))
            .peekable();
        while let Some((from, section)) = next.next() {
            if span.ends_before(from) {
                break;
            }
            let to = next.peek().map(|(to, _)| *to);
            let is_whole = span.from <= *from && span.reaches(to);
            if let Some(keys) = section.keys(at).filter(|_| is_whole) {
                count += keys;
                continue;
            }
            let from = from.max(&span.from).clone();
            let to = if span.reaches(to) { to.cloned() } else { span.to.clone() };
            match unknown.last_mut() {
                Some(last) if last.to.as_ref() == Some(&from) => last.to = to,
                _ => unknown.push(Span { from, to }),
            }
        }
        (count, unknown)
    }

    /// Draws the borders anew where `walked` has counted whole sections.
    fn learn(&self, span: &Span, at: Revision, walked: Walked) {
        let mut sections = self.sections.lock();
        let Some(Drawn { first, counted, end }) = draw(&sections, span, walked) else { return };
        let until = end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_ref()));
        let replaced: Vec<(Bytes, Section)> = sections
            .range::<[u8], _>((border_of(&sections, &first), until))
            .map(|(border, section)| (border.clone(), *section))
            .collect();
        if replaced.iter().any(|(_, section)| section.counted.is_some_and(|(was, _)| was > at)) {
            return;
        }
        // A part of a section may have changed when any of it has.
        let changed = replaced.iter().map(|(_, section)| section.changed).max().unwrap_or_default();
        for (border, _) in replaced {
            if border < first {
                sections.insert(border, Section::unknown(changed));
            } else {
                sections.remove(&border);
            }
        }
        if let Some(end) = end {
            sections.entry(end).or_insert(Section::unknown(changed));
        }
        for (border, keys) in counted {
            sections.insert(border, Section { changed, counted: Some((at, keys)) });
        }
        if sections.len() > SECTIONS_MAX {
            let changed = sections.values().map(|section| section.changed).max();
            *sections = all_unknown(changed.unwrap_or_default());
        }
    }
}

fn all_unknown(changed: Revision) -> Sections {
    BTreeMap::from([(Bytes::new(), Section::unknown(changed))])
}

/// The border of the section that `key` lies in.
fn border_of<'s>(sections: &'s Sections, key: &[u8]) -> Bound<&'s [u8]> {
    let up_to_key = (Bound::Unbounded, Bound::Included(key));
    let found = sections.range::<[u8], _>(up_to_key).next_back();
    found.map_or(Bound::Unbounded, |(border, _)| Bound::Included(border.as_ref()))
}

/// Sections that were counted, side by side.
struct Drawn {
    first: Bytes,
    counted: Vec<(Bytes, u64)>,
    end: Option<Bytes>,
}

/// The sections that a walk over `span` has counted. Where the span ends within a section, no border is
/// drawn: whoever asks would choose where they are.
fn draw(sections: &Sections, span: &Span, walked: Walked) -> Option<Drawn> {
    let Walked { count, section_keys, borders } = walked;
    let mut rest = count;
    let mut counted: Vec<_> = borders.into_iter().map(|border| (border, section_keys)).collect();
    if sections.contains_key(&span.from) {
        counted.insert(0, (span.from.clone(), section_keys));
    } else {
        rest -= section_keys.min(rest);
    }
    let ends_section = span.to.as_ref().is_none_or(|to| sections.contains_key(to));
    let end = if ends_section {
        let before_last = u64::try_from(counted.len().saturating_sub(1)).ok()? * section_keys;
        counted.last_mut()?.1 = rest - before_last;
        span.to.clone()
    } else {
        Some(counted.pop()?.0)
    };
    let first = counted.first()?.0.clone();
    Some(Drawn { first, counted, end })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Counts, SECTIONS_MAX, Span, Walked};
    use crate::types::Revision;

    /// When each key appeared and vanished, in turn.
    #[derive(Default)]
    struct Model {
        keys: BTreeMap<Bytes, Vec<Revision>>,
        current: Revision,
        /// Keys that walks went over.
        walked: u64,
    }

    impl Model {
        fn new() -> Self {
            Self { current: Revision::FIRST, ..Self::default() }
        }

        fn lives(&self, key: &Bytes, at: Revision) -> bool {
            let turns = self
                .keys
                .get(key)
                .map_or(0, |turns| turns.iter().filter(|turn| **turn <= at).count());
            turns % 2 == 1
        }

        fn turn(&mut self, counts: &Counts, keys: &[Bytes]) {
            self.current = self.current.next();
            counts.change(self.current, keys.iter().map(AsRef::as_ref));
            for key in keys {
                self.keys.entry(key.clone()).or_default().push(self.current);
            }
        }

        fn living(&self, span: &Span, at: Revision) -> Vec<Bytes> {
            let within =
                |key: &Bytes| *key >= span.from && span.to.as_ref().is_none_or(|to| key < to);
            self.keys.keys().filter(|key| within(key) && self.lives(key, at)).cloned().collect()
        }

        fn count(&mut self, counts: &Counts, span: &Span, at: Revision) -> u64 {
            let mut went = 0;
            let walk = |span: &Span, walked: &mut Walked| {
                for key in self.living(span, at) {
                    went += 1;
                    walked.add(|| Ok::<_, Infallible>(key))?;
                }
                Ok(())
            };
            let Ok::<_, Infallible>(count) = counts.count(span, at, walk);
            self.walked += went;
            count
        }
    }

    fn key(number: u32) -> Bytes {
        format!("{number:06}").into()
    }

    fn all() -> Span {
        Span { from: Bytes::new(), to: None }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Keys that live vanish, and the others appear.
        Turn { from: u32, keys: u32 },
        /// At the current revision, or so many before it.
        Count { from: Option<u32>, to: Option<u32>, back: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let turn = (0..200_u32, 1..12_u32).prop_map(|(from, keys)| Step::Turn { from, keys });
        let bound = || proptest::option::of(0..220_u32);
        let back = prop_oneof![Just(0), 0..20_u64];
        let count = (bound(), bound(), back);
        let count = count.prop_map(|(from, to, back)| Step::Count { from, to, back });
        prop_oneof![turn, count]
    }

    proptest! {
        #[test]
        fn counts_between_changes_are_right_at_every_revision(
            section_keys in 1..8_u64,
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let counts = Counts::with_sections_of(section_keys, Revision::FIRST);
            let mut model = Model::new();
            for step in steps {
                match step {
                    Step::Turn { from, keys } => {
                        let keys: Vec<_> = (from..from + keys).map(key).collect();
                        model.turn(&counts, &keys);
                    }
                    Step::Count { from, to, back } => {
                        let from = from.map(key).unwrap_or_default();
                        let span = Span { from, to: to.map(key) };
                        let at = Revision(model.current.0.saturating_sub(back).max(1));
                        let wanted = u64::try_from(model.living(&span, at).len()).unwrap();
                        prop_assert_eq!(model.count(&counts, &span, at), wanted);
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_counted_is_not_walked_again_but_for_a_section_that_changed() {
        let counts = Counts::with_sections_of(10, Revision::FIRST);
        let mut model = Model::new();
        let keys: Vec<_> = (0..1_000).map(key).collect();
        model.turn(&counts, &keys);
        let before = model.current;
        assert_eq!(model.count(&counts, &all(), before), 1_000);
        assert_eq!(std::mem::take(&mut model.walked), 1_000);
        assert_eq!(model.count(&counts, &all(), before), 1_000);
        assert_eq!(model.walked, 0);

        model.turn(&counts, &[key(500)]);
        assert_eq!(model.count(&counts, &all(), model.current), 999);
        assert!(std::mem::take(&mut model.walked) < 10);
        // The past is known too, but for the section that has changed.
        assert_eq!(model.count(&counts, &all(), before), 1_000);
        assert!(std::mem::take(&mut model.walked) <= 10);
        let part = Span { from: key(5), to: Some(key(995)) };
        assert_eq!(model.count(&counts, &part, model.current), 989);
        assert!(model.walked <= 20);
    }

    #[test]
    fn a_count_of_the_past_does_not_take_the_place_of_a_newer_one() {
        let counts = Counts::with_sections_of(10, Revision::FIRST);
        let mut model = Model::new();
        let keys: Vec<_> = (0..100).map(key).collect();
        model.turn(&counts, &keys);
        let before = model.current;
        model.turn(&counts, &[key(42)]);
        assert_eq!(model.count(&counts, &all(), model.current), 99);
        assert_eq!(model.count(&counts, &all(), before), 100);
        model.walked = 0;
        assert_eq!(model.count(&counts, &all(), model.current), 99);
        assert_eq!(model.walked, 0);
    }

    #[test]
    fn borders_are_bounded_in_number() {
        let counts = Counts::with_sections_of(1, Revision::FIRST);
        let mut model = Model::new();
        let many = u32::try_from(SECTIONS_MAX).unwrap() + 1;
        let keys: Vec<_> = (0..many).map(key).collect();
        model.turn(&counts, &keys);
        for _ in 0..2 {
            assert_eq!(model.count(&counts, &all(), model.current), u64::from(many));
            assert!(counts.sections.lock().len() <= SECTIONS_MAX);
        }
    }
}
