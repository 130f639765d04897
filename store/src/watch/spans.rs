//! Which spans of keys contain a key: a balanced tree over the spans, by start, in which each node
//! knows the greatest end below it.
//!
//! A search visits the path to the key and, besides, only subtrees that hold a span which contains it.
//! The tree is a treap: its priorities come from a counter, so that it is the same in every run and
//! no choice of keys unbalances it.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bytes::Bytes;

use super::Slot;

/// Exclusive end of a span; the greatest of all is no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End(pub(super) Option<Bytes>);

impl End {
    fn is_after(&self, key: &[u8]) -> bool {
        self.0.as_ref().is_none_or(|end| end.as_ref() > key)
    }
}

impl Ord for End {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(own), Some(other)) => own.cmp(other),
        }
    }
}

impl PartialOrd for End {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

type Link = Option<Box<Node>>;

/// All watchers of one span.
struct Node {
    start: Bytes,
    end: End,
    slots: BTreeSet<Slot>,
    /// Greater than those below.
    priority: u64,
    /// The greatest end of this node and those below.
    reach: End,
    left: Link,
    right: Link,
}

impl Node {
    fn renew_reach(&mut self) {
        let below = [&self.left, &self.right];
        let reach = below.iter().filter_map(|link| link.as_ref()).map(|node| &node.reach).max();
        self.reach = reach.map_or(&self.end, |reach| reach.max(&self.end)).clone();
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Spans {
    root: Link,
    /// Nodes made so far: the source of the priorities.
    made: u64,
}

impl Spans {
    pub(super) fn insert(&mut self, start: &Bytes, end: &End, slot: Slot) {
        self.made += 1;
        insert(&mut self.root, start, end, slot, scattered(self.made));
    }

    pub(super) fn remove(&mut self, start: &Bytes, end: &End, slot: Slot) {
        remove(&mut self.root, start, end, slot);
    }

    /// Adds the watchers of each span that contains `key` to `found`; returns the nodes looked at.
    pub(super) fn find(&self, key: &[u8], found: &mut Vec<Slot>) -> u64 {
        let mut steps = 0;
        find(&self.root, key, found, &mut steps);
        steps
    }
}

/// Spreads a counter over all numbers (the finish of splitmix64).
fn scattered(count: u64) -> u64 {
    let mut z = count.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn insert(link: &mut Link, start: &Bytes, end: &End, slot: Slot, priority: u64) {
    let Some(node) = link else {
        *link = Some(Box::new(Node {
            start: start.clone(),
            end: end.clone(),
            slots: BTreeSet::from([slot]),
            priority,
            reach: end.clone(),
            left: None,
            right: None,
        }));
        return;
    };
    let is_left = match (start, end).cmp(&(&node.start, &node.end)) {
        Ordering::Equal => {
            node.slots.insert(slot);
            return;
        }
        Ordering::Less => true,
        Ordering::Greater => false,
    };
    let below = if is_left { &mut node.left } else { &mut node.right };
    insert(below, start, end, slot, priority);
    if below.as_ref().is_some_and(|below| below.priority > node.priority) {
        raise(link, is_left);
    } else {
        node.renew_reach();
    }
}

/// Puts the left or right child of a node into its place, and the node below the child.
fn raise(link: &mut Link, is_left: bool) {
    let Some(mut above) = link.take() else { return };
    let child = if is_left { above.left.take() } else { above.right.take() };
    let Some(mut child) = child else {
        *link = Some(above);
        return;
    };
    if is_left {
        above.left = child.right.take();
        above.renew_reach();
        child.right = Some(above);
    } else {
        above.right = child.left.take();
        above.renew_reach();
        child.left = Some(above);
    }
    child.renew_reach();
    *link = Some(child);
}

fn remove(link: &mut Link, start: &Bytes, end: &End, slot: Slot) {
    let Some(node) = link else { return };
    match (start, end).cmp(&(&node.start, &node.end)) {
        Ordering::Less => remove(&mut node.left, start, end, slot),
        Ordering::Greater => remove(&mut node.right, start, end, slot),
        Ordering::Equal => {
            node.slots.remove(&slot);
            if node.slots.is_empty() {
                let (left, right) = (node.left.take(), node.right.take());
                *link = merged(left, right);
                return;
            }
        }
    }
    node.renew_reach();
}

/// One tree of two, all of `left` before all of `right`.
fn merged(left: Link, right: Link) -> Link {
    match (left, right) {
        (None, other) | (other, None) => other,
        (Some(mut left), Some(mut right)) => {
            if left.priority > right.priority {
                left.right = merged(left.right.take(), Some(right));
                left.renew_reach();
                Some(left)
            } else {
                right.left = merged(Some(left), right.left.take());
                right.renew_reach();
                Some(right)
            }
        }
    }
}

fn find(link: &Link, key: &[u8], found: &mut Vec<Slot>, steps: &mut u64) {
    let Some(node) = link else { return };
    *steps += 1;
    if !node.reach.is_after(key) {
        return;
    }
    find(&node.left, key, found, steps);
    if node.start.as_ref() <= key {
        if node.end.is_after(key) {
            found.extend(&node.slots);
        }
        find(&node.right, key, found, steps);
    }
}
