//! `revfs serve --systemd-unit`: what it prints is a unit, and what the unit starts is the node.

use std::path::Path;

use revfs_tests::etcd::free_address;
use revfs_tests::{Shell, tools, wait};
use tempfile::TempDir;

/// Prints the unit in a directory, into a file of it, and has systemd look at it.
fn unit(directory: &Path, settings: &str) -> String {
    tools::need(&["systemd-analyze"]);
    let line = format!(
        "revfs serve {settings} --systemd-unit > node.service && systemd-analyze verify --man=no ./node.service 2>&1"
    );
    let verified = Shell::new(directory).run(&line);
    // What it says of units that this machine has is not ours.
    let said = verified.ok();
    assert!(!said.contains("node.service"), "{said}");
    std::fs::read_to_string(directory.join("node.service")).expect("it was just written")
}

fn directory() -> TempDir {
    TempDir::with_prefix("revfs-unit-").expect("a temporary directory")
}

fn line<'a>(unit: &'a str, name: &str) -> &'a str {
    let found = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {unit}"))
}

#[test]
fn a_unit_names_absolute_paths_and_is_allowed_what_its_node_needs() {
    let directory = directory();
    let here = directory.path().display();
    let plain = unit(directory.path(), "--data-dir 'my data' --name 'a%b' --log-level=info");
    assert_eq!(line(&plain, "Type"), "notify");
    assert_eq!(line(&plain, "CapabilityBoundingSet"), "");
    assert_eq!(line(&plain, "ProtectSystem"), "strict");
    assert_eq!(line(&plain, "ReadWritePaths"), format!("\"{here}/my data\""));
    let start = line(&plain, "ExecStart");
    assert!(start.contains(&format!("\"--data-dir={here}/my data\"")), "{start}");
    assert!(start.contains("\"--name=a%%b\"") && start.contains("--log-level=info"), "{start}");
    assert!(!plain.contains("PrivateTmp"), "its data is in /tmp: {plain}");

    // A mount must be seen by everybody; what the environment says holds, what a file says stays there.
    std::fs::write(directory.path().join("node.toml"), "quota-backend-bytes = 1000000000\n")
        .expect("a file");
    let settings = "--config-file node.toml --mount view --listen-client-urls http://127.0.0.1:80";
    let mounted = {
        let settings = format!("--data-dir /var/lib/revfs-unit {settings}");
        let shell = Shell::new(directory.path()).variable("REVFS_MOUNT_PREFIX", "/app/");
        shell.run(&format!("revfs serve {settings} --systemd-unit > node.service")).ok();
        shell.run("systemd-analyze verify --man=no ./node.service 2>&1").ok();
        std::fs::read_to_string(directory.path().join("node.service")).expect("it was just written")
    };
    let start = line(&mounted, "ExecStart");
    for word in [
        format!("--config-file={here}/node.toml"),
        format!("--mount={here}/view"),
        "--mount-prefix=/app/".to_owned(),
    ] {
        assert!(start.contains(&word), "{word} in {start}");
    }
    assert!(!start.contains("quota"), "{start}");
    let allowed = line(&mounted, "CapabilityBoundingSet");
    assert!(allowed.contains("CAP_SYS_ADMIN") && allowed.contains("CAP_NET_BIND_SERVICE"));
    for hides in ["ProtectSystem", "PrivateDevices", "ReadWritePaths", "PrivateTmp", "ProtectHome"]
    {
        assert!(!mounted.contains(hides), "{hides} would hide the mount: {mounted}");
    }
}

#[test]
fn the_settings_of_a_unit_are_looked_at_before_it_is_printed() {
    let directory = directory();
    let wrong = "revfs serve --data-dir d --election-timeout 1 --systemd-unit";
    Shell::new(directory.path()).run(wrong).fails_saying("too short");
    assert!(!directory.path().join("d").exists());
}

/// systemd's part is played by a shell: it splits the words and has the same capabilities at most.
#[test]
fn what_a_unit_starts_serves_with_no_more_than_the_unit_allows() {
    tools::need(&["setpriv"]);
    let directory = directory();
    let address = free_address();
    let settings = format!(
        "--data-dir data --listen-client-urls http://{address} --auto-compaction-mode=periodic"
    );
    let unit = unit(directory.path(), &settings);
    let allowed = line(&unit, "CapabilityBoundingSet");
    assert_eq!(allowed, "");
    let (before, start) =
        (line(&unit, "ExecStartPre").trim_start_matches('+'), line(&unit, "ExecStart"));
    let dropped = "setpriv --bounding-set=-all --inh-caps=-all --no-new-privs --pdeathsig KILL";
    let node =
        Shell::new(directory.path()).start(&format!("{before}; cd /; exec {dropped} {start}"));
    let shell = Shell::new(directory.path());
    wait::until_true("a node that serves", wait::LIMIT, || {
        shell
            .run(&format!("revfs status --endpoint http://{address} || true"))
            .ok()
            .contains("writes")
    });
    shell.run(&format!("revfs put --endpoint http://{address} --key /a b")).ok();
    drop(node);
}
