//! tidy: the rules of docs/STYLE.md that a machine can check.
//!
//! A rule is a function from text to violations and knows no files; the tests here feed it the files
//! that git knows. Beside each rule stands a planted violation, which proves that it can fail.

#[path = "tidy/crate_rules.rs"]
mod crate_rules;
#[path = "tidy/document_rules.rs"]
mod document_rules;
#[path = "tidy/layout_rules.rs"]
mod layout_rules;
#[path = "tidy/source_rules.rs"]
mod source_rules;

use std::path::Path;
use std::process::Command;

use revfs_tests::program::workspace;
use sha2::{Digest as _, Sha256};

/// Files that may have more than 500 lines before their tests, each with its reason. No file may have
/// more than 800.
const LONG_FILES: &[(&str, &str)] = &[(
    "cluster/api/src/keyspace.rs",
    "one contract, read as one page: the trait and the plain types of its questions and answers",
)];

/// A file of the project: its path from the root, and its content if it is text.
struct File {
    path: String,
    text: String,
    bytes: u64,
}

/// Every file that git knows or would add.
fn files() -> Vec<File> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace())
        .output()
        .expect("tidy needs git: apt-get install -y git");
    assert!(output.status.success(), "tidy runs in a clone: {output:?}");
    let mut paths: Vec<String> = output
        .stdout
        .split(|&byte| byte == 0)
        .filter(|path| !path.is_empty())
        .map(|path| String::from_utf8_lossy(path).into_owned())
        .filter(|path| workspace().join(path).is_file())
        .collect();
    paths.sort();
    paths.dedup();
    assert!(paths.len() > 10, "git lists the files of the project: {paths:?}");
    paths.into_iter().map(read).collect()
}

fn read(path: String) -> File {
    let content = std::fs::read(workspace().join(&path)).expect("a listed file is readable");
    let bytes = u64::try_from(content.len()).expect("a file fits in memory");
    File { path, text: String::from_utf8(content).unwrap_or_default(), bytes }
}

fn with_extension(extension: &str) -> Vec<File> {
    files()
        .into_iter()
        .filter(|file| Path::new(&file.path).extension().is_some_and(|own| own == extension))
        .collect()
}

/// Applies a rule to files and fails with everything that it found.
fn check(files: &[File], rule: impl Fn(&File) -> Vec<String>) {
    assert!(!files.is_empty(), "a rule without files proves nothing");
    fail_on(&files.iter().flat_map(rule).collect::<Vec<_>>());
}

fn fail_on(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn every_source_file_begins_with_the_model_it_keeps() {
    check(&with_extension("rs"), |file| source_rules::head(&file.path, &file.text));
}

#[test]
fn no_file_is_a_drawer() {
    check(&files(), |file| layout_rules::drawer_name(&file.path));
}

#[test]
fn files_stay_short() {
    check(&with_extension("rs"), |file| source_rules::length(&file.path, &file.text, LONG_FILES));
    let sources = with_extension("rs");
    fail_on(&source_rules::stale_exceptions(
        LONG_FILES,
        &sources.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect::<Vec<_>>(),
    ));
}

#[test]
fn nothing_unfinished_is_kept() {
    check(&with_extension("rs"), |file| source_rules::unfinished(&file.path, &file.text));
}

#[test]
fn tests_wait_for_states_and_none_is_switched_off() {
    check(&with_extension("rs"), |file| source_rules::waits(&file.path, &file.text));
    check(&with_extension("rs"), |file| source_rules::ignored(&file.path, &file.text));
}

#[test]
fn no_source_file_is_forgotten() {
    let sources = with_extension("rs");
    let pairs: Vec<_> =
        sources.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect();
    fail_on(&layout_rules::forgotten(&pairs));
}

#[test]
fn openraft_stays_behind_its_files() {
    check(&with_extension("rs"), |file| source_rules::openraft(&file.path, &file.text));
}

#[test]
fn dependencies_point_one_way() {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(workspace().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo knows the workspace");
    // Tests of the cluster plant a difference in a store's file, behind the store's back.
    let plants = |from: &str, to: &cargo_metadata::Dependency| {
        to.kind == cargo_metadata::DependencyKind::Development
            && (from, to.name.as_str()) == ("revfs-cluster", "heed")
    };
    let arrows: Vec<_> = metadata
        .packages
        .iter()
        .flat_map(|package| {
            let known = package.dependencies.iter().filter(|to| !plants(&package.name, to));
            known.map(|to| (package.name.to_string(), to.name.clone()))
        })
        .collect();
    assert!(arrows.len() > 10, "cargo lists dependencies: {arrows:?}");
    fail_on(&crate_rules::arrows(&arrows));
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let manifests: Vec<_> =
        files().into_iter().filter(|file| file.path.ends_with("/Cargo.toml")).collect();
    assert!(manifests.len() >= 6, "six crates at least");
    check(&manifests, |file| crate_rules::lints(&file.path, &file.text));
}

#[test]
fn the_top_level_stays_as_it_was_drawn() {
    check(&files(), |file| layout_rules::top_level(&file.path));
}

#[test]
fn no_blob_is_kept() {
    check(&files(), |file| layout_rules::size(&file.path, file.bytes));
}

#[test]
fn documents_have_one_title_and_no_dead_link() {
    let known: Vec<String> = files().into_iter().map(|file| file.path).collect();
    check(&with_extension("md"), |file| document_rules::title(&file.path, &file.text));
    check(&with_extension("md"), |file| document_rules::links(&file.path, &file.text, &known));
}

#[test]
fn every_document_is_reached_from_the_architecture() {
    let documents: Vec<_> = files()
        .into_iter()
        .filter(|file| file.path.starts_with("docs/"))
        .map(|file| (file.path, file.text))
        .collect();
    fail_on(&document_rules::unreached("docs/ARCHITECTURE.md", &documents));
}

#[test]
fn the_format_document_knows_the_schema() {
    let text = |path: &str| {
        std::fs::read_to_string(workspace().join(path))
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let hash: String = Sha256::digest(text("store/src/schema.rs"))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    fail_on(&document_rules::schema_hash(&text("docs/FORMAT.md"), &hash));
}
