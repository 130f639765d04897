//! Names of files that stay in their mount: the swap and lock files of editors.
//!
//! Such a file is *unborn* for as long as it has its name: this mount shows it as any other, and no close, sync
//! or attribute makes a revision of it. It becomes one when it is renamed to an ordinary name. Locks of it
//! hold in this mount, and it goes with the mount. What the store has under such a name (because it was renamed
//! to it, or came through the API) is an ordinary file.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use fuser::{Errno, FileType};
use thiserror::Error;

use crate::attributes::Attributes;
use crate::budget::{Charge, OverBudget};
use crate::commit::now;
use crate::filesystem::{Answer, Filesystem, Found};
use crate::node::{Node, Place};
use crate::ops::create::Room;
use crate::path::DirectoryKey;
use crate::staged::Creation;

/// vim's swap files, those (`.f.swpx`) by which it looks how a name is kept, the name by which it looks whether a
/// directory can be written, and Emacs' locks.
pub const LOCAL_NAMES: &str = ".*.sw[a-p]:.*.sw[a-p]x:4913:.#*";

/// An editor has a few for each file that it has open.
const LOCAL_FILES_MAX: usize = 4_096;

/// Patterns of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNames(Vec<Pattern>);

impl Default for LocalNames {
    fn default() -> Self {
        LOCAL_NAMES.parse().expect("a test reads it")
    }
}

/// Why a text is no list of patterns.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    #[error("'{0}' has a [ without a ]")]
    Unclosed(String),
    #[error("'{0}': a file name has no /")]
    Slash(String),
}

impl FromStr for LocalNames {
    type Err = PatternError;

    /// Patterns as the shell has them (`*`, `?`, `[a-z]`, `[!a]`, `\` before what is meant as it is), with colons
    /// between them; nothing for none.
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let patterns = text.split(':').filter(|pattern| !pattern.is_empty());
        patterns.map(Pattern::new).collect::<Result<_, _>>().map(Self)
    }
}

impl LocalNames {
    pub(crate) fn has(&self, component: &[u8]) -> bool {
        self.0.iter().any(|pattern| matches(&pattern.parts, component))
    }

    pub(crate) fn has_key(&self, key: &Bytes) -> bool {
        self.has(&DirectoryKey::of_key(key).1)
    }
}

impl fmt::Display for LocalNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(|pattern| pattern.text.as_str()).collect();
        f.write_str(&texts.join(":"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Any bytes, or none.
    Any,
    One(OneByte),
}

/// What one byte may be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OneByte {
    /// Inclusive.
    ranges: Vec<(u8, u8)>,
    is_negated: bool,
}

