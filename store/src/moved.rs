//! Which directories take their times along, and from where.
//!
//! A move (or an exchange) that takes every name of the directory D to T makes T what D was: when a
//! name last appeared or vanished directly in it, and at which time. So a renamed directory shows the
//! time that it had, as POSIX wants, and a time that was set by hand holds as long as before. If D lost
//! a name in the same transaction, or T holds others as well, T has changed now.
//!
//! Counting is enough to know: the names that went along lie in D as it was and in T as it becomes, so
//! if there are as many of them as D had and as T has, the three sets are one.

use std::collections::BTreeMap;

/// Directories that names were moved into, by prefix. A transaction writes no key twice, so that each
/// has one source.
#[derive(Debug, Default)]
pub(crate) struct Moved(BTreeMap<Vec<u8>, Source>);

/// Where the names of a directory come from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) directory: Vec<u8>,
    /// How many of its names came along, directories among them.
    pub(crate) names: u64,
}

impl Moved {
    /// Enters that `key`, which begins with `from`, goes to the place of the same name below `to`.
    pub(crate) fn enter(&mut self, key: &[u8], from: &[u8], to: &[u8]) {
        let mut end = key.len();
        while let Some(slash) = key[..end].iter().rposition(|&byte| byte == b'/') {
            let Some(rest) = key[..=slash].get(from.len()..) else { return };
            if rest.is_empty() && !to.ends_with(b"/") {
                return;
            }
            let source = self
                .0
                .entry([to, rest].concat())
                .or_insert_with(|| Source { directory: key[..=slash].to_vec(), names: 0 });
            source.names += 1;
            if source.names > 1 {
                // It came along as a name of the directory above it already.
                return;
            }
            end = slash;
        }
    }

    pub(crate) fn targets(&self) -> impl Iterator<Item = &[u8]> {
        self.0.keys().map(Vec::as_slice)
    }

    pub(crate) fn source(&self, target: &[u8]) -> Option<&Source> {
        self.0.get(target)
    }
}

#[cfg(test)]
mod tests {
    use super::Moved;

    fn moved(from: &str, to: &str, keys: &[&str]) -> Vec<(String, String, u64)> {
        let mut moved = Moved::default();
        for key in keys {
            moved.enter(key.as_bytes(), from.as_bytes(), to.as_bytes());
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        moved.0.iter().map(|(to, own)| (text(to), text(&own.directory), own.names)).collect()
    }

    #[test]
    fn each_directory_below_the_prefix_is_counted_by_its_names() {
        let keys = ["/a/", "/a/s/t/x", "/a/s/t/y", "/a/s/z", "/a/u"];
        let expected = [("/b/c/", "/a/", 3), ("/b/c/s/", "/a/s/", 2), ("/b/c/s/t/", "/a/s/t/", 2)];
        let expected = expected.map(|(to, from, names)| (to.to_owned(), from.to_owned(), names));
        assert_eq!(moved("/a/", "/b/c/", &keys), expected);
    }

    #[test]
    fn a_prefix_that_is_no_directory_takes_those_below_it_along() {
        let one = |to: &str, from: &str| vec![(to.to_owned(), from.to_owned(), 1)];
        assert_eq!(moved("/a", "/b", &["/a", "/a1", "/a/x"]), one("/b/", "/a/"));
        assert_eq!(moved("/a/", "/b", &["/a/x", "/a/s/y"]), one("/bs/", "/a/s/"));
        assert_eq!(moved("/a", "/b/", &["/a/x"]), one("/b//", "/a/"));
    }
}
