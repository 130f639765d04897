//! The history of a store, revision by revision, and whether what clients were told agrees with it.
//!
//! A store has one history: each answer names the revision it holds for. So it is enough to see that
//! - a change that was acknowledged is in the history at its revision, whole, and nothing else is there;
//! - what a change demanded held just before it, and what was read held at its revision;
//! - whoever began after another had ended has no smaller revision;
//! - every value, and each is sent once, is there at most once;
//! - times do not run backwards.

use std::collections::{BTreeMap, BTreeSet};

/// A key and what it holds; nothing if it is not there.
pub type Held = (String, Option<String>);

/// All changes of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub revision: u64,
    /// In nanoseconds.
    pub time: i64,
    pub changes: Vec<Held>,
}

/// What one client was told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Between these two moments, of one clock for all clients.
    pub began: u64,
    pub ended: u64,
    pub revision: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// This was changed, and what stood before it held.
    Changed { demanded: Vec<Held>, changes: Vec<Held> },
    /// This was read, of the present.
    Read(Vec<Held>),
    /// This was read of a revision that the client had named.
    ReadPast(Vec<Held>),
}

/// Whether all of it agrees; else what does not.
///
/// # Errors
/// The first contradiction, in words.
pub fn check(history: &[Step], told: &[Told]) -> Result<(), String> {
    check_steps(history)?;
    check_order(told)?;
    let mut of_keys: BTreeMap<&str, Vec<(u64, Option<&str>)>> = BTreeMap::new();
    for step in history {
        for (key, value) in &step.changes {
            of_keys.entry(key).or_default().push((step.revision, value.as_deref()));
        }
    }
    let at = |key: &str, revision: u64| {
        let versions = of_keys.get(key).map_or(&[][..], Vec::as_slice);
        let after = versions.partition_point(|(own, _)| *own <= revision);
        after.checked_sub(1).and_then(|last| versions[last].1)
    };
    let steps: BTreeMap<u64, &Step> = history.iter().map(|step| (step.revision, step)).collect();
    let held = |expected: &[Held], revision: u64| {
        let wrong = expected.iter().find(|(key, value)| at(key, revision) != value.as_deref());
        wrong.map_or(Ok(()), |(key, value)| {
            let really = at(key, revision);
            Err(format!("{key} at {revision} was told to be {value:?}, and was {really:?}"))
        })
    };
    for one in told {
        match &one.what {
            What::Read(seen) | What::ReadPast(seen) => held(seen, one.revision)?,
            What::Changed { demanded, changes } => {
                held(demanded, one.revision - 1)?;
                let step = steps.get(&one.revision);
                let step = step.ok_or_else(|| format!("acknowledged and lost: {one:?}"))?;
                let as_set = |held: &[Held]| held.iter().cloned().collect::<BTreeSet<Held>>();
                if as_set(&step.changes) != as_set(changes) {
                    return Err(format!("{one:?} is in the history as {step:?}"));
                }
            }
        }
    }
    Ok(())
}

/// The history by itself.
fn check_steps(history: &[Step]) -> Result<(), String> {
    for pair in history.windows(2) {
        let (one, next) = (&pair[0], &pair[1]);
        if one.revision >= next.revision {
            return Err(format!("revision {} comes after {}", next.revision, one.revision));
        }
        if one.time > next.time {
            return Err(format!("revision {} is earlier than {}", next.revision, one.revision));
        }
    }
    let mut seen = BTreeSet::new();
    let values =
        history.iter().flat_map(|step| step.changes.iter().filter_map(|(_, value)| value.as_ref()));
    match values.into_iter().find(|value| !seen.insert(*value)) {
        Some(value) => Err(format!("{value} was sent once and happened twice")),
        None => Ok(()),
    }
}

/// Nobody who began later was told of an earlier state.
fn check_order(told: &[Told]) -> Result<(), String> {
    let present = || told.iter().filter(|one| !matches!(one.what, What::ReadPast(_)));
    let mut by_begin: Vec<&Told> = present().collect();
    let mut by_end = by_begin.clone();
    by_begin.sort_by_key(|one| one.began);
    by_end.sort_by_key(|one| one.ended);
    let mut ended = by_end.into_iter().peekable();
    let mut newest: Option<&Told> = None;
    for one in by_begin {
        while let Some(before) = ended.next_if(|before| before.ended < one.began) {
            if newest.is_none_or(|newest| newest.revision < before.revision) {
                newest = Some(before);
            }
        }
        if let Some(newest) = newest.filter(|newest| newest.revision > one.revision) {
            return Err(format!("{one:?} began after the end of {newest:?}"));
        }
    }
    Ok(())
}

/// What one watch showed, as its answers came.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    steps: Vec<(u64, Vec<Held>)>,
}

