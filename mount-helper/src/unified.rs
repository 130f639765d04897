//! A unified diff, as `diff -u` writes it, over bytes.

use std::io::Write as _;
use std::time::Duration;

use similar::TextDiff;

/// After this the rest of a diff is only approximated: correct, but longer than it need be.
const EFFORT: Duration = Duration::from_secs(5);

/// As far into a file as `diff` and `git` look for a NUL.
const BINARY_CHECK_BYTES: usize = 8_000;

/// One side of a diff.
pub(crate) struct Side<'a> {
    /// What follows `---` or `+++`: the name, and after a tab the time.
    pub(crate) label: &'a [u8],
    pub(crate) content: &'a [u8],
}

pub(crate) fn is_binary(content: &[u8]) -> bool {
    content[..content.len().min(BINARY_CHECK_BYTES)].contains(&0)
}

/// Header and hunks with `context` lines around; empty if the contents are equal.
pub(crate) fn unified(before: &Side<'_>, after: &Side<'_>, context: usize) -> Vec<u8> {
    let mut text = Vec::new();
    if before.content == after.content {
        return text;
    }
    for (mark, side) in [("---", before), ("+++", after)] {
        text.extend_from_slice(mark.as_bytes());
        text.push(b' ');
        text.extend_from_slice(side.label);
        text.push(b'\n');
    }
    // Lines end at \n only, as for `diff`; similar would end them at a lone \r as well.
    let (old, new) = (lines(before.content), lines(after.content));
    let diff = TextDiff::configure()
        .timeout(EFFORT)
        .newline_terminated(true)
        .diff_slices::<[u8]>(&old, &new);
    for hunk in diff.unified_diff().context_radius(context).iter_hunks() {
        let written = writeln!(text, "{}", hunk.header());
        written.expect("a Vec takes all");
        for change in hunk.iter_changes() {
            let mark = match change.tag() {
                similar::ChangeTag::Equal => b' ',
                similar::ChangeTag::Delete => b'-',
                similar::ChangeTag::Insert => b'+',
            };
            text.push(mark);
            text.extend_from_slice(change.value());
            if !change.value().ends_with(b"\n") {
                text.extend_from_slice(b"\n\\ No newline at end of file\n");
            }
        }
    }
    text
}

fn lines(content: &[u8]) -> Vec<&[u8]> {
    content.split_inclusive(|&byte| byte == b'\n').collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::process::Command;

    fn diff(before: &[u8], after: &[u8]) -> Vec<u8> {
        let side = |label: &'static [u8], content| Side { label, content };
        unified(&side(b"a/f", before), &side(b"b/f", after), 3)
    }

    #[test]
    fn it_is_what_diff_minus_u_prints() {
        let directory = tempfile::tempdir().unwrap();
        let cases: [(&[u8], &[u8]); 7] = [
            (b"one\ntwo\nthree\n", b"one\n2\nthree\n"),
            (b"", b"new\n"),
            (b"old\n", b""),
            (b"no newline", b"no newline\n"),
            (b"a\rb\n\xff\n", b"a\rc\n\xff\n"),
            (
                b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n",
                b"1\n2\n3\n4\nx\n6\n7\n8\n9\n10\n11\n12\ny",
            ),
            (b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n", b"x\n2\n3\n4\n5\n6\n7\n8\n9\ny\n"),
        ];
        for (before, after) in cases {
            std::fs::write(directory.path().join("old"), before).unwrap();
            std::fs::write(directory.path().join("new"), after).unwrap();
            let expected = Command::new("diff")
                .args(["-u", "--label", "a/f", "--label", "b/f", "old", "new"])
                .current_dir(directory.path())
                .output()
                .unwrap();
            let shown = String::from_utf8_lossy(&expected.stdout);
            assert_eq!(
                diff(before, after).escape_ascii().to_string(),
                expected.stdout.escape_ascii().to_string(),
                "{shown}"
            );
        }
    }

    #[test]
    fn equal_contents_give_no_header() {
        assert!(diff(b"same\n", b"same\n").is_empty());
    }

    #[test]
    fn a_nul_near_the_beginning_makes_a_file_binary() {
        assert!(is_binary(b"ELF\0"));
        assert!(!is_binary("größe\n".as_bytes()));
        let mut late = Vec::new();
        std::io::repeat(b'x').take(9_000).read_to_end(&mut late).unwrap();
        late.push(0);
        assert!(!is_binary(&late));
    }
}
