//! pjdfstest on a mount. Every one of its tests passes, or stands in a list with the reason why it cannot: one that
//! is listed and passes fails here, as does one that fails or is skipped and is not listed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use revfs_tests::{Mount, tools};

/// All of it takes ten seconds on a quiet machine.
const LIMIT: Duration = Duration::from_secs(600);

/// Fewer tests than this were not the suite.
const TESTS_MIN: usize = 390;

/// Why tests fail on revfs, and which.
const REFUSED: &[(&str, &[&str])] = &[
    (
        "There are no hard links: they are refused, never faked.",
        &[
            "link::changed_ctime_success::block",
            "link::changed_ctime_success::char",
            "link::changed_ctime_success::fifo",
            "link::changed_ctime_success::regular",
            "link::changed_ctime_success::socket",
            "link::remove_link::block",
            "link::remove_link::char",
            "link::remove_link::fifo",
            "link::remove_link::regular",
            "link::remove_link::socket",
            "link::share_metadata::block",
            "link::share_metadata::char",
            "link::share_metadata::fifo",
            "link::share_metadata::regular",
            "link::share_metadata::socket",
            "rename::preserve_metadata::block",
            "rename::preserve_metadata::char",
            "rename::preserve_metadata::fifo",
            "rename::preserve_metadata::regular",
            "rename::preserve_metadata::socket",
            "rename::to_multiply_linked::block",
            "rename::to_multiply_linked::char",
            "rename::to_multiply_linked::fifo",
            "rename::to_multiply_linked::regular",
            "rename::to_multiply_linked::socket",
            "unlink::unchanged_ctime_failed::block",
            "unlink::unchanged_ctime_failed::char",
            "unlink::unchanged_ctime_failed::fifo",
            "unlink::unchanged_ctime_failed::regular",
            "unlink::unchanged_ctime_failed::socket",
            "unlink::update_ctime_success::block",
            "unlink::update_ctime_success::char",
            "unlink::update_ctime_success::fifo",
            "unlink::update_ctime_success::regular",
            "unlink::update_ctime_success::socket",
        ],
    ),
    (
        "They begin with a file whose path has 4,095 bytes, and a key has 1,900 at most.",
        &[
            "chmod::enametoolong_path",
            "chown::enametoolong_path",
            "chown::lchown::enametoolong_path",
            "link::enametoolong_path",
            "mkdir::enametoolong_path",
            "mkfifo::enametoolong_path",
            "mknod::enametoolong_path",
            "mknod::privileged::enametoolong_path",
            "open::enametoolong_path",
            "rename::enametoolong_path",
            "rmdir::enametoolong_path",
            "symlink::enametoolong_path",
            "truncate::enametoolong_path",
            "unlink::enametoolong_path",
        ],
    ),
    (
        "Access times are not kept.",
        &[
            "utimensat::changes_timestamps::block",
            "utimensat::changes_timestamps::char",
            "utimensat::changes_timestamps::dir",
            "utimensat::changes_timestamps::fifo",
            "utimensat::changes_timestamps::regular",
            "utimensat::changes_timestamps::socket",
            "utimensat::follow_symlink",
            "utimensat::subsecond",
            "utimensat::utime_omit",
            "utimensat::y2038",
        ],
    ),
    ("A value has 16 MiB at most.", &["open::interact_2gb"]),
    (
        "A directory says that it has one link, as on other file systems that do not count subdirectories.",
        &["rename::updates_link_parent"],
    ),
    (
        "Closing a file that was just made commits it, and its times are those of the commit.",
        &["ftruncate::unchanged_ctime_failed"],
    ),
];

/// Why tests are skipped, and which.
const SKIPPED: &[(&str, &[&str])] =
    &[("The kernel does not say how many links a file may have.", &["link::link_count_max"])];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

#[test]
fn every_test_of_pjdfstest_passes_or_is_known_not_to() {
    tools::need_root("pjdfstest becomes other users and makes devices");
    let mut outcomes = run(false, "");
    // Apart from the others, which leave files open for writing: no file system becomes read-only then.
    let remounted = run(true, "erofs");
    assert!(!remounted.is_empty(), "no test of a file system that is read-only");
    outcomes.extend(remounted);
    assert!(outcomes.len() >= TESTS_MIN, "only {} tests: {outcomes:?}", outcomes.len());
    let wrong = surprises(&outcomes, REFUSED, SKIPPED);
    assert!(wrong.is_empty(), "{} surprises:\n{}", wrong.len(), wrong.join("\n"));
}