impl Watched {
    /// Takes the events of one answer.
    ///
    /// # Errors
    /// If a revision comes twice, out of order, or in two answers.
    pub fn take(&mut self, events: impl IntoIterator<Item = (u64, Held)>) -> Result<(), String> {
        let shown_before = self.next();
        for (revision, held) in events {
            if revision < shown_before || revision + 1 < self.next() {
                return Err(format!("revision {revision} is shown after {}", self.next() - 1));
            }
            match self.steps.last_mut().filter(|(last, _)| *last == revision) {
                Some((_, changes)) => changes.push(held),
                None => self.steps.push((revision, vec![held])),
            }
        }
        Ok(())
    }

    /// Where to go on.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.steps.last().map_or(1, |(last, _)| last + 1)
    }

    /// Whether it showed all of the history, and nothing else.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn agrees(&self, history: &[Step]) -> Result<(), String> {
        let shown = history.iter().map(|step| (step.revision, &step.changes));
        let differs = shown.zip(&self.steps).find(|((revision, changes), (own, seen))| {
            let as_set = |held: &[Held]| held.iter().cloned().collect::<BTreeSet<Held>>();
            revision != own || as_set(changes) != as_set(seen)
        });
        match differs {
            Some((step, seen)) => Err(format!("{step:?} was shown as {seen:?}")),
            None if history.len() == self.steps.len() => Ok(()),
            None => Err(format!("{} of {} revisions were shown", self.steps.len(), history.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(key: &str, value: &str) -> Held {
        (key.to_owned(), Some(value.to_owned()))
    }

    fn history() -> Vec<Step> {
        let step =
            |revision, changes| Step { revision, time: i64::try_from(revision).unwrap(), changes };
        vec![
            step(2, vec![held("a", "1")]),
            step(3, vec![held("a", "2"), held("b", "3")]),
            step(4, vec![("a".to_owned(), None)]),
        ]
    }

    fn told(began: u64, ended: u64, revision: u64, what: What) -> Told {
        Told { began, ended, revision, what }
    }

    fn changed(changes: Vec<Held>) -> What {
        What::Changed { demanded: Vec::new(), changes }
    }

    #[test]
    fn what_agrees_passes() {
        let both = vec![held("a", "2"), held("b", "3")];
        let demanded = What::Changed { demanded: vec![held("a", "1")], changes: both };
        let all = [
            told(1, 2, 2, changed(vec![held("a", "1")])),
            told(3, 4, 3, demanded),
            told(5, 6, 4, What::Read(vec![("a".to_owned(), None), held("b", "3")])),
            told(7, 8, 2, What::ReadPast(vec![held("a", "1")])),
        ];
        assert_eq!(check(&history(), &all), Ok(()));
    }

    #[test]
    fn each_planted_fault_is_found() {
        let wrong = |told: Told| check(&history(), &[told]).unwrap_err();
        assert!(wrong(told(1, 2, 5, changed(vec![held("c", "9")]))).contains("lost"));
        let half = changed(vec![held("a", "2")]);
        assert!(wrong(told(1, 2, 3, half)).contains("in the history as"), "not atomic");
        let stale = What::Read(vec![held("a", "1")]);
        assert!(wrong(told(1, 2, 3, stale)).contains("was told to be"));
        let demanded = What::Changed {
            demanded: vec![held("a", "7")],
            changes: vec![held("a", "2"), held("b", "3")],
        };
        assert!(wrong(told(1, 2, 3, demanded)).contains("was told to be"));
        let earlier = [
            told(1, 2, 3, What::Read(vec![held("a", "2")])),
            told(3, 4, 2, What::Read(vec![held("a", "1")])),
        ];
        assert!(check(&history(), &earlier).unwrap_err().contains("began after"));
        let mut doubled = history();
        doubled[2].changes = vec![held("a", "1")];
        assert!(check(&doubled, &[]).unwrap_err().contains("twice"));
        let mut backwards = history();
        backwards[2].time = 1;
        assert!(check(&backwards, &[]).unwrap_err().contains("earlier"));
    }

    #[test]
    fn a_watch_that_repeats_skips_splits_or_reorders_is_found_out() {
        let event = |revision, value: &str| (revision, held("a", value));
        let mut watched = Watched::default();
        watched.take([event(2, "1")]).unwrap();
        assert!(watched.clone().take([event(2, "1")]).is_err(), "twice, or split");
        assert!(watched.clone().take([event(4, "1"), event(3, "1")]).is_err(), "out of order");
        watched
            .take([(3, held("a", "2")), (3, held("b", "3")), (4, ("a".to_owned(), None))])
            .unwrap();
        assert_eq!(watched.agrees(&history()), Ok(()));
        let mut gap = Watched::default();
        gap.take([event(2, "1"), (4, ("a".to_owned(), None))]).unwrap();
        assert!(gap.agrees(&history()).is_err());
        let mut short = Watched::default();
        short.take([event(2, "1")]).unwrap();
        assert!(short.agrees(&history()).is_err());
    }
}
