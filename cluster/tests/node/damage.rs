//! A damaged or incomplete data directory is refused with file and offset, never started anew.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use revfs_cluster::log::LogError;
use revfs_cluster::{Node, StartError};
use revfs_store::OpenError;

use crate::rig::{config, put, shut_down, start};

async fn filled(directory: &Path) {
    let node = start(directory).await;
    for round in 0..50 {
        put(&node.key_space(), &format!("/k{round}"), vec![b'v'; 2_000]).await.unwrap();
    }
    shut_down(node).await;
}

async fn refused(directory: &Path) -> StartError {
    Node::start(config(directory)).await.err().expect("the start is refused")
}

fn log_file(directory: &Path) -> PathBuf {
    fs::canonicalize(directory).unwrap().join("data/log/0000000001.log")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_log_is_refused_naming_file_and_offset() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let path = log_file(directory.path());
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    for at in [4_096, 5_000, 20_000, 60_000] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
        let error = refused(directory.path()).await;
        let StartError::Log(LogError::Corrupt { file: named, offset, .. }) = &error else {
            panic!("{at}: {error}")
        };
        assert_eq!(*named, path);
        assert!(*offset <= at && at - offset < 2_300, "{error}");
        let text = error.to_string();
        assert!(text.contains(&path.display().to_string()) && text.contains(&offset.to_string()));
        file.write_all_at(&byte, at).unwrap();
    }
    shut_down(start(directory.path()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_behind_the_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    // As after a crash: without the mark, a missing tail looks like a torn one.
    fs::remove_file(directory.path().join("data/log/clean")).unwrap();
    let path = log_file(directory.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[20_000..].fill(0);
    fs::write(&path, &bytes).unwrap();
    let error = refused(directory.path()).await;
    assert!(
        matches!(&error, StartError::Log(LogError::TooShort { file, .. }) if *file == path),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_refused_naming_file_and_offset() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    let path = directory.path().join("data/store-1/data.mdb");
    let mut bytes = fs::read(&path).unwrap();
    let page = bytes.len() / 4_096 / 2 * 4_096;
    bytes[page..].fill(0);
    fs::write(&path, &bytes).unwrap();
    let error = refused(directory.path()).await;
    assert!(matches!(&error, StartError::Store(OpenError::CorruptPage { .. })), "{error}");
    assert!(error.to_string().contains("data.mdb"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_part_is_refused_and_never_made_anew() {
    for part in ["log", "store-1", "CURRENT", "identity", "FORMAT"] {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path()).await;
        let (place, aside) =
            (directory.path().join("data").join(part), directory.path().join("aside"));
        fs::rename(&place, &aside).unwrap();
        let error = refused(directory.path()).await;
        assert!(matches!(error, StartError::Incomplete { .. }), "{part}: {error}");
        assert!(!place.exists(), "{part} was made anew");
        fs::rename(&aside, &place).unwrap();
        shut_down(start(directory.path()).await).await;
    }
    for (part, file) in [("log", "0000000001.log"), ("store-1", "data.mdb")] {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path()).await;
        fs::remove_file(directory.path().join("data").join(part).join(file)).unwrap();
        let error = refused(directory.path()).await;
        assert!(matches!(error, StartError::Log(_) | StartError::Store(_)), "{part}: {error}");
        assert!(!directory.path().join("data").join(part).join(file).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    fs::write(directory.path().join("data/FORMAT"), "2\n").unwrap();
    let error = refused(directory.path()).await;
    assert!(matches!(error, StartError::Format { known: 1, .. }), "{error}");
}
