//! Rules over documents: one title, links that lead somewhere, nothing that nobody finds, and a format
//! document that belongs to the code.

use std::collections::BTreeSet;

/// The lines outside of fenced blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

pub(crate) fn title(path: &str, text: &str) -> Vec<String> {
    let titles = prose(text).filter(|(_, line)| line.starts_with("# ")).count();
    let first = text.lines().next().is_some_and(|line| line.starts_with("# "));
    if titles == 1 && first {
        return Vec::new();
    }
    vec![format!("{path}: {titles} titles (`# …`): exactly one, in the first line")]
}

/// Targets of `[text](target)` in prose, without anchors, that are no addresses of the network.
fn relative_links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let Some(end) = rest.find(')') else { continue };
            let target = rest[..end].split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                links.push((number, target.to_owned()));
            }
        }
    }
    links
}

/// The path that a link in `path` leads to; `None` above the root.
fn resolve(path: &str, target: &str) -> Option<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// `known`: every path of the project. A link may lead to a file or to a folder.
pub(crate) fn links(path: &str, text: &str, known: &[String]) -> Vec<String> {
    let exists = |target: &str| {
        let folder = format!("{target}/");
        known.iter().any(|own| own == target || own.starts_with(&folder))
    };
    relative_links(text)
        .into_iter()
        .filter(|(_, target)| !resolve(path, target).is_some_and(|found| exists(&found)))
        .map(|(number, target)| format!("{path}:{number}: `{target}` leads nowhere"))
        .collect()
}

/// Documents that following links from `start` does not reach. `documents`: (path, text).
pub(crate) fn unreached(start: &str, documents: &[(String, String)]) -> Vec<String> {
    let mut reached = BTreeSet::new();
    let mut todo = vec![start.to_owned()];
    while let Some(path) = todo.pop() {
        let Some((_, text)) = documents.iter().find(|(own, _)| *own == path) else { continue };
        if reached.insert(path.clone()) {
            todo.extend(relative_links(text).iter().filter_map(|(_, to)| resolve(&path, to)));
        }
    }
    if reached.is_empty() {
        return vec![format!("{start} is missing")];
    }
    documents
        .iter()
        .filter(|(path, _)| !reached.contains(path))
        .map(|(path, _)| format!("{path}: no way leads here from {start}: link it"))
        .collect()
}

/// The format document names the hash of the code that it describes.
pub(crate) fn schema_hash(format: &str, hash: &str) -> Vec<String> {
    if format.contains(hash) {
        return Vec::new();
    }
    vec![format!(
        "docs/FORMAT.md does not name sha256 {hash} of store/src/schema.rs: read what changed there, \
         change the document with it, then the hash"
    )]
}

#[cfg(test)]
mod tests {
    use super::{links, schema_hash, title, unreached};

    #[test]
    fn a_second_title_is_found_and_a_comment_in_a_block_is_none() {
        assert_eq!(title("a.md", "# One\n\n# Two\n").len(), 1);
        assert_eq!(title("a.md", "text\n").len(), 1);
        assert_eq!(title("a.md", "text\n# Late\n").len(), 1);
        assert_eq!(title("a.md", "# One\n\n```sh\n# a comment\n```\n").len(), 0);
    }

    #[test]
    fn a_dead_link_is_found() {
        let known = ["docs/A.md".to_owned(), "README.md".to_owned(), "fs/src/lib.rs".to_owned()];
        for dead in ["[x](B.md)", "[x](../docs/B.md)", "[x](../../README.md)", "a [x](fs/) b"] {
            assert_eq!(links("docs/A.md", dead, &known).len(), 1, "{dead}");
        }
        for alive in
            ["[x](A.md#part)", "[x](../README.md)", "[x](../fs/src/)", "[x](https://e.org/B.md)"]
        {
            assert_eq!(links("docs/A.md", alive, &known).len(), 0, "{alive}");
        }
        assert_eq!(links("docs/A.md", "```\n[x](B.md)\n```\n", &known).len(), 0);
    }

    #[test]
    fn a_document_that_nobody_links_is_found() {
        let document = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        let documents = [
            document("docs/A.md", "[b](B.md)"),
            document("docs/B.md", "[deep](design/C.md)"),
            document("docs/design/C.md", "[a](../A.md)"),
            document("docs/LOST.md", "[a](A.md)"),
        ];
        let found = unreached("docs/A.md", &documents);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("docs/LOST.md"));
        assert_eq!(unreached("docs/NONE.md", &documents).len(), 1);
    }

    #[test]
    fn a_schema_that_changed_is_found() {
        assert_eq!(schema_hash("sha256 abc", "abd").len(), 1);
        assert_eq!(schema_hash("sha256 abc", "abc").len(), 0);
    }
}
