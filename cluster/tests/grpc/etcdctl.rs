//! etcd's own command line against a real node, over TCP.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::node::Node;

/// Runs etcdctl with words as arguments and `input` on its standard input; standard output, or
/// standard error with the exit code.
pub(crate) async fn etcdctl(
    endpoint: &str,
    arguments: &[&str],
    input: &str,
) -> Result<String, String> {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoint}"));
    command.arg("--command-timeout=10s").args(arguments);
    let input = input.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcdctl starts: it is in the package etcd-client");
        child.stdin.take().expect("it was piped").write_all(input.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends")
    });
    let output = output.await.expect("no panic");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("etcdctl writes UTF-8");
    if output.status.success() {
        return Ok(text(output.stdout));
    }
    Err(text(output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_may_name_a_node_by_its_url_or_its_socket() {
    let node = Node::start().await;
    let url = format!("http://{}", node.address());
    let socket = format!("unix://{}", node.socket().display());
    for endpoint in [&url, &socket] {
        let status = etcdctl(endpoint, &["endpoint", "status"], "").await.unwrap();
        assert!(status.contains(", true, false, "), "{endpoint}: {status}");
        let health = etcdctl(endpoint, &["endpoint", "health"], "").await;
        assert!(health.is_ok(), "{endpoint}: {health:?}");
        assert_eq!(etcdctl(endpoint, &["put", "k", "v"], "").await.unwrap(), "OK\n");
        assert_eq!(etcdctl(endpoint, &["get", "k"], "").await.unwrap(), "k\nv\n");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_works_on_a_node() {
    let node = Node::start().await;
    let endpoint = node.address();
    let run = async |arguments: &str, input: &str| {
        let arguments: Vec<_> = arguments.split(' ').collect();
        etcdctl(&endpoint, &arguments, input).await
    };
    let ok = async |arguments: &str| run(arguments, "").await.expect(arguments);
    let fails = async |arguments: &str, text: &str| {
        let error = run(arguments, "").await.expect_err(arguments);
        assert!(error.contains(text), "{arguments}: {error}");
    };

    assert_eq!(ok("put app/color red").await, "OK\n");
    assert_eq!(ok("put app/color blue --prev-kv").await, "OK\napp/color\nred\n");
    assert_eq!(ok("put app/size 7").await, "OK\n");
    assert_eq!(ok("get app/color").await, "app/color\nblue\n");
    assert_eq!(ok("get app/color --rev=2 --print-value-only").await, "red\n");
    assert_eq!(ok("get --prefix app/ --keys-only").await, "app/color\n\napp/size\n\n");
    assert_eq!(ok("get --prefix app/ --order=DESCEND --limit=1").await, "app/size\n7\n");
    assert_eq!(ok("get --from-key b").await, "");
    fails("get app/color --rev=99", "required revision is a future revision").await;

    let txn =
        "mod(\"app/color\") > \"0\"\n\nput app/color green\nget app/size\n\nput app/color new\n\n";
    let answer = run("txn", txn).await.unwrap();
    assert_eq!(answer, "SUCCESS\n\nOK\n\napp/size\n7\n");
    let txn = "value(\"app/color\") = \"red\"\n\nput app/color no\n\ndel app/size\n\n";
    assert_eq!(run("txn", txn).await.unwrap(), "FAILURE\n\n1\n");
    let error = run("txn", "\nput a 1\nput a 2\n\n\n").await.unwrap_err();
    assert!(error.contains("duplicate key given in txn request"), "{error}");

    assert_eq!(ok("del app/size").await, "0\n");
    assert_eq!(ok("del --prefix app/ --prev-kv").await, "1\napp/color\ngreen\n");
    assert_eq!(ok("compaction 5 --physical").await, "compacted revision 5\n");
    fails("compaction 5", "required revision has been compacted").await;
    fails("get app/color --rev=4", "required revision has been compacted").await;
    fails("put app/color x --lease=123", "requested lease not found").await;

    let granted = ok("lease grant 60").await;
    let words: Vec<_> = granted.split(' ').collect();
    let ["lease", id, "granted", "with", "TTL(60s)\n"] = words[..] else { panic!("{granted}") };
    assert_eq!(ok(&format!("put on/lease x --lease={id}")).await, "OK\n");
    assert_eq!(ok("lease list").await, format!("found 1 leases\n{id}\n"));
    let left = ok(&format!("lease timetolive {id} --keys")).await;
    let begins = format!("lease {id} granted with TTL(60s), remaining(");
    assert!(
        left.starts_with(&begins) && left.ends_with("), attached keys([on/lease])\n"),
        "{left}"
    );
    let renewed = ok(&format!("lease keep-alive {id} --once")).await;
    assert_eq!(renewed, format!("lease {id} keepalived with TTL(60)\n"));
    assert_eq!(ok(&format!("lease revoke {id}")).await, format!("lease {id} revoked\n"));
    assert_eq!(ok("get on/lease").await, "");
    assert_eq!(ok("lease list").await, "found 0 leases\n");
    let gone = format!("lease {id} already expired\n");
    assert_eq!(ok(&format!("lease timetolive {id}")).await, gone);
    fails(&format!("lease revoke {id}"), "requested lease not found").await;
    fails("lease grant 9000000001", "too large lease TTL").await;
    // Without --once it renews until the lease is gone.
    assert_eq!(
        ok(&format!("lease keep-alive {id}")).await,
        format!("lease {id} expired or revoked.\n")
    );

    let status = ok("endpoint status --write-out=fields").await;
    assert!(status.contains("\"Revision\" : 9\n"), "{status}");
    assert!(status.contains("\"Version\" : \"3.6.0\"\n"), "{status}");
    ok("endpoint health").await;

    let hash = ok("endpoint hashkv").await;
    let (of, number) = hash.trim_end().split_once(", ").unwrap();
    assert_eq!(of, endpoint);
    assert!(number.parse::<u32>().is_ok(), "{hash}");

    let url = format!("http://{endpoint}");
    let by_url = etcdctl(&url, &["put", "by", "url"], "").await.unwrap();
    assert_eq!(by_url, "OK\n");
    node.stop().await;
}
