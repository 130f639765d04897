//! `lease`, `lock` and `elect`, on a node and on etcd.

use nix::sys::signal::Signal;

use crate::backend::{Backend, until};

#[test]
fn leases_are_granted_kept_shown_and_revoked() {
    for server in Backend::both() {
        assert_eq!(server.call("lease grant 600 --id 1f").run().ok(), "1f\t600\n");
        server.call("lease grant 600 --id 1f").run().fails(1, &["grant", "lease already exists"]);
        server.call("txn").input(b"put /a 1 lease 1f").run().ok();
        assert_eq!(server.call("lease list").run().ok(), "1f\n");
        assert_eq!(server.call("lease keep-alive 1f --once").run().ok(), "1f\t600\n");
        let state = server.call("lease ttl 1f --keys --json").run().json();
        assert_eq!((&state["id"], &state["granted"]), (&"1f".into(), &600.into()));
        assert_eq!(state["keys"][0]["key"], "/a");
        let plain = server.call("lease ttl 1f --keys").run().ok();
        assert!(plain.starts_with("1f\t") && plain.ends_with("\t600\n/a\n"), "{plain}");
        assert_eq!(server.call("lease revoke 1f").run().ok(), "");
        server.call("get /a").run().fails(1, &["/a does not exist"]);
        for call in ["revoke 1f", "ttl 1f", "keep-alive 1f"] {
            server
                .call(&format!("lease {call}"))
                .run()
                .fails(1, &["lease 1f does not exist", "hint"]);
        }
        server.call("lease grant 0").run().fails(2, &["0"]);
        server.call("lease ttl 0").run().fails(2, &["hexadecimal"]);
    }
}

#[test]
fn a_kept_lease_is_renewed_until_it_is_gone() {
    for server in Backend::both() {
        server.call("lease grant 3 --id a").run().ok();
        let mut kept = server.begin(&["lease", "keep-alive", "a"]);
        assert_eq!([kept.line(), kept.line(), kept.line()], ["a\t3", "a\t3", "a\t3"]);
        server.call("lease revoke a").run().ok();
        let (code, _, said) = kept.end();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("lease a does not exist, or has ended"), "{said}");
    }
}

#[test]
fn a_lock_is_held_while_its_command_runs() {
    for server in Backend::both() {
        let script = "echo $REVFS_LOCK_KEY; revfs=$0; exit 7";
        let ended = server.call("lock /l -- sh -c").argument(script).run();
        assert_eq!((ended.code(), ended.err()), (Some(7), String::new()), "{ended}");
        assert!(ended.out().starts_with("/l/"), "{ended}");
        let ended = server.call("lock /l -- sh -c").argument("kill -9 $$").run();
        assert_eq!(ended.code(), Some(137), "{ended}");
        // Nothing stays behind.
        server.call("get --prefix /l/").run().fails(1, &["no key begins with /l/"]);
        assert_eq!(server.call("lease list").run().ok(), "");
        server.call("lock /l -- /nowhere/program").run().fails(1, &["/nowhere/program"]);
        server.call("lock").argument("").run().fails(2, &["is empty"]);
    }
}

#[test]
fn a_lock_goes_from_one_to_the_next() {
    for server in Backend::both() {
        let mut first = server.begin(&["lock", "/l"]);
        let key = first.line();
        assert!(key.starts_with("/l/"), "{key}");
        server.call("lock /l --wait 0 -- true").run().fails(3, &["/l is not free", &key]);
        let mut second = server.begin(&["lock", "/l", "--json"]);
        until("the second is in line", || {
            server.call("get --prefix /l/").run().ok().lines().count() == 2
        });
        first.signal(Signal::SIGTERM);
        assert_eq!(first.end(), (Some(0), String::new(), String::new()));
        let held: serde_json::Value = serde_json::from_str(&second.line()).unwrap();
        assert_ne!(held["key"], key.as_str());
        second.signal(Signal::SIGINT);
        assert_eq!(second.end().0, Some(0));
    }
}

#[test]
fn a_command_ends_when_its_lock_is_lost() {
    for server in Backend::both() {
        let mut holder = server.begin(&[
            "lock",
            "/l",
            "--ttl",
            "3",
            "--",
            "sh",
            "-c",
            "echo $REVFS_LEASE; exec tail -f /dev/null",
        ]);
        let lease = holder.line();
        server.call(&format!("lease revoke {lease}")).run().ok();
        let (code, _, said) = holder.end();
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("is lost") && said.contains("'sh' was ended"), "{said}");
    }
}

#[test]
fn an_election_has_one_leader_and_tells_of_it() {
    for server in Backend::both() {
        let mut audience = server.begin(&["elect", "/e", "--listen"]);
        let mut first = server.begin(&["elect", "/e", "one"]);
        let key = first.line();
        assert_eq!(audience.line(), format!("{key}\tone"));
        let mut second = server.begin(&["elect", "/e", "two"]);
        server.call("elect /e three --wait 0").run().fails(3, &["/e is not free", &key]);
        until("the second is in line", || {
            server.call("get --prefix /e/").run().ok().lines().count() == 2
        });
        first.signal(Signal::SIGTERM);
        assert_eq!(first.end().0, Some(0));
        let key = second.line();
        assert_eq!(audience.line(), format!("{key}\ttwo"));
        audience.signal(Signal::SIGINT);
        assert_eq!(audience.end().0, Some(0));
        server.call("elect /e").run().fails(2, &["VALUE"]);
    }
}

#[test]
fn etcdctl_waits_in_the_same_line() {
    let server = Backend::node();
    let mut held = server.begin(&["lock", "/l"]);
    assert!(held.line().starts_with("/l/"));
    let mut etcdctl = std::process::Command::new("etcdctl");
    etcdctl.env("ETCDCTL_API", "3").arg("--endpoints").arg(&server.endpoint);
    let child = etcdctl.args(["lock", "/l", "true"]).spawn().expect("etcdctl is installed");
    until("etcdctl is in line", || server.call("get --prefix /l/").run().ok().lines().count() == 2);
    held.signal(Signal::SIGTERM);
    assert_eq!(held.end().0, Some(0));
    let status = child.wait_with_output().expect("it is our child").status;
    assert!(status.success(), "{status}");
}
