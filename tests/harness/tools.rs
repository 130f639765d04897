//! Programs that the tests need besides Rust: the Debian package that each comes from, or the crate.
//!
//! A missing tool fails the test and says what to install; it never skips it.

use std::path::PathBuf;
use std::process::Command;

use crate::program::workspace;

/// (program, Debian package). `.ci/run` installs the packages of this list.
pub const PACKAGES: &[(&str, &str)] = &[
    ("bash", "bash"),
    ("cc", "gcc"),
    ("cp", "coreutils"),
    ("dash", "dash"),
    ("diff", "diffutils"),
    ("ed", "ed"),
    ("entr", "entr"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("find", "findutils"),
    ("findmnt", "util-linux"),
    ("flock", "util-linux"),
    ("fusermount3", "fuse3"),
    ("getfattr", "attr"),
    ("git", "git"),
    ("inotifywait", "inotify-tools"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("patch", "patch"),
    ("python3", "python3"),
    ("rsync", "rsync"),
    ("sed", "sed"),
    ("setfattr", "attr"),
    ("setpriv", "util-linux"),
    ("systemd-analyze", "systemd"),
    ("tar", "tar"),
    ("tc", "iproute2"),
    ("timeout", "coreutils"),
    ("unshare", "util-linux"),
    ("vim", "vim"),
    ("watchmedo", "python3-watchdog"),
];

/// (program and crate, version). `.ci/run` installs them below the target directory.
pub const CRATES: &[(&str, &str)] = &[("fsx", "0.3.2"), ("pjdfstest", "0.2.2")];

/// The program of a crate, in the version of the list.
///
/// # Panics
/// If it is not installed, or another version is, with the command that installs it.
#[must_use]
pub fn installed(program: &str) -> PathBuf {
    let (_, version) = CRATES
        .iter()
        .find(|(name, _)| *name == program)
        .unwrap_or_else(|| panic!("{program} is not in the list of tests/harness/tools.rs"));
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let root = workspace().join(target).join("tools");
    let file = root.join("bin").join(program);
    let told = Command::new(&file).arg("--version").output();
    let told = told.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    assert!(
        told.as_ref().is_ok_and(|told| *told == format!("{program} {version}")),
        "this test needs {program} {version} in {}, not {told:?}: cargo install --locked \
         --root {} {program}@{version}",
        file.display(),
        root.display()
    );
    file
}

/// Makes sure that the programs are installed.
///
/// # Panics
/// If one is not, with the command that installs it.
pub fn need(programs: &[&str]) {
    for program in programs {
        let package = PACKAGES
            .iter()
            .find(|(name, _)| name == program)
            .unwrap_or_else(|| panic!("{program} is not in the list of tests/harness/tools.rs"))
            .1;
        assert!(
            find(program).is_some(),
            "this test needs `{program}`: apt-get install -y {package}"
        );
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Makes sure that the test runs as root.
///
/// # Panics
/// If it does not.
pub fn need_root(why: &str) {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: {why}");
}

#[cfg(test)]
mod tests {
    use super::{find, installed, need};

    #[test]
    fn a_tool_that_is_there_is_found() {
        need(&["bash", "sed"]);
        assert_eq!(find("no-such-program-anywhere"), None);
    }

    #[test]
    #[should_panic(expected = "not in the list")]
    fn a_crate_without_a_version_is_refused() {
        drop(installed("no-such-crate-anywhere"));
    }

    #[test]
    #[should_panic(expected = "not in the list")]
    fn a_tool_without_a_package_is_refused() {
        need(&["no-such-program-anywhere"]);
    }
}
