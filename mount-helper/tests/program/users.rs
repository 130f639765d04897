//! `user`, `role`, `auth`, `alarm` and `member`, on a node and on etcd.

use serde_json::json;

use crate::backend::Backend;
use crate::command::{Prepared, revfs};

/// A call as a user with that password.
fn as_user(server: &Backend, user: &str, password: &str, line: &str) -> Prepared {
    server.call(line).variable("REVFS_USER", user).variable("REVFS_PASSWORD", password)
}

#[test]
fn users_may_do_what_their_roles_permit() {
    for server in Backend::both() {
        let add = |name: &str| {
            let call = server.call(&format!("user add {name}"));
            call.variable("REVFS_NEW_PASSWORD", format!("{name}-secret")).run()
        };
        add("root").ok();
        add("alice").ok();
        add("alice").fails(1, &["add user alice", "user name already exists"]);
        for line in [
            "user grant root root",
            "role add readers",
            "role grant readers read --prefix /app/",
            "role grant readers readwrite /own",
            "user grant alice readers",
            "put /app/x 1",
        ] {
            // etcd 3.4 has no role root until authentication is enabled.
            let ended = server.call(line).run();
            let is_early = ended.err().contains("role name not found") && line.ends_with("root");
            assert!(ended.code() == Some(0) || is_early, "{ended}");
            if is_early {
                server.call("role add root").run().ok();
                server.call(line).run().ok();
            }
        }
        assert_eq!(server.call("user list").run().ok(), "alice\nroot\n");
        assert_eq!(server.call("user get alice --json").run().json(), json!({"role": "readers"}));
        let role = server.call("role get readers").run().ok();
        assert_eq!(role, "read\tprefix /app/\nreadwrite\t/own\n");
        assert_eq!(server.call("auth enable").run().ok(), "enabled\n");

        let alice = |line: &str| as_user(&server, "alice", "alice-secret", line).run();
        let root = |line: &str| as_user(&server, "root", "root-secret", line).run();
        assert_eq!(alice("get /app/x").ok(), "1\n");
        alice("put /own mine").ok();
        alice("put /app/x 2").fails(1, &["cannot put /app/x", "permission denied"]);
        alice("user list").fails(1, &["list the users", "permission denied"]);
        server.call("get /app/x").run().fails(1, &["user name is empty"]);
        as_user(&server, "alice", "wrong", "get /app/x").run().fails(1, &["authentication failed"]);

        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        std::fs::write(&file, "changed\n").unwrap();
        let line = format!("user passwd alice --new-password-file {}", file.display());
        root(&line).ok();
        let renewed = |line: &str| as_user(&server, "alice", "changed", line).run();
        assert_eq!(renewed("get /own").ok(), "mine\n");
        root("role revoke readers /own").ok();
        renewed("get /own").fails(1, &["permission denied"]);
        root("user revoke alice readers").ok();
        assert_eq!(root("user get alice").ok(), "");
        root("user del alice").ok();
        root("role del readers").ok();
        root("user del alice").fails(1, &["delete user alice", "user name not found"]);
        assert_eq!(root("auth disable").ok(), "disabled\n");
        assert_eq!(server.call("get /app/x").run().ok(), "1\n");
    }
}

#[test]
fn whether_users_are_asked_for_is_told() {
    let server = Backend::node();
    assert!(server.call("auth status").run().ok().starts_with("disabled, revision "));
    assert_eq!(server.call("auth status --json").run().json()["enabled"], false);
    server
        .call("auth enable")
        .run()
        .fails(1, &["enable authentication", "root user does not exist"]);
}

#[test]
fn passwords_come_from_no_argument_and_are_never_empty() {
    let server = Backend::node();
    server.call("user add bob").run().fails(2, &["no new password for bob", "REVFS_NEW_PASSWORD"]);
    let empty = server.call("user add bob").variable("REVFS_NEW_PASSWORD", "");
    empty.run().fails(2, &["the new password is empty", "--no-password"]);
    server.call("user add bob --no-password").run().ok();
    assert_eq!(server.call("user list").run().ok(), "bob\n");
    revfs(["get", "/a", "--user", "bob", "--endpoint", "/nowhere"])
        .fails(2, &["--user bob comes without a password", "REVFS_PASSWORD"]);
}

#[test]
fn ranges_of_permissions_are_shown_as_they_are_given() {
    for server in Backend::both() {
        server.call("role add r").run().ok();
        for range in ["/a", "/b /cc", "/d --from-key", "/e --prefix"] {
            server.call(&format!("role grant r write {range}")).run().ok();
        }
        let shown = "write\t/a\nwrite\trange /b /cc\nwrite\tfrom /d\nwrite\tprefix /e\n";
        let mut lines: Vec<String> =
            server.call("role get r").run().ok().lines().map(str::to_owned).collect();
        lines.sort();
        let mut expected: Vec<&str> = shown.lines().collect();
        expected.sort_unstable();
        assert_eq!(lines, expected);
        server.call("role grant r read /b /a").run().fails(2, &["range from /b to /a is empty"]);
        server.call("role get none").run().fails(1, &["show role none", "role name not found"]);
    }
}

#[test]
fn what_etcd_cannot_do_with_members_is_refused() {
    let etcd = Backend::etcd();
    let id = etcd.call("member list --json").run().json()["id"].as_str().unwrap().to_owned();
    let refused = |line: String, why: &str| etcd.call(&line).run().fails(1, &[why]);
    let url = "http://127.0.0.1:9";
    refused(format!("member add {url} --role standby"), "a voter or a learner");
    refused(format!("member role {id} read-only"), "changes no other role");
    refused(format!("member replace {id} {url}"), "remove it, then add the new one");
    refused(format!("member remove {id} --force"), "strict-reconfig-check");
    refused(format!("member promote {id}"), "can only promote a learner member");
    let added = etcd.call(&format!("member add {url} --learner")).run().ok();
    assert!(added.contains("\tlearner\tunstarted\t\t\n"), "{added}");
    assert_eq!(etcd.call("member list --json").run().json_lines().len(), 2);
}

#[test]
fn a_node_that_is_alone_says_why_it_does_not_go() {
    let node = Backend::node();
    let member = node.call("member list --json").run().json();
    let id = member["id"].as_str().unwrap();
    assert_eq!((member["state"].as_str(), member["behind"].as_u64()), (Some("leads"), Some(0)));
    for force in ["", " --force"] {
        let refused = node.call(&format!("member remove {id}{force}")).run();
        refused.fails(1, &["not enough started members", "revfs member list", "--help"]);
    }
    node.call("member replace 1 http://127.0.0.1:9").run().fails(1, &["member not found"]);
    node.call("member add nonsense").run().fails(1, &["given member URLs are invalid"]);
    node.call("member add http://127.0.0.1:9 --role king").run().fails(2, &["king", "standby"]);
}

#[test]
fn members_and_alarms_are_listed() {
    for server in Backend::both() {
        let members = server.call("member list --json").run().json_lines();
        assert_eq!(members.len(), 1);
        assert_eq!(members[0]["learner"], false);
        let line = server.call("member list").run().ok();
        let columns: Vec<&str> = line.trim_end_matches('\n').split('\t').collect();
        assert_eq!((columns.len(), columns[4], columns[7]), (8, "voter", ""), "{line}");
        assert!(["leads", "votes"].contains(&columns[5]), "{line}");
        assert_eq!(server.call("alarm list").run().ok(), "");
        assert_eq!(server.call("alarm disarm").run().ok(), "");
    }
}
