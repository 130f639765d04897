//! Damaged files: refused with their name and the place of the damage, or cut where nothing that was
//! acknowledged stood. Never a panic, never a silent loss, never a silent fresh start.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use revfs_tests::Mount;
use revfs_tests::dice::Dice;

const FILES: u64 = 60;

/// A stopped or killed store with known content.
fn filled(clean: bool) -> Mount {
    let mut mount = Mount::up();
    mount
        .ok(&format!("for i in $(seq {FILES}); do echo content-$i > f$i; done; mkdir d; cp f1 d/"));
    if clean {
        mount.stop();
    } else {
        mount.kill();
    }
    mount
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("the data directory lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The mark of an orderly stop, beside the segments.
const CLEAN: &str = "clean";

/// The segments of the log that hold groups.
fn log_files(mount: &Mount) -> Vec<PathBuf> {
    let found: Vec<_> = files_below(mount.data())
        .into_iter()
        .filter(|path| path.parent().is_some_and(|dir| dir.ends_with("log")))
        .filter(|path| !path.ends_with(CLEAN) && last_byte(path).is_some())
        .collect();
    assert!(!found.is_empty(), "no log in {:?}", files_below(mount.data()));
    found
}

fn store_file(mount: &Mount) -> PathBuf {
    files_below(mount.data())
        .into_iter()
        .find(|path| path.ends_with("data.mdb"))
        .unwrap_or_else(|| panic!("no data.mdb in {:?}", files_below(mount.data())))
}

/// The position of the last byte that is not zero: segments are allocated in advance.
fn last_byte(path: &Path) -> Option<u64> {
    let content = fs::read(path).expect("a file of the store");
    content.iter().rposition(|&byte| byte != 0).map(|at| u64::try_from(at).expect("small"))
}

fn flip(path: &Path, offset: u64, bit: u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a file of the store");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("an offset within");
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, offset).expect("a flipped bit");
}

fn zero(path: &Path, offset: u64, bytes: usize) {
    let file = OpenOptions::new().write(true).open(path).expect("a file of the store");
    file.write_all_at(&vec![0; bytes], offset).expect("a zeroed page");
}

/// A refusal names the file and a place in it.
fn assert_names(said: &str, file: &Path) {
    let name = file.file_name().expect("a file's name").to_string_lossy();
    assert!(said.contains(&*name), "names {name}: {said}");
    assert!(said.contains("offset") || said.contains("page"), "names the place: {said}");
}

fn content_is_whole(mount: &Mount) {
    for number in 1..=FILES {
        let read = fs::read_to_string(mount.path(&format!("f{number}")));
        assert_eq!(read.ok(), Some(format!("content-{number}\n")), "f{number}");
    }
}

/// Every acknowledged write is there, or the program refused: nothing between.
fn refuses_or_has_everything(mount: &mut Mount, what: &str, file: &Path) -> bool {
    if mount.starts_or_refuses() {
        content_is_whole(mount);
        mount.kill();
        return false;
    }
    let said = mount.log();
    println!("{what}: {}", said.trim_end());
    assert_names(&said, file);
    true
}

#[test]
fn a_flipped_bit_in_a_group_that_was_synced_is_refused_with_file_and_offset() {
    let mut dice = Dice::new("a_flipped_bit_in_a_group");
    let mut mount = filled(true);
    let file = log_files(&mount).pop().expect("a log file");
    let end = last_byte(&file).expect("groups");
    let mut refused = 0;
    for _ in 0..12 {
        let (offset, bit) = (dice.below(end + 1), u8::try_from(dice.below(8)).expect("below 8"));
        flip(&file, offset, bit);
        let what = format!("bit {bit} at {offset} of {}", file.display());
        refused += u64::from(refuses_or_has_everything(&mut mount, &what, &file));
        flip(&file, offset, bit);
    }
    assert!(refused > 0, "no flipped bit was noticed");
    mount.start();
    content_is_whole(&mount);
}

/// The end of the log that a clean stop marked cannot be cut as a torn tail.
#[test]
fn a_log_cut_behind_a_clean_stop_is_refused() {
    let mut mount = filled(true);
    let file = log_files(&mount).pop().expect("a log file");
    let end = last_byte(&file).expect("groups");
    let content = fs::read(&file).expect("a log file");
    for cut in [1, 200, end / 2] {
        let kept = usize::try_from(end + 1 - cut).expect("small");
        fs::write(&file, &content[..kept]).expect("a cut tail");
        let refused = refuses_or_has_everything(&mut mount, &format!("{cut} bytes cut"), &file);
        assert!(refused || cut < 200, "{cut} bytes of a marked end are missing, unnoticed");
        fs::write(&file, &content).expect("as it was");
    }
    mount.start();
    content_is_whole(&mount);
}

/// What was being written when the machine died was never acknowledged: it is cut, and said.
#[test]
fn a_torn_tail_is_cut() {
    let mut mount = filled(false);
    let file = log_files(&mount).pop().expect("a log file");
    let end = last_byte(&file).expect("groups");
    let open = OpenOptions::new().write(true).open(&file).expect("a log file");
    // Half a group of garbage after the last whole one.
    let start = (end + 1).next_multiple_of(512);
    open.write_all_at(&[0xA5; 300], start).expect("a torn group");
    drop(open);
    mount.start();
    content_is_whole(&mount);
    mount.ok("echo more > more");
    mount.crash();
    assert_eq!(mount.ok("cat more"), "more");
}

#[test]
fn a_damaged_mark_of_an_orderly_stop_is_refused_with_file_and_offset() {
    let mut mount = filled(true);
    let file = mount.data().join("log").join(CLEAN);
    let end = last_byte(&file).expect("an orderly stop leaves its mark");
    for offset in 0..=end {
        flip(&file, offset, 3);
        let what = format!("bit 3 at {offset} of the mark");
        assert!(refuses_or_has_everything(&mut mount, &what, &file), "{what} was not noticed");
        flip(&file, offset, 3);
    }
    mount.start();
    content_is_whole(&mount);
}

#[test]
fn a_zeroed_page_in_the_log_is_refused() {
    let mut mount = filled(true);
    let file = log_files(&mount).pop().expect("a log file");
    let end = last_byte(&file).expect("groups");
    let content = fs::read(&file).expect("a log file");
    for offset in (0..end).step_by(4096).take(6) {
        zero(&file, offset, 4096);
        let what = format!("zeroed page at {offset}");
        assert!(refuses_or_has_everything(&mut mount, &what, &file), "{what} was not noticed");
        fs::write(&file, &content).expect("as it was");
    }
    mount.start();
    content_is_whole(&mount);
}

#[test]
fn a_missing_log_is_refused() {
    let mut mount = filled(true);
    for file in log_files(&mount) {
        fs::rename(&file, mount.beside("taken")).expect("our own file");
        let said = mount.refuses();
        assert!(said.contains("log"), "{said}");
        fs::rename(mount.beside("taken"), &file).expect("our own file");
    }
    mount.start();
    content_is_whole(&mount);
}

#[test]
fn a_damaged_store_file_is_refused_with_its_name() {
    let mut mount = filled(true);
    let file = store_file(&mount);
    let content = fs::read(&file).expect("LMDB's file");
    let size = u64::try_from(content.len()).expect("small");
    // Both meta pages; then every page; then the tail; then everything.
    let damages: [(&str, u64, u64); 3] = [
        ("both meta pages zeroed", 0, 8192),
        ("all pages zeroed but the metas", 8192, size),
        ("all", 0, size),
    ];
    for (what, from, to) in damages {
        zero(&file, from, usize::try_from(to - from).expect("small"));
        let said = mount.refuses();
        println!("{what}: {}", said.trim_end());
        assert!(said.contains("data.mdb") || said.contains("store-"), "{what}: {said}");
        fs::write(&file, &content).expect("as it was");
    }
    fs::write(&file, &content[..content.len() / 2]).expect("cut in half");
    let said = mount.refuses();
    assert!(said.contains("data.mdb") || said.contains("store-"), "cut in half: {said}");
    fs::write(&file, b"").expect("emptied");
    let said = mount.refuses();
    assert!(said.contains("data.mdb") || said.contains("store-"), "emptied: {said}");
    fs::write(&file, &content).expect("as it was");
    mount.start();
    content_is_whole(&mount);
}

/// A flipped bit in a page of LMDB is noticed, or touches nothing that is read.
#[test]
fn a_zeroed_page_in_the_store_file_gives_no_wrong_data() {
    let mut mount = filled(true);
    let file = store_file(&mount);
    let content = fs::read(&file).expect("LMDB's file");
    let pages = content.len() / 4096;
    for page in (2..pages).step_by(pages / 12 + 1) {
        let offset = u64::try_from(page * 4096).expect("small");
        zero(&file, offset, 4096);
        if mount.starts_or_refuses() {
            for number in 1..=FILES {
                // An error is an answer; other bytes are not.
                if let Ok(read) = fs::read_to_string(mount.path(&format!("f{number}"))) {
                    assert_eq!(read, format!("content-{number}\n"), "page {page} zeroed");
                }
            }
            mount.kill();
        }
        let said = mount.log();
        assert!(!said.contains("panicked at"), "page {page} zeroed: {said}");
        fs::write(&file, &content).expect("as it was");
    }
    mount.start();
    content_is_whole(&mount);
}

#[test]
fn a_data_directory_of_another_format_version_is_refused() {
    let mut mount = filled(true);
    let marker = files_below(mount.data())
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.eq_ignore_ascii_case("format")));
    let Some(marker) = marker else {
        panic!("no file tells the format version in {:?}", files_below(mount.data()));
    };
    let text = fs::read_to_string(&marker).expect("the format version is text");
    let other = text.replace('1', "99");
    assert_ne!(text, other, "{text}");
    fs::write(&marker, &other).expect("another version");
    let said = mount.refuses();
    assert!(said.contains("format") && said.contains("99"), "{said}");
    fs::write(&marker, &text).expect("as it was");
    mount.start();
    content_is_whole(&mount);
}

/// Losing a part of the data directory is not the same as having none.
#[test]
fn a_data_directory_without_its_store_is_no_fresh_start() {
    let mut mount = filled(true);
    let file = store_file(&mount);
    fs::rename(&file, mount.beside("taken")).expect("our own file");
    let said = mount.refuses();
    assert!(said.contains("data.mdb") || said.contains("store-"), "{said}");
    fs::rename(mount.beside("taken"), &file).expect("our own file");
    mount.start();
    content_is_whole(&mount);
}