impl OneByte {
    fn has(&self, byte: u8) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&byte)) != self.is_negated
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, PatternError> {
        if text.contains('/') {
            return Err(PatternError::Slash(text.to_owned()));
        }
        let mut parts = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            let part = match byte {
                b'*' => Part::Any,
                b'?' => Part::One(OneByte { ranges: Vec::new(), is_negated: true }),
                b'[' => {
                    let (set, after) = set(rest);
                    rest = after.ok_or_else(|| PatternError::Unclosed(text.to_owned()))?;
                    Part::One(set)
                }
                b'\\' if !rest.is_empty() => {
                    let (own, after) = (rest[0], &rest[1..]);
                    rest = after;
                    Part::One(OneByte { ranges: vec![(own, own)], is_negated: false })
                }
                own => Part::One(OneByte { ranges: vec![(own, own)], is_negated: false }),
            };
            parts.push(part);
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

/// What stands between `[` and `]`, and what follows; a `]` that comes first is meant as it is.
fn set(text: &[u8]) -> (OneByte, Option<&[u8]>) {
    let is_negated = matches!(text.first(), Some(b'!' | b'^'));
    let mut rest = &text[usize::from(is_negated)..];
    let mut ranges = Vec::new();
    loop {
        rest = match rest {
            [] => return (OneByte { ranges, is_negated }, None),
            [b']', after @ ..] if !ranges.is_empty() => {
                return (OneByte { ranges, is_negated }, Some(after));
            }
            [first, b'-', last, after @ ..] if *last != b']' => {
                ranges.push((*first, *last));
                after
            }
            [own, after @ ..] => {
                ranges.push((*own, *own));
                after
            }
        };
    }
}

/// At a mismatch the last `*` takes one byte more: never more steps than parts times bytes.
fn matches(parts: &[Part], name: &[u8]) -> bool {
    let (mut part, mut byte) = (0, 0);
    let mut last_any: Option<(usize, usize)> = None;
    while byte < name.len() {
        match parts.get(part) {
            Some(Part::Any) => {
                last_any = Some((part, byte));
                part += 1;
            }
            Some(Part::One(one)) if one.has(name[byte]) => (part, byte) = (part + 1, byte + 1),
            Some(Part::One(_)) | None => {
                let Some((any, taken)) = last_any else { return false };
                last_any = Some((any, taken + 1));
                (part, byte) = (any + 1, taken + 1);
            }
        }
    }
    parts[part..].iter().all(|part| *part == Part::Any)
}

impl Filesystem {
    /// Whether a node is a file of this mount only.
    pub(crate) fn stays_here(&self, node: &Node) -> bool {
        let Place::File { key } = node.place() else { return false };
        let state = node.file.lock();
        let is_unborn = state.life.is_unborn() && state.staged.is_some() && !state.is_private;
        is_unborn && self.options.local.has_key(&key)
    }

    /// The file of this mount only that has a name.
    pub(crate) fn local_file(
        &self,
        directory: &DirectoryKey,
        component: &Bytes,
    ) -> Option<Arc<Node>> {
        if !self.options.local.has(component) {
            return None;
        }
        self.unborn.lock().get(&(directory.clone(), component.clone())).cloned()
    }

    /// How many there are.
    pub(crate) fn local_files(&self) -> usize {
        let unborn = self.unborn.lock();
        unborn.keys().filter(|(_, component)| self.options.local.has(component)).count()
    }

    /// # Errors
    /// ENOSPC if this mount has too many of them.
    pub(crate) fn check_room_here(&self) -> Answer<()> {
        let may_be_many = self.unborn.lock().len() >= LOCAL_FILES_MAX;
        match may_be_many && self.local_files() >= LOCAL_FILES_MAX {
            true => Err(Errno::ENOSPC),
            false => Ok(()),
        }
    }

    /// Makes a file or symlink of this mount only.
    pub(crate) fn make_here(
        &self,
        room: &Room,
        attributes: Attributes,
        kind: FileType,
        content: &[u8],
    ) -> Answer<Found> {
        let creation = Creation { is_exclusive: true, ..Creation::default() };
        let node = self.unborn_file(room, (attributes, kind), creation, None)?;
        if let Some(staged) = &mut node.file.lock().staged {
            let charge = Charge::new(&self.writing.budget, content.len());
            staged.charge = charge.map_err(|OverBudget| Errno::ENOSPC)?;
            staged.bytes = Arc::new(content.to_vec());
            staged.modified = now();
        }
        self.found_unborn(node)
    }

    /// Renames a file of this mount only to another such name. False if it is none any more.
    pub(crate) async fn rename_here(&self, from: &Bytes, to: &Bytes) -> Answer<bool> {
        if from == to {
            return Ok(true);
        }
        let renames = self.hold_names().await?;
        let Some(node) = self.nodes.find(&Place::File { key: from.clone() }) else {
            return Ok(false);
        };
        let committing = node.commit.lock().await;
        let is_here = self.stays_here(&node) && self.is_unborn(&node, from);
        if is_here {
            self.lose_name(to);
            self.forget_unborn(&node, from);
            self.nodes.move_file(from, to);
            self.unborn.lock().insert(DirectoryKey::of_key(to), Arc::clone(&node));
        }
        drop((committing, renames));
        Ok(is_here)
    }
}

#[cfg(test)]
mod tests {
    use super::{LOCAL_NAMES, LocalNames, PatternError};

    #[test]
    fn patterns_are_those_of_the_shell() {
        for (pattern, names, others) in [
            (
                LOCAL_NAMES,
                vec![".f.swp", ".a.b.swa", ".f.swpx", "4913", ".#f"],
                vec!["f.swp", ".f.swq", ".swp"],
            ),
            ("4913", vec!["4913"], vec!["4914", "49130", ""]),
            (".#*", vec![".#f", ".#"], vec!["#f#", ".f"]),
            ("a*b*c", vec!["abc", "aXbbYbc"], vec!["ab", "abcd"]),
            ("[!ab]?", vec!["cd", "]x"], vec!["ad", "c"]),
            ("[]-]x", vec!["]x", "-x"], vec!["ax"]),
            (r"\*[x]", vec!["*x"], vec!["ax"]),
            ("**", vec!["", "a"], vec![]),
        ] {
            let local: LocalNames = pattern.parse().unwrap();
            for name in names {
                assert!(local.has(name.as_bytes()), "{pattern} {name}");
            }
            for name in others {
                assert!(!local.has(name.as_bytes()), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn a_list_has_colons_and_may_be_empty() {
        let text = "4913:.#*";
        let local: LocalNames = text.parse().unwrap();
        assert!(local.has(b"4913") && local.has(b".#x") && !local.has(b".x.swp"));
        assert_eq!(local.to_string(), text);
        assert!(!"".parse::<LocalNames>().unwrap().has(b"4913"));
        assert!(LocalNames::default().has(b".x.swp"));
        let unclosed = "a:b[c".parse::<LocalNames>().unwrap_err();
        assert_eq!(unclosed, PatternError::Unclosed(String::from("b[c")));
        "a/b".parse::<LocalNames>().unwrap_err();
    }

    #[test]
    fn no_name_takes_long_to_compare() {
        let pattern = "*a".repeat(100);
        let local: LocalNames = format!("{pattern}b").parse().unwrap();
        assert!(!local.has("a".repeat(255).as_bytes()));
    }
}
