//! Documents that are true: the tour of README.md runs as written, and each promise of
//! docs/SEMANTICS.md names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use revfs_tests::program::workspace;
use revfs_tests::{Shell, mount};
use tempfile::TempDir;

fn document(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The fenced block that follows a heading.
fn block_under<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "README.md has no `{heading}`");
    lines
        .skip_while(|line| !line.starts_with("```"))
        .skip(1)
        .take_while(|line| !line.starts_with("```"))
        .collect()
}

/// Ends what the tour started, also when it fails.
struct Home(TempDir);

impl Drop for Home {
    fn drop(&mut self) {
        let dir = self.0.path().join("revfs");
        if mount::is_mount_point(&dir) {
            let line = format!("revfs umount {}", dir.display());
            Shell::new(Path::new("/")).run(&line).code();
            mount::detach(&dir);
        }
    }
}

/// Eleven commands, as a reader would type them, in a home directory of their own.
#[test]
fn the_tour_of_the_readme_runs_as_written() {
    let readme = document("README.md");
    let tour = block_under(&readme, "## A tour");
    let commands: Vec<&str> =
        tour.iter().copied().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(commands.len(), 11, "eleven commands: {commands:#?}");
    let home = Home(TempDir::with_prefix("revfs-tour-").expect("a home"));
    let shell = Shell::new(home.0.path()).variable("HOME", home.0.path());
    shell.run("revfs up ~/revfs --data-dir ~/data --daemon").ok();
    // One shell, as the reader's: directories and variables last from line to line.
    let mut script = "set -euo pipefail\n".to_owned();
    for command in &commands {
        script.push_str(&format!("echo {CUT}\n{command}\n"));
    }
    let output = shell.run(&script).ok();
    let outputs: Vec<&str> = output.split(CUT).skip(1).collect();
    for (command, output) in commands.iter().zip(outputs) {
        println!("$ {command}{output}");
        if let Some((_, promised)) = command.split_once("  # ") {
            assert!(output.contains(promised.trim()), "`{command}` printed {output}");
        }
    }
    shell.run("revfs umount ~/revfs").ok();
}

/// Stands between the outputs of two commands of the tour.
const CUT: &str = "---- next command ----";

/// The names in backquotes in paragraphs that begin with "Tests:".
fn named_tests(text: &str) -> Vec<&str> {
    text.split("\n\n")
        .flat_map(|paragraph| paragraph.split("Tests: ").skip(1))
        .flat_map(|names| names.split('`').skip(1).step_by(2))
        .collect()
}

/// `theme::test` for each test function of the suite, and of the crates by their file.
fn existing_tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in [
        "tests/suite",
        "tests/posixsuite",
        "fs/src",
        "fs/tests",
        "store/src",
        "store/tests",
        "cluster/src",
        "cluster/tests",
        "mount-helper/src",
        "mount-helper/tests",
    ] {
        collect_tests(&workspace().join(folder), &mut found);
    }
    found
}

fn collect_tests(dir: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect_tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let theme = path.file_stem().expect("a file's name").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("a source file");
            found.extend(tests_in(&text).map(|test| format!("{theme}::{test}")));
        }
    }
}

fn tests_in(text: &str) -> impl Iterator<Item = &str> {
    let mut marked = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        let name = line
            .strip_prefix("fn ")
            .or_else(|| line.strip_prefix("async fn "))
            .and_then(|rest| rest.split('(').next());
        let found = name.filter(|_| marked);
        marked = line.contains("#[test]")
            || line.contains("::test]")
            || line.contains("::test(")
            || (marked && (line.starts_with("#[") || line.starts_with("//")));
        found
    })
}

#[test]
fn every_promise_names_tests_that_exist() {
    let semantics = document("docs/SEMANTICS.md");
    let existing = existing_tests();
    let named = named_tests(&semantics);
    assert!(named.len() > 20, "promises name their tests: {named:?}");
    let missing: Vec<_> = named.iter().filter(|name| !existing.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/SEMANTICS.md names tests that are not there: {missing:?}");
    for section in semantics.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        assert!(section.contains("Tests: "), "the promise `{title}` names no test");
    }
}

#[test]
fn a_promise_without_a_test_would_be_found() {
    let text = "## A\n\nTests: `posix::no_such_test`,\n`posix::statfs_tells_of_the_store`\n";
    assert_eq!(named_tests(text), ["posix::no_such_test", "posix::statfs_tells_of_the_store"]);
    assert!(!existing_tests().contains("posix::no_such_test"));
    assert!(existing_tests().contains("posix::statfs_tells_of_the_store"));
}
