//! Two mounts of one node: what one of them does, the other sees as another machine would.

use std::time::Duration;

use revfs_cluster::{Node, NodeConfig};
use revfs_fs::filesystem::MountOptions;
use revfs_fs::mount::{Mounted, mount};
use revfs_tests::{Shell, wait};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

/// The node runs in this process, the programs that use its mounts run in others: a process that
/// waits for its own mount could not be killed.
pub(crate) struct TwoMounts {
    runtime: Runtime,
    node: Option<Node>,
    mounts: Vec<Mounted>,
    dirs: [TempDir; 2],
    /// Deleted last.
    _data: TempDir,
}

impl TwoMounts {
    pub(crate) fn up() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let new_dir = || TempDir::new().expect("a directory");
        let (dirs, data) = ([new_dir(), new_dir()], new_dir());
        let node = Node::start(NodeConfig::new(data.path()));
        let node = runtime.block_on(node).expect("a node");
        let mounts = dirs.iter().map(|dir| {
            let options = MountOptions::default();
            mount(node.key_space(), dir.path(), options, runtime.handle().clone()).expect("a mount")
        });
        let mounts = mounts.collect();
        let two = Self { runtime, node: Some(node), mounts, dirs, _data: data };
        for shell in [two.first(), two.second()] {
            wait::until_true("a mount that watches", wait::LIMIT, || {
                shell.run("cat @status").ok().contains("\"watching\": true")
            });
        }
        two
    }

    pub(crate) fn first(&self) -> Shell {
        Shell::new(self.dirs[0].path())
    }

    pub(crate) fn second(&self) -> Shell {
        Shell::new(self.dirs[1].path())
    }

    pub(crate) fn down(mut self) {
        for mounted in &self.mounts {
            self.runtime.block_on(mounted.unmount()).expect("an unmount");
        }
        let node = self.node.take().expect("it runs until now");
        self.runtime.block_on(node.shutdown(SHUTDOWN_LIMIT)).expect("an orderly end");
    }
}

#[test]
fn a_name_created_exclusively_is_taken_on_both_mounts() {
    let two = TwoMounts::up();
    // It holds the new file open until its input ends.
    let holder = two.first().start(
        "set -C; exec 5> lock && echo held && until [ -e go ]; do sleep 0.01; done; echo mine >&5",
    );
    wait::until_true("the new file", wait::LIMIT, || holder.stdout().contains("held"));
    assert_eq!(two.second().run("ls").ok(), "", "others do not see it yet");
    two.second().run("set -C; : > lock").fails_saying("cannot overwrite existing file");
    two.second().run("mkdir lock").fails_saying("File exists");
    two.second().run("echo free > other").ok();
    two.first().run("touch go").ok();
    holder.finish(wait::LIMIT).ok();
    wait::until_true("the commit", wait::LIMIT, || {
        two.second().run("cat lock; ls").ok() == "mine\ngo\nlock\nother"
    });
    two.second().run("rm lock && set -C && echo next > lock").ok();
    wait::until_true("the next one", wait::LIMIT, || {
        two.first().run("cat lock || true").ok() == "next"
    });
    two.down();
}

#[test]
fn lines_appended_on_both_mounts_are_all_there() {
    let two = TwoMounts::up();
    two.first().run(": > log").ok();
    let append = "for i in $(seq 100); do echo $0 $i >> log || exit 1; done";
    let writers = [(two.first(), "one"), (two.second(), "two")]
        .map(|(shell, name)| shell.start(&format!("bash -c '{append}' {name}")));
    for writer in writers {
        writer.finish(wait::LIMIT).ok();
    }
    let expected = "100 one 1 one 100\n100 two 1 two 100";
    let summary =
        "for w in one two; do echo $(grep -c ^$w log) $(grep ^$w log | sed -n '1p;$p'); done";
    for shell in [two.first(), two.second()] {
        wait::until_true("all lines in their order", wait::LIMIT, || {
            shell.run(summary).ok() == expected
        });
    }
    two.down();
}
