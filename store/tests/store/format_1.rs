//! A store that a program of format version 1 wrote is opened and read for ever.
//!
//! `testdata/format-1/data.mdb` is that store, `made.txt` how it was made, `read.txt` what it says and that
//! it still takes changes. While nothing is released, a change of the format makes it anew:
//! `REVFS_WRITE_FORMAT_1=1`, then `REVFS_UPDATE=1`. After the first release neither is done again.

use std::path::PathBuf;

use crate::script::{Scenario, run};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/format-1").join(name)
}

#[test]
fn a_store_of_format_version_1_is_read_and_changed() {
    let made = std::fs::read_to_string(file("made.txt")).unwrap();
    if std::env::var_os("REVFS_WRITE_FORMAT_1").is_some() {
        let mut scenario = Scenario::new();
        std::fs::write(file("made.txt"), run(&mut scenario, &made)).unwrap();
        let directory = scenario.close();
        std::fs::copy(directory.path().join("data.mdb"), file("data.mdb")).unwrap();
    } else {
        // The same commands give the same answers still.
        assert_eq!(run(&mut Scenario::new(), &made), made);
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(file("data.mdb"), directory.path().join("data.mdb")).unwrap();
    let expected = std::fs::read_to_string(file("read.txt")).unwrap();
    let found = run(&mut Scenario::open(directory), &expected);
    if std::env::var_os("REVFS_UPDATE").is_some() {
        std::fs::write(file("read.txt"), found).unwrap();
    } else {
        assert_eq!(found, expected);
    }
}
