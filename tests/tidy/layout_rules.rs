//! Rules over names, places and sizes of files.

use std::path::Path;

/// What stands at the top, besides dot files.
const TOP: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "fs",
    "store",
    "cluster",
    "mount-helper",
    "tests",
    "docs",
    "README.md",
    "LICENSE",
];

/// Names that say "everything that had no place".
const DRAWERS: [&str; 8] =
    ["utils", "util", "common", "helper", "helpers", "misc", "manager", "managers"];

/// The largest file that history should carry.
const BYTES_MAX: u64 = 256 * 1024;

pub(crate) fn top_level(path: &str) -> Vec<String> {
    let first = path.split('/').next().unwrap_or_default();
    if first.starts_with('.') || TOP.contains(&first) {
        return Vec::new();
    }
    vec![format!("{path}: the top level is {}, and dot files", TOP.join(" "))]
}

/// Neither a file nor a folder is named after having no subject.
pub(crate) fn drawer_name(path: &str) -> Vec<String> {
    Path::new(path)
        .iter()
        .filter_map(|part| Path::new(part).file_stem().and_then(|stem| stem.to_str()))
        .filter(|stem| DRAWERS.contains(stem))
        .map(|stem| format!("{path}: `{stem}` is a drawer: name the file after what it is about"))
        .collect()
}

pub(crate) fn size(path: &str, bytes: u64) -> Vec<String> {
    if bytes <= BYTES_MAX {
        return Vec::new();
    }
    vec![format!("{path}: {bytes} bytes, at most {BYTES_MAX}: generate it, or keep it elsewhere")]
}

/// A source file that no `mod` names is neither compiled nor tested. `files`: (path, text) of every
/// Rust file.
pub(crate) fn forgotten(files: &[(&str, &str)]) -> Vec<String> {
    files
        .iter()
        .filter(|(path, _)| !is_root(path) && !is_named(path, files))
        .map(|(path, _)| format!("{path}: no `mod` names it: it is neither compiled nor tested"))
        .collect()
}

/// Files that cargo starts from.
fn is_root(path: &str) -> bool {
    const NAMES: [&str; 3] = ["/lib.rs", "/main.rs", "/build.rs"];
    const FOLDERS: [&str; 4] = ["/src/bin/", "/tests/", "/benches/", "/examples/"];
    let directly_in =
        |folder: &str| path.rsplit_once(folder).is_some_and(|(_, rest)| !rest.contains('/'));
    NAMES.iter().any(|name| path.ends_with(name))
        || FOLDERS.iter().any(|folder| directly_in(folder))
        || path == "tests/tidy.rs"
}

/// Whether a file of the folder, or the one above it, declares the module.
fn is_named(path: &str, files: &[(&str, &str)]) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let module = name.strip_suffix(".rs").unwrap_or(name);
    let declaration = format!("mod {module};");
    files.iter().any(|(own, text)| {
        let beside = own.rsplit_once('/').is_some_and(|(own_folder, _)| own_folder == folder);
        let above = *own == format!("{folder}.rs");
        (beside || above) && text.lines().any(|line| declares(line, &declaration))
    })
}

fn declares(line: &str, declaration: &str) -> bool {
    let line = line.trim();
    let visible = |rest: &str| rest.is_empty() || rest == "pub" || rest.starts_with("pub(");
    line.strip_suffix(declaration).is_some_and(|rest| visible(rest.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, drawer_name, forgotten, size, top_level};

    #[test]
    fn a_new_top_level_name_is_found() {
        assert_eq!(top_level("CHANGELOG.md").len(), 1);
        assert_eq!(top_level("scripts/build.sh").len(), 1);
        assert_eq!(top_level("docs/CHANGELOG.md").len(), 0);
        assert_eq!(top_level(".clippy.toml").len(), 0);
        assert_eq!(top_level("store/src/lib.rs").len(), 0);
    }

    #[test]
    fn a_drawer_is_found_as_file_and_as_folder() {
        assert_eq!(drawer_name("fs/src/utils.rs").len(), 1);
        assert_eq!(drawer_name("fs/src/helpers/a.rs").len(), 1);
        assert_eq!(drawer_name("mount-helper/src/main.rs").len(), 0);
    }

    #[test]
    fn a_blob_is_found() {
        assert_eq!(size("a.bin", BYTES_MAX + 1).len(), 1);
        assert_eq!(size("a.bin", BYTES_MAX).len(), 0);
    }

    #[test]
    fn a_forgotten_file_is_found() {
        let files = [
            ("tests/suite/main.rs", "mod commits;\n"),
            ("tests/suite/commits.rs", ""),
            ("tests/suite/lost.rs", ""),
            ("store/src/lib.rs", "pub mod store;\n"),
            ("store/src/store.rs", "pub(crate) mod page;\n// mod ghost;\n"),
            ("store/src/store/page.rs", ""),
            ("store/src/store/ghost.rs", ""),
        ];
        let found = forgotten(&files);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("tests/suite/lost.rs"));
        assert!(found[1].starts_with("store/src/store/ghost.rs"));
    }
}
