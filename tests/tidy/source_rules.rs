//! Rules over the text of one Rust file.

/// Lines before `mod tests` that ask for an entry in the list of long files.
const LINES_ASKED: usize = 500;
/// Lines before `mod tests` that no reason excuses.
const LINES_MAX: usize = 800;

/// The one file, and the one function in it, that may sleep in tests.
const POLLING_FILE: &str = "tests/harness/wait.rs";
const POLLING_FUNCTION: &str = "fn poll_pause(";

/// A file begins with `//!`: what it keeps true.
pub(crate) fn head(path: &str, text: &str) -> Vec<String> {
    if text.starts_with("//! ") {
        return Vec::new();
    }
    vec![format!("{path}:1: begins without `//! `: say first what model the file keeps")]
}

/// Lines before the unit tests.
fn lines_before_tests(text: &str) -> usize {
    text.lines().take_while(|line| !line.starts_with("mod tests")).count()
}

/// Tests read as a list: only the upper bound holds for them.
fn holds_only_tests(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/suite/")
}

pub(crate) fn length(path: &str, text: &str, excused: &[(&str, &str)]) -> Vec<String> {
    let lines = lines_before_tests(text);
    let listed = excused.iter().any(|(own, _)| *own == path) || holds_only_tests(path);
    if lines > LINES_MAX {
        vec![format!("{path}: {lines} lines before its tests, at most {LINES_MAX}: cut it in two")]
    } else if lines > LINES_ASKED && !listed {
        vec![format!(
            "{path}: {lines} lines before its tests, over {LINES_ASKED}: cut it in two, or give \
             the reason in LONG_FILES of tests/tidy.rs"
        )]
    } else {
        Vec::new()
    }
}

/// An exception must still be needed.
pub(crate) fn stale_exceptions(excused: &[(&str, &str)], files: &[(&str, &str)]) -> Vec<String> {
    let long = |path: &str| {
        files.iter().any(|(own, text)| *own == path && lines_before_tests(text) > LINES_ASKED)
    };
    excused
        .iter()
        .filter(|(path, reason)| reason.is_empty() || !long(path))
        .map(|(path, _)| format!("LONG_FILES: {path} is not long (or has no reason): strike it"))
        .collect()
}

/// Words that mean "not finished", each with what to write instead. The last one passes with the
/// number of its issue behind it, in brackets.
pub(crate) fn unfinished(path: &str, text: &str) -> Vec<String> {
    let words = [
        (concat!("FIX", "ME"), "mend it now, or file an issue"),
        (concat!("XX", "X"), "say what is meant"),
        (concat!("dbg", "!"), "use tracing, or nothing"),
        (concat!("TO", "DO"), "name the issue in brackets, with its number"),
    ];
    numbered(text)
        .flat_map(|(number, line)| words.iter().map(move |word| (number, line, word)))
        .filter(|(_, line, (word, _))| contains_word(line, word))
        .map(|(number, _, (word, instead))| format!("{path}:{number}: `{word}`: {instead}"))
        .collect()
}

/// Whether the word stands alone, and not as a marked one: followed by `(#`.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + word.len()..];
        let joined = |letter: char| letter.is_alphanumeric() || letter == '_';
        !before.is_some_and(joined) && !after.starts_with(joined) && !after.starts_with("(#")
    })
}

/// Tests never sleep: they wait for a state, through the polling function of the harness.
pub(crate) fn waits(path: &str, text: &str) -> Vec<String> {
    let call = concat!("sleep", "(");
    let test_file = path.starts_with("tests/") || path.contains("/tests/");
    let mut in_tests = test_file;
    let mut polling_function = false;
    let mut violations = Vec::new();
    for (number, line) in numbered(text) {
        in_tests |= line.starts_with("mod tests");
        let excused = path == POLLING_FILE && polling_function;
        if in_tests && line.contains(call) && !excused {
            violations.push(format!(
                "{path}:{number}: `{call}`: wait for a state with a deadline (tests/harness/wait.rs)"
            ));
        }
        polling_function = line.starts_with(POLLING_FUNCTION);
    }
    violations
}

/// A test that is switched off is no test.
pub(crate) fn ignored(path: &str, text: &str) -> Vec<String> {
    let attribute = concat!("#[ig", "nore");
    numbered(text)
        .filter(|(_, line)| line.trim_start().starts_with(attribute))
        .map(|(number, _)| format!("{path}:{number}: `{attribute}`: mend the test or delete it"))
        .collect()
}

