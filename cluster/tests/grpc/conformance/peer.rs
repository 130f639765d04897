//! One of the two servers, as etcdctl sees it: commands are run on it, and what names this server
//! alone is replaced in what they say.

use std::io::Write;
use std::process::{Command, Stdio};

/// What follows these depends on the run: times, and how often somebody was elected or wrote.
const OF_A_RUN: [&str; 9] = [
    "took = ",
    "remaining(",
    "\"raft_term\":",
    "\"raftTerm\":",
    "\"RaftTerm\" : ",
    "\"raftIndex\":",
    "\"RaftIndex\" : ",
    "\"raftAppliedIndex\":",
    "\"RaftAppliedIndex\" : ",
];

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) code: Option<i32>,
    pub(super) output: String,
    pub(super) error: String,
}

pub(super) struct Peer {
    pub(super) endpoint: String,
    /// What stands for what: `$NAME` in commands, and the other way round in outputs.
    names: Vec<(String, String)>,
    directory: tempfile::TempDir,
}

impl Peer {
    pub(super) async fn new(endpoint: String) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut peer = Self { endpoint: endpoint.clone(), names: Vec::new(), directory };
        let path = peer.directory.path().display().to_string();
        let status = peer.run("endpoint status -w fields", "").await;
        let field = |name: &str| {
            let line = status.output.lines().find(|line| line.starts_with(&format!("\"{name}\"")));
            let line = line.unwrap_or_else(|| panic!("no {name} in {status:?}"));
            line.rsplit(' ').next().expect("a value").to_owned()
        };
        let (member, cluster) = (field("MemberID"), field("ClusterID"));
        let hexadecimal = |id: &str| format!("{:x}", id.parse::<u64>().expect("an id is a number"));
        peer.remember("MEMBER", &hexadecimal(&member));
        peer.remember("CLUSTER", &hexadecimal(&cluster));
        peer.remember("MEMBER_ID", &member);
        peer.remember("CLUSTER_ID", &cluster);
        peer.remember("ENDPOINT", &endpoint);
        peer.remember("DIRECTORY", &path);
        peer
    }

    pub(super) fn remember(&mut self, name: &str, value: &str) {
        self.names.push((name.to_owned(), value.to_owned()));
        // A name must not be taken for the beginning of another, nor a value.
        self.names.sort_by_key(|(name, value)| std::cmp::Reverse((value.len(), name.len())));
    }

    /// etcdctl with these words, ready to start.
    pub(super) fn command(&self, words: &str) -> Command {
        let mut names = self.names.clone();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", self.endpoint));
        command.arg("--command-timeout=10s");
        for word in words.split(' ') {
            let mut word =
                if word == "''" { String::new() } else { word.replace("exit_3", "exit 3") };
            for (name, value) in &names {
                word = word.replace(&format!("${name}"), value);
            }
            command.arg(word);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub(super) async fn run(&self, words: &str, input: &str) -> Done {
        let mut command = self.command(words);
        let input = input.to_owned();
        let output = tokio::task::spawn_blocking(move || {
            let mut child =
                command.spawn().expect("etcdctl starts: it is in the package etcd-client");
            // Who does not read its input has ended already.
            child.stdin.take().expect("it was piped").write_all(input.as_bytes()).ok();
            child.wait_with_output().expect("it ends")
        });
        let output = output.await.expect("no panic");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Done { code: output.status.code(), output: text(output.stdout), error: text(output.stderr) }
    }

    /// What a command did, without what differs from server to server and from run to run.
    pub(super) fn plain(&self, done: &Done) -> Done {
        Done {
            code: done.code,
            output: self.plain_text(&done.output),
            error: self.plain_text(&done.error),
        }
    }

    pub(super) fn plain_text(&self, text: &str) -> String {
        // The client's log, with times and addresses of its own.
        let lines = text.lines().filter(|line| !line.starts_with("{\"level\":"));
        let mut text: String = lines.map(|line| format!("{line}\n")).collect();
        for (name, value) in &self.names {
            text = text.replace(value, &format!("${name}"));
        }
        text = without_fill(&text);
        for begin in OF_A_RUN {
            text = without_value(&text, begin);
        }
        text
    }
}

/// Makes each run of spaces, or of a table's dashes, one of them: how long it is depends on how many
/// digits the numbers of a server happen to have.
fn without_fill(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for sign in text.chars() {
        if !(matches!(sign, ' ' | '-') && plain.ends_with(sign)) {
            plain.push(sign);
        }
    }
    plain
}

/// Leaves out what follows `begin`, up to the end of the word.
pub(super) fn without_value(text: &str, begin: &str) -> String {
    let mut parts = text.split(begin);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find([',', '\n', '}', ')']).unwrap_or(part.len());
        plain.push_str(begin);
        plain.push('*');
        plain.push_str(&part[end..]);
    }
    plain
}
