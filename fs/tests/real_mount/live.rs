//! A mount for one test, and a shell in it.

#![expect(clippy::unwrap_used, reason = "what fails here ends its test")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Op, Origin, Revision, Txn};
use revfs_fs::filesystem::MountOptions;
use revfs_fs::memory::Memory;
use revfs_fs::mount::{Mounted, mount};
use tokio::runtime::Runtime;

use super::counting::Counting;

/// Nothing here takes longer; a hung mount must not hang the tests.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Live {
    pub memory: Arc<Memory>,
    keys: Arc<Counting>,
    pub runtime: Runtime,
    mounted: Option<Mounted>,
    directory: tempfile::TempDir,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self::with(MountOptions::default())
    }

    pub(crate) fn with(options: MountOptions) -> Self {
        Self::of(Arc::new(Memory::new()), options)
    }

    /// A mount of a key space that others use too.
    pub(crate) fn of(memory: Arc<Memory>, options: MountOptions) -> Self {
        let runtime = Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let keys = Arc::new(Counting::new(Arc::clone(&memory)));
        let options = MountOptions { allow_other: true, ..options };
        let mounted = mount(
            Arc::clone(&keys) as Arc<dyn KeySpace>,
            directory.path(),
            options,
            runtime.handle().clone(),
        )
        .unwrap();
        let live = Self { memory, keys, runtime, mounted: Some(mounted), directory };
        live.wait_for("[ -e @status ] && grep -q '\"watching\": true' @status");
        live
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn mounted(&self) -> &Mounted {
        self.mounted.as_ref().expect("it is mounted until the test ends")
    }

    /// The mount, for a test that ends it otherwise.
    pub(crate) fn take_mounted(&mut self) -> Mounted {
        self.mounted.take().expect("it is taken once")
    }

    /// How often the mount has asked the key space.
    pub(crate) fn questions(&self) -> usize {
        self.keys.reads.load(Ordering::Relaxed)
    }

    /// Changes the key space as another machine would.
    pub(crate) fn put(&self, key: &str, value: &str) -> Revision {
        self.apply(vec![Op::put(key.as_bytes().to_vec(), value.as_bytes().to_vec())])
    }

    pub(crate) fn put_bytes(&self, key: &[u8], value: &[u8]) -> Revision {
        self.apply(vec![Op::put(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))])
    }

    pub(crate) fn delete(&self, key: &str) -> Revision {
        self.apply(vec![Op::delete(key.as_bytes().to_vec())])
    }

    pub(crate) fn apply(&self, success: Vec<Op>) -> Revision {
        let txn = Txn { success, ..Txn::default() };
        self.runtime.block_on(self.memory.txn(txn, Origin::default())).unwrap().revision
    }

    /// Waits until changes made elsewhere raise events.
    pub(crate) fn raises_events(&self) {
        self.wait_for("grep -q '\"events\": \"full\"' @status");
    }

    /// Waits until some process watches a file or directory of the mount with inotify.
    pub(crate) fn wait_for_watch(&self, path: &Path) {
        let path = path.display();
        self.wait_for(&format!(
            "ino=$(printf ino:%x $(stat -c %i '{path}')); \
             cat /proc/[0-9]*/fdinfo/* 2>/dev/null | grep -q \"^inotify.* $ino \""
        ));
    }

    /// Runs a script in the root of the mount.
    pub(crate) fn run(&self, script: &str) -> Output {
        Command::new("timeout")
            .arg(DEADLINE.as_secs().to_string())
            .args(["sh", "-c", &format!("cd '{}' && {script}", self.path().display())])
            .env("LC_ALL", "C")
            .output()
            .unwrap()
    }

    /// Runs a script that must succeed; returns what it printed.
    #[must_use]
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.run(script);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{script}`: {} {stderr}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a script that must fail; returns what it complained.
    #[must_use]
    pub(crate) fn sh_fails(&self, script: &str) -> String {
        let output = self.run(script);
        assert!(!output.status.success(), "`{script}` succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs a script, which always prints `expected`, until it costs at most so many questions: the
    /// notices of what was changed before may still be on their way.
    pub(crate) fn comes_to_cost(&self, script: &str, expected: &str, questions_max: usize) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let before = self.questions();
            assert_eq!(self.sh(script), expected);
            let questions = self.questions() - before;
            if questions <= questions_max {
                return;
            }
            assert!(Instant::now() < deadline, "`{script}` still costs {questions} questions");
        }
    }

    /// Waits until a script succeeds.
    pub(crate) fn wait_for(&self, script: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let output = self.run(script);
            if output.status.success() {
                return;
            }
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(Instant::now() < deadline, "`{script}` never succeeded: {stderr}");
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(mounted) = self.mounted.take() {
            self.runtime.block_on(mounted.unmount()).unwrap();
        }
    }
}