/// Runs the tests whose name contains `pattern` on a new mount.
fn run(allow_remount: bool, pattern: &str) -> BTreeMap<String, Outcome> {
    tools::need(&["mount"]);
    let program = tools::installed("pjdfstest");
    let mount = Mount::up();
    let elsewhere = mount.beside("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a directory beside the mount");
    let configuration = format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nutime_now = {{}}\n\
         utimensat = {{}}\nsecondary_fs = {elsewhere:?}\n\
         [settings]\nnaptime = 0.01\nallow_remount = {allow_remount}\n\
         [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]\n"
    );
    std::fs::write(mount.beside("pjdfstest.toml"), configuration).expect("its configuration");
    // `mount -o remount,ro` would leave it to FUSE's helper, which mounts anew; `-i` asks the kernel.
    let remount = "mkdir \"$SCRATCH/bin\" && cd \"$SCRATCH/bin\" &&
        printf '#!/bin/sh\\nPATH=${PATH#*:} exec mount -i \"$@\"\\n' > mount && chmod +x mount";
    mount.ok(remount);
    let line = format!(
        "PATH=\"$SCRATCH/bin:$PATH\" {} -c \"$SCRATCH/pjdfstest.toml\" -p . {pattern} 2>&1",
        program.display()
    );
    // It fails where one of its tests does.
    let finished = mount.shell().limit(LIMIT).variable("NO_COLOR", "1").run(&line);
    let said = finished.said();
    println!("{said}");
    let outcomes = outcomes(&said);
    let told = summary(&said);
    let count = |wanted| outcomes.values().filter(|&&own| own == wanted).count();
    assert_eq!(
        told,
        Some((count(Outcome::Failed), count(Outcome::Skipped), count(Outcome::Passed))),
        "what was read of it is not its own summary: {said}"
    );
    outcomes
}

/// The tests and outcomes in what it has said: a line each, `NAME ok`.
fn outcomes(said: &str) -> BTreeMap<String, Outcome> {
    said.lines()
        .filter(|line| !line.starts_with(char::is_whitespace))
        .filter_map(|line| {
            let (name, outcome) = line.split_once(' ')?;
            let outcome = match outcome.trim() {
                "ok" => Outcome::Passed,
                "FAILED" => Outcome::Failed,
                "skipped" => Outcome::Skipped,
                _ => return None,
            };
            name.contains("::").then(|| (name.to_owned(), outcome))
        })
        .collect()
}

/// How many have failed, were skipped and have passed, as its last line says.
fn summary(said: &str) -> Option<(usize, usize, usize)> {
    let line = said.lines().rev().find_map(|line| line.strip_prefix("Summary: "))?;
    let number = |what: &str| {
        let part = line.split(", ").find(|part| part.ends_with(what))?;
        part.split(' ').next()?.parse().ok()
    };
    Some((number("failed")?, number("skipped")?, number("passed")?))
}

/// What the lists do not say, and what they say that is not so.
fn surprises(
    outcomes: &BTreeMap<String, Outcome>,
    refused: &[(&str, &[&str])],
    skipped: &[(&str, &[&str])],
) -> Vec<String> {
    let listed = |list: &[(&str, &[&str])], outcome: Outcome| {
        let names = list.iter().flat_map(|(_, names)| names.iter());
        names.map(|name| ((*name).to_owned(), outcome)).collect::<Vec<_>>()
    };
    let mut expected: BTreeMap<String, Outcome> = BTreeMap::new();
    let mut wrong = BTreeSet::new();
    for (name, outcome) in
        listed(refused, Outcome::Failed).into_iter().chain(listed(skipped, Outcome::Skipped))
    {
        if !outcomes.contains_key(&name) {
            wrong.insert(format!("{name}: listed, but there is no such test"));
        }
        if expected.insert(name.clone(), outcome).is_some() {
            wrong.insert(format!("{name}: listed twice"));
        }
    }
    for (name, &outcome) in outcomes {
        let expected = expected.get(name).copied().unwrap_or(Outcome::Passed);
        if outcome != expected {
            wrong.insert(format!("{name}: {outcome:?}, but should be {expected:?}"));
        }
    }
    wrong.into_iter().collect()
}

/// A list with one reason.
fn known<'a>(names: &'a [&'a str]) -> [(&'a str, &'a [&'a str]); 1] {
    [("a reason", names)]
}

#[test]
fn what_pjdfstest_says_is_read() {
    let said = "chmod::a                           ok\n\
                chmod::b::dir                      FAILED\n\
                \tassertion `left == right` failed: open::x ok\n  left: 1\n right: 2\n\
                link::c                            skipped\n\trequires a thing\n\n\
                Summary: 1 failed, 1 skipped, 1 passed, 0 expected failures, 3 total\n\
                Error: Some tests have failed\n";
    let outcomes = outcomes(said);
    let pairs: Vec<_> = outcomes.iter().map(|(name, &outcome)| (name.as_str(), outcome)).collect();
    assert_eq!(
        pairs,
        [
            ("chmod::a", Outcome::Passed),
            ("chmod::b::dir", Outcome::Failed),
            ("link::c", Outcome::Skipped)
        ]
    );
    assert_eq!(summary(said), Some((1, 1, 1)));

    assert!(surprises(&outcomes, &known(&["chmod::b::dir"]), &known(&["link::c"])).is_empty());
    assert_eq!(surprises(&outcomes, &[], &[]).len(), 2, "failed and skipped without a reason");
    let passes = known(&["chmod::a", "chmod::b::dir"]);
    assert_eq!(surprises(&outcomes, &passes, &known(&["link::c"])).len(), 1, "listed and passes");
    let gone = known(&["chmod::b::dir", "chmod::gone"]);
    assert_eq!(surprises(&outcomes, &gone, &known(&["link::c"])).len(), 1, "listed and gone");
}
