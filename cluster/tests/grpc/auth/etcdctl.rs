//! etcd's command line with users and roles, on a node and on a real etcd: what it prints is the same.

use crate::auth::config;
use crate::etcdctl::etcdctl;
use crate::node::Node;
use crate::oracle::Etcd;

/// What is typed, one line a command. `--user` comes before it if the line begins with a name and a colon.
const SCRIPT: &str = "\
    auth enable
    user add root:secret
    user add root:secret
    auth disable
    user add u:pw
    user add none --no-password
    user list
    role add r
    role add r
    role list
    role grant-permission r read color
    role grant-permission r readwrite app/ app0
    role grant-permission r write log/ --prefix
    role grant-permission r read zoo --from-key
    role grant-permission other read color
    role get r
    role get other
    role revoke-permission r color
    role revoke-permission r color
    role get r
    user grant-role u r
    user grant-role u r
    user grant-role u other
    user grant-role other r
    user get u
    user get u --detail
    user get other
    user grant-role root root
    auth enable
    put app/k v
    get app/k
    root:secret put color red
    root:wrong put color red
    other:pw get color
    none: get color
    u:pw put app/k v
    u:pw get app/k
    u:pw get app/ app0
    u:pw get app/ app1
    u:pw put color blue
    u:pw get color
    u:pw put log/1 x
    u:pw put log/1 x --prev-kv
    u:pw get log/1
    u:pw get zoo --from-key
    u:pw get zo --from-key
    u:pw del app/k
    u:pw del app/ app1
    u:pw role get r
    u:pw role get root
    u:pw user get u
    u:pw user get root
    u:pw user list
    u:pw role list
    u:pw user add v:pw
    u:pw user passwd u --interactive=false
    u:pw auth disable
    root:secret user delete root
    root:secret role delete root
    root:secret user revoke-role root root
    root:secret user revoke-role u other
    root:secret user revoke-role u r
    u:pw get app/k
    root:secret role get root
    root:secret user passwd u --interactive=false
    u:pw user get u
    u:new-pw user get u
    root:secret role delete r
    root:secret role delete r
    root:secret user delete u
    root:secret user delete u
    u:new-pw user get u
    root:secret auth disable
    auth disable
    get color";

/// Where etcd 3.4 says otherwise than the newest etcd, which is followed.
const DIFFERS: [&str; 0] = [];

/// What was printed to both outputs, without what differs in any two runs.
async fn run(endpoint: &str, line: &str) -> String {
    let (user, line) = match line.split_once(' ') {
        Some((user, rest)) if user.contains(':') => (Some(format!("--user={user}")), rest),
        _ => (None, line),
    };
    let mut arguments: Vec<&str> = user.iter().map(String::as_str).collect();
    arguments.extend(line.split(' '));
    // For `user passwd`.
    let printed = match etcdctl(endpoint, &arguments, "new-pw\n").await {
        Ok(printed) => format!("0\n{printed}"),
        Err(printed) => format!("1\n{printed}"),
    };
    // The client's own log of its retries: time, number, address.
    let lines = printed.lines().filter(|line| !line.starts_with("{\"level\""));
    lines.collect::<Vec<_>>().join("\n").replace(endpoint, "ENDPOINT")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_prints_of_a_node_what_it_prints_of_etcd() {
    let etcd = Etcd::start().await;
    let node = Node::start_guarded(config()).await;
    let mut different = Vec::new();
    for line in SCRIPT.lines().map(str::trim) {
        let expected = run(etcd.address(), line).await;
        let found = run(&node.address(), line).await;
        if expected != found && !DIFFERS.contains(&line) {
            different.push(format!("{line}\n  etcd: {expected}\n  node: {found}"));
        }
    }
    drop(etcd);
    node.stop().await;
    assert!(different.is_empty(), "{}", different.join("\n"));
}
