//! Commands of etcdctl that go on until they are stopped: watches, locks, elections, mirrors.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::maintenance_client::MaintenanceClient;

use super::peer::Peer;
use crate::node::Node;
use crate::oracle::Etcd;

/// Far above what any line takes.
const LIMIT: Duration = Duration::from_secs(30);

/// A command that runs.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("etcdctl starts: it is in the package etcd-client");
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().expect("it was piped"));
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Self { child, input, lines }
    }

    fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it is open");
        input.write_all(format!("{line}\n").as_bytes()).expect("it reads");
        input.flush().expect("it reads");
    }

    fn lines(&mut self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + LIMIT;
        let mut lines = Vec::new();
        while lines.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => lines.push(line),
                Err(_) => {
                    self.child.kill().ok();
                    let mut error = String::new();
                    let stderr = self.child.stderr.as_mut().expect("it was piped");
                    stderr.read_to_string(&mut error).ok();
                    panic!("{count} lines were expected, not {lines:?}; {error}");
                }
            }
        }
        lines
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

struct Both {
    server: Etcd,
    node: Node,
    etcd: Peer,
    own: Peer,
}

impl Both {
    async fn start() -> Self {
        let (server, node) = (Etcd::start().await, Node::start().await);
        let etcd = Peer::new(server.address().to_owned()).await;
        let own = Peer::new(node.address()).await;
        Self { server, node, etcd, own }
    }

    async fn run(&self, words: &str) {
        for peer in [&self.etcd, &self.own] {
            let done = peer.run(words, "").await;
            assert_eq!(done.code, Some(0), "{words}: {done:?}");
        }
    }

    fn begin(&self, words: &str) -> [Running; 2] {
        [&self.etcd, &self.own].map(|peer| Running::start(peer.command(words)))
    }

    /// The next lines of both, which are to be the same; as the node said them.
    fn same(&self, running: &mut [Running; 2], count: usize) -> Vec<String> {
        let [etcd, own] = running;
        let expected = self.etcd.plain_text(&etcd.lines(count).join("\n"));
        let said = own.lines(count);
        let found = self.own.plain_text(&said.join("\n"));
        assert_eq!(found, expected);
        said
    }

    async fn stop(self) {
        drop(self.server);
        self.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_print_the_same_events() {
    let both = Both::start().await;
    for words in ["put k 1", "put k 2", "put kk 1", "del k", "put k 3", "put other x"] {
        both.run(words).await;
    }
    // In forms that show the messages only one event: what came before may come in several.
    let cases = [
        ("watch k --rev=2", 11),
        ("watch --prefix k --rev=2 --prev-kv", 19),
        ("watch k z --rev=3", 15),
        ("watch kk --rev=4 -w json", 1),
        ("watch kk --rev=4 -w fields", 10),
        ("watch k --rev=6 -- echo told", 4),
    ];
    for (words, count) in cases {
        both.same(&mut both.begin(words), count);
    }
    // Several on one stream, of what is still to come: however late they begin, they see it.
    let mut running = both.begin("watch -i");
    for line in ["watch k --rev=8", "watch --prefix oth --rev=9"] {
        running.iter_mut().for_each(|one| one.say(line));
    }
    both.run("put k 4").await;
    assert_eq!(both.same(&mut running, 3), ["PUT", "k", "4"]);
    both.run("del other").await;
    assert_eq!(both.same(&mut running, 3), ["DELETE", "other", ""]);
    // Progress is told to each of them, once none is behind.
    running.iter_mut().for_each(|one| one.say("progress"));
    let told = both.same(&mut running, 2);
    assert_eq!(told, ["progress notify: 9"; 2]);
    drop(running);
    both.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locks_and_elections_pass_on_in_the_same_way() {
    let both = Both::start().await;
    let mut first = both.begin("lock name");
    let leases = first.each_mut().map(|running| {
        let key = running.lines(1).remove(0);
        key.strip_prefix("name/").expect("the key is below the name").to_owned()
    });
    let mut second = both.begin("lock name -- echo mine");
    drop(first);
    // The lease of who was killed ends by itself, in a minute. It is revoked instead.
    for (peer, lease) in [&both.etcd, &both.own].into_iter().zip(leases) {
        let revoked = peer.run(&format!("lease revoke {lease}"), "").await;
        // The key has the number without the zeros before it.
        assert_eq!(revoked.output, format!("lease {lease:0>16} revoked\n"));
    }
    assert_eq!(both.same(&mut second, 1), ["mine"]);

    let mut observers = both.begin("elect -l post");
    let mut leaders = both.begin("elect post one");
    for running in [&mut leaders, &mut observers] {
        for one in running {
            let lines = one.lines(2);
            assert!(lines[0].starts_with("post/") && lines[1] == "one", "{lines:?}");
        }
    }
    both.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_can_be_mirrored_to_the_other() {
    let both = Both::start().await;
    for peer in [&both.etcd, &both.own] {
        for words in ["put from/1 a", "put from/2 b", "put elsewhere x"] {
            assert_eq!(peer.run(words, "").await.code, Some(0));
        }
    }
    for (source, target) in [(&both.etcd, &both.own), (&both.own, &both.etcd)] {
        let words = format!(
            "make-mirror --prefix from/ --dest-prefix to/{} {}",
            source.endpoint, target.endpoint
        );
        let mirror = Running::start(source.command(&words));
        let arrives = async |expected: &str| {
            let deadline = Instant::now() + LIMIT;
            loop {
                let words = format!("get --prefix to/{} --print-value-only", source.endpoint);
                let found = target.run(&words, "").await.output;
                if found == expected {
                    return;
                }
                assert!(Instant::now() < deadline, "{found:?} instead of {expected:?}");
            }
        };
        arrives("a\nb\n").await;
        source.run("put from/3 c", "").await;
        arrives("a\nb\nc\n").await;
        source.run("del from/1", "").await;
        arrives("b\nc\n").await;
        drop(mirror);
    }
    both.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn alarms_that_are_raised_are_listed_and_disarmed() {
    let both = Both::start().await;
    for peer in [&both.etcd, &both.own] {
        let url = format!("http://{}", peer.endpoint);
        let mut maintenance = MaintenanceClient::connect(url).await.expect("it answers");
        let request = pb::AlarmRequest { action: 1, member_id: 7, alarm: 2 };
        maintenance.alarm(request).await.expect("it is raised");
    }
    for words in ["alarm list", "put k v", "get k", "alarm disarm", "alarm list", "put k v"] {
        let (etcd, own) = tokio::join!(both.etcd.run(words, ""), both.own.run(words, ""));
        assert_eq!(both.own.plain(&own), both.etcd.plain(&etcd), "{words}");
    }
    both.stop().await;
}