/// openraft is known only to its files in cluster/, and to the one that starts a node.
pub(crate) fn openraft(path: &str, text: &str) -> Vec<String> {
    const OWN: [&str; 2] = ["cluster/src/raft/", "cluster/src/node.rs"];
    if OWN.iter().any(|own| path.starts_with(own)) {
        return Vec::new();
    }
    let name = concat!("open", "raft::");
    numbered(text)
        .filter(|(_, line)| !line.trim_start().starts_with("//") && line.contains(name))
        .map(|(number, _)| {
            format!("{path}:{number}: `{name}`: only cluster/src/raft/ and node.rs know it")
        })
        .collect()
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
mod tests {
    use super::{head, ignored, length, openraft, stale_exceptions, unfinished, waits};

    #[test]
    fn head_finds_a_file_that_begins_with_code() {
        assert_eq!(head("a.rs", "use std::io;\n").len(), 1);
        assert_eq!(head("a.rs", "//! A model.\nuse std::io;\n").len(), 0);
    }

    #[test]
    fn length_asks_at_500_and_refuses_at_800() {
        let (long, longer) = ("x\n".repeat(501), "x\n".repeat(801));
        assert_eq!(length("a.rs", &"x\n".repeat(500), &[]).len(), 0);
        assert_eq!(length("a.rs", &long, &[]).len(), 1);
        assert_eq!(length("a.rs", &long, &[("a.rs", "a table")]).len(), 0);
        assert_eq!(length("a.rs", &longer, &[("a.rs", "a table")]).len(), 1);
        let tested = format!("x\nmod tests {{\n{longer}}}\n");
        assert_eq!(length("a.rs", &tested, &[]).len(), 0, "tests do not count");
        assert_eq!(length("fs/src/a/tests.rs", &long, &[]).len(), 0, "a list of tests");
        assert_eq!(length("fs/src/a/tests.rs", &longer, &[]).len(), 1);
    }

    #[test]
    fn an_exception_that_is_not_needed_is_found() {
        let long = "x\n".repeat(501);
        assert_eq!(stale_exceptions(&[("a.rs", "why")], &[("a.rs", "x\n")]).len(), 1);
        assert_eq!(stale_exceptions(&[("a.rs", "")], &[("a.rs", &long)]).len(), 1);
        assert_eq!(stale_exceptions(&[("a.rs", "why")], &[("a.rs", &long)]).len(), 0);
    }

    #[test]
    fn unfinished_finds_each_word_and_passes_what_only_looks_like_it() {
        for planted in [
            concat!("// FIX", "ME later"),
            concat!("// XX", "X"),
            concat!("dbg", "!(x);"),
            concat!("// TO", "DO: more"),
        ] {
            assert_eq!(unfinished("a.rs", planted).len(), 1, "{planted}");
        }
        for innocent in [
            concat!("// TO", "DO(#12): more"),
            concat!("let x = MASTO", "DON;"),
            concat!("XX", "XX"),
        ] {
            assert_eq!(unfinished("a.rs", innocent).len(), 0, "{innocent}");
        }
    }

    #[test]
    fn waits_finds_a_sleep_in_tests_only() {
        let line = concat!("    thread::sleep", "(second);\n");
        assert_eq!(waits("tests/suite/a.rs", line).len(), 1);
        assert_eq!(waits("store/tests/a.rs", line).len(), 1);
        assert_eq!(waits("store/src/a.rs", line).len(), 0);
        assert_eq!(waits("store/src/a.rs", &format!("mod tests {{\n{line}}}")).len(), 1);
        let polling = format!("fn poll_pause(pause: Duration) {{\n{line}}}\n{line}");
        assert_eq!(waits("tests/harness/wait.rs", &polling).len(), 1, "the second one");
        assert_eq!(waits("tests/harness/other.rs", &polling).len(), 2);
    }

    #[test]
    fn ignored_finds_a_test_that_is_switched_off() {
        assert_eq!(ignored("a.rs", concat!("    #[ig", "nore = \"slow\"]\n")).len(), 1);
        assert_eq!(ignored("a.rs", concat!("    #[ig", "nore]\n")).len(), 1);
        assert_eq!(ignored("a.rs", "    // ignore\n").len(), 0);
    }

    #[test]
    fn openraft_is_found_outside_its_files() {
        let line = concat!("use open", "raft::Raft;\n");
        assert_eq!(openraft("cluster/src/grpc/kv.rs", line).len(), 1);
        assert_eq!(openraft("tests/suite/a.rs", line).len(), 1);
        assert_eq!(openraft("cluster/src/raft/network.rs", line).len(), 0);
        assert_eq!(openraft("cluster/src/node.rs", line).len(), 0);
    }
}
