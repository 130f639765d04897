//! Random operations while transactions fail, before or after they took effect: whatever is told to
//! whom, no file is ever seen in a state that nobody wrote, and nothing stays staged for ever.

use std::collections::BTreeSet;
use std::sync::Arc;

use fuser::FileType;
use proptest::collection;
use proptest::prelude::{Just, Strategy, prop_oneof, proptest};
use revfs_api::keyspace::Error;

use super::model::{Step, step};
use super::{ANYBODY, Mount, Open};
use crate::memory::{FailureMoment, Memory};
use crate::ops::SetAttr;

#[derive(Clone, Debug)]
enum Fault {
    None,
    Transaction(FailureMoment, Error),
    Read(Error),
}

fn fault() -> impl Strategy<Value = Fault> {
    let unknown = || Error::OutcomeUnknown { reason: "lost".to_owned() };
    let no_space = || Error::NoSpace { reason: "full".to_owned() };
    let unavailable = || Error::Unavailable { reason: "away".to_owned() };
    prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::Transaction(FailureMoment::Before, unknown())),
        1 => Just(Fault::Transaction(FailureMoment::After, unknown())),
        1 => Just(Fault::Transaction(FailureMoment::Before, no_space())),
        1 => Just(Fault::Read(unavailable())),
    ]
}

struct Run<'a> {
    mount: &'a Mount,
    open: Vec<Open<'a>>,
    /// Every content that a program has seen whole.
    seen: BTreeSet<String>,
}

impl Run<'_> {
    async fn see(&mut self) {
        for open in &self.open {
            if let Ok(content) = open.read().await {
                self.seen.insert(content);
            }
        }
    }

    async fn close(&mut self, file: usize) {
        if file < self.open.len() {
            self.open.remove(file).close().await.ok();
        }
    }
}

impl<'a> Run<'a> {
    /// Does what can be done; the errors are another test's.
    async fn step(&mut self, step: &Step) {
        let mount = self.mount;
        match step {
            Step::Create { path, flags } => {
                self.open.extend(mount.create(path, *flags).await);
            }
            Step::Open { path, flags } => {
                self.open.extend(mount.open(path, *flags).await);
            }
            Step::Write { file, offset, content } => {
                if let Some(open) = self.open.get(*file) {
                    open.write((*offset).into(), content).await.ok();
                }
            }
            Step::Resize { file, size } => {
                if let Some(open) = self.open.get(*file) {
                    let handle = Some(open.handle);
                    let size = Some((*size).into());
                    let set = SetAttr { size, handle, ..SetAttr::default() };
                    mount.fs.setattr(ANYBODY, open.ino, set).await.ok();
                }
            }
            Step::Sync { file } => {
                if let Some(open) = self.open.get(*file) {
                    open.fsync().await.ok();
                }
            }
            Step::Close { file } => self.close(*file).await,
            Step::Truncate { path, size } => {
                let set = SetAttr { size: Some((*size).into()), ..SetAttr::default() };
                if let Ok(open) = mount.open(path, libc::O_RDONLY).await {
                    let mut content = open.read().await.unwrap_or_default().into_bytes();
                    content.resize((*size).into(), 0);
                    self.seen.insert(String::from_utf8_lossy(&content).into_owned());
                    mount.fs.setattr(ANYBODY, open.ino, set).await.ok();
                    open.close().await.ok();
                }
            }
            Step::Chmod { path, mode } => {
                let set = SetAttr { mode: Some((*mode).into()), ..SetAttr::default() };
                if let Ok(ino) = mount.ino(path).await {
                    mount.fs.setattr(ANYBODY, ino, set).await.ok();
                }
            }
            Step::Unlink { path } => drop(mount.unlink(path).await),
            Step::MakeDirectory { path } => drop(mount.mkdir(path).await),
            Step::RemoveDirectory { path } => drop(mount.rmdir(path).await),
            Step::Symlink { path } => drop(mount.symlink(path, "to").await),
            Step::Rename { from, to, flags } => {
                mount.rename_with(from, to, *flags).await.ok();
            }
        }
        self.see().await;
    }
}

async fn run(steps: Vec<(Step, Fault)>) {
    let memory = Arc::new(Memory::new());
    let mount = Mount::new(&memory);
    // What a directory, a marker and a symlink hold.
    let seen = BTreeSet::from([String::new(), "to".to_owned()]);
    let mut run = Run { mount: &mount, open: Vec::new(), seen };
    for (step, fault) in &steps {
        match fault {
            Fault::None => {}
            Fault::Transaction(moment, error) => memory.fail_next_txn(*moment, error.clone()),
            Fault::Read(error) => memory.fail_next_read(error.clone()),
        }
        run.step(step).await;
    }
    // What was injected and met nothing must not fail what follows.
    while mount.fs.ask(revfs_api::keyspace::Revision::NONE, Vec::new()).await.is_err() {}
    while mount.fs.propose(0, Vec::new(), revfs_api::keyspace::Txn::default()).await.is_err() {}
    run.see().await;
    while !run.open.is_empty() {
        run.close(0).await;
    }
    mount.fs.tend().await;
    assert_eq!(mount.fs.writing.budget.used(), 0, "something stays staged");
    assert!(mount.fs.unborn.lock().is_empty(), "a file is still to be born");
    let fresh = Mount::new(&memory);
    for path in paths() {
        let (one, other) = (mount.stat(&path).await, fresh.stat(&path).await);
        match (one, other) {
            (Ok(one), Ok(other)) => {
                assert_eq!((one.kind, one.size, one.perm), (other.kind, other.size, other.perm));
                if one.kind == FileType::RegularFile {
                    let content = fresh.read(&path).await.unwrap();
                    assert_eq!(mount.read(&path).await.unwrap(), content, "{path}");
                    assert!(run.seen.contains(&content), "{path}: nobody wrote {content:?}");
                }
            }
            (one, other) => assert_eq!(one.map(|_| ()), other.map(|_| ()), "{path}"),
        }
    }
}

fn paths() -> Vec<String> {
    let names = ["a", "b", "a.b"];
    let mut paths: Vec<String> = names.iter().map(ToString::to_string).collect();
    for depth in [0..3, 3..12] {
        for index in depth {
            let parent = paths[index].clone();
            paths.extend(names.iter().map(|name| format!("{parent}/{name}")));
        }
    }
    paths
}

proptest! {
    #[test]
    fn no_fault_tears_a_file(steps in collection::vec((step(), fault()), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(steps));
    }
}
