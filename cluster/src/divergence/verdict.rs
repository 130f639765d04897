//! Who holds other data than the rest, from what the members said of one place in the log.

use std::collections::{BTreeMap, BTreeSet};

use revfs_store::PointHash;

/// What a member held; of two members these are equal, or their data are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    pub(super) term: u64,
    pub(super) revision: u64,
    /// One more than the compacted revision; 0 = nothing was ever compacted.
    pub(super) compacted: u64,
    /// etcd's HashKV.
    pub(super) kv: u32,
    /// Of what etcd does not know.
    pub(super) own: u32,
}

impl Held {
    pub(super) fn of(hash: &PointHash) -> Self {
        Self {
            term: hash.position.term,
            revision: hash.kv.revision.0,
            compacted: hash.kv.compacted.map_or(0, |revision| revision.0 + 1),
            kv: hash.kv.hash,
            own: hash.own,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All that said anything hold the same.
    Same,
    /// A majority of the voters holds the same, these do not.
    Odd(BTreeSet<u64>),
    /// There are differences, and no majority that holds the same.
    Undecided { all_voters_answered: bool },
}

pub(super) fn verdict(voters: &BTreeSet<u64>, answers: &BTreeMap<u64, Held>) -> Verdict {
    let mut groups: BTreeMap<Held, BTreeSet<u64>> = BTreeMap::new();
    for (&member, &held) in answers {
        groups.entry(held).or_default().insert(member);
    }
    if groups.len() <= 1 {
        return Verdict::Same;
    }
    let is_majority =
        |members: &&BTreeSet<u64>| members.intersection(voters).count() > voters.len() / 2;
    match groups.values().find(is_majority) {
        Some(majority) => {
            let odd = answers.keys().filter(|member| !majority.contains(member));
            Verdict::Odd(odd.copied().collect())
        }
        None => Verdict::Undecided {
            all_voters_answered: voters.iter().all(|voter| answers.contains_key(voter)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(kv: u32, own: u32) -> Held {
        Held { term: 1, revision: 5, compacted: 0, kv, own }
    }

    fn of(voters: &[u64], answers: &[(u64, Held)]) -> Verdict {
        verdict(&voters.iter().copied().collect(), &answers.iter().copied().collect())
    }

    fn odd(members: &[u64]) -> Verdict {
        Verdict::Odd(members.iter().copied().collect())
    }

    #[test]
    fn who_differs_from_a_majority_of_the_voters_is_odd() {
        let (good, bad) = (held(1, 1), held(2, 1));
        assert_eq!(of(&[1, 2, 3], &[(1, good), (2, good), (3, good)]), Verdict::Same);
        assert_eq!(of(&[1, 2, 3], &[(1, good), (2, good), (3, bad)]), odd(&[3]));
        // Whatever it differs in, and the leader, too.
        assert_eq!(of(&[1, 2, 3], &[(1, held(1, 2)), (2, good), (3, good)]), odd(&[1]));
        let behind = Held { compacted: 3, ..good };
        assert_eq!(of(&[1, 2, 3], &[(1, good), (2, behind), (3, good)]), odd(&[2]));
        // Each in its own way.
        let five = [(1, good), (2, good), (3, good), (4, bad), (5, held(3, 3))];
        assert_eq!(of(&[1, 2, 3, 4, 5], &five), odd(&[4, 5]));
        // One that is away does not matter as long as there is a majority.
        assert_eq!(of(&[1, 2, 3, 4, 5], &five[..4]), odd(&[4]));
    }

    #[test]
    fn learners_do_not_decide_but_may_be_odd() {
        let (good, bad) = (held(1, 1), held(2, 1));
        assert_eq!(of(&[1], &[(1, good), (2, bad), (3, bad)]), odd(&[2, 3]));
        assert_eq!(of(&[1, 2, 3], &[(1, good), (2, good), (4, bad)]), odd(&[4]));
    }

    #[test]
    fn without_a_majority_nobody_is_odd() {
        let (good, bad) = (held(1, 1), held(2, 1));
        let undecided = |all_voters_answered| Verdict::Undecided { all_voters_answered };
        assert_eq!(of(&[1, 2], &[(1, good), (2, bad)]), undecided(true));
        assert_eq!(of(&[1, 2, 3], &[(1, good), (2, bad)]), undecided(false));
        assert_eq!(of(&[1, 2, 3], &[(1, good), (2, bad), (3, held(3, 3))]), undecided(true));
        let four = [(1, good), (2, good), (3, bad), (4, bad)];
        assert_eq!(of(&[1, 2, 3, 4], &four), undecided(true));
        // Who says nothing is not compared.
        assert_eq!(of(&[1, 2, 3], &[(1, good)]), Verdict::Same);
        assert_eq!(of(&[1, 2, 3], &[]), Verdict::Same);
    }
}
