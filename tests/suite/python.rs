//! A program in Python that was written for etcd: the package etcd3gw, from the registry, says of a node
//! what it says of etcd.

use std::path::Path;
use std::process::Command;

use revfs_tests::{Etcd, Server, tools};
use tempfile::TempDir;

/// As tried; a later one may ask for more.
const PACKAGE: &str = "etcd3gw==2.7.0";

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out
}

/// A place for packages, with this one in it.
fn environment(directory: &Path) -> std::path::PathBuf {
    tools::need(&["python3", "timeout"]);
    let place = directory.join("python");
    run(Command::new("python3").args(["-m", "venv"]).arg(&place));
    let python = place.join("bin/python");
    let mut install = Command::new("timeout");
    install.arg("300").arg(&python).args(["-m", "pip", "install", "--quiet"]);
    run(install.args(["--disable-pip-version-check", PACKAGE]));
    python
}

#[test]
fn etcd3gw_says_of_a_node_what_it_says_of_etcd() {
    let directory = TempDir::with_prefix("revfs-python-").expect("a temporary directory");
    let python = environment(directory.path());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/suite/python_client.py");
    let say = |url: &str| {
        let address = url.strip_prefix("http://").expect("it is not encrypted");
        run(Command::new("timeout").arg("120").arg(&python).args([script, address]))
    };
    let (etcd, server) = (Etcd::start(), Server::start(&[]));
    let (of_etcd, of_node) = (say(&etcd.endpoint()), say(server.url()));
    assert_eq!(of_node, of_etcd);
    assert!(of_node.ends_with("left True []\n"), "{of_node}");
}
