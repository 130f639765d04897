//! `serve`: settings and their refusals, the running node, and its end.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Prepared, command, revfs};

/// A running `revfs serve`; killed if the test does not end it.
struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    said: Value,
}

impl Server {
    /// Starts with `--json` and these arguments, in an own data directory below `directory`.
    fn start(directory: &TempDir, arguments: &[&str]) -> Self {
        Self::run(&mut Self::command(directory, arguments))
    }

    fn command(directory: &TempDir, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_revfs"));
        command.args(["serve", "--json", "--data-dir"]).arg(directory.path().join("data"));
        command.args(arguments).env_remove("RUST_LOG").current_dir(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("it is built");
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("it is text");
        let said = serde_json::from_str(&line).unwrap_or_else(|error| {
            let mut log = String::new();
            child.stderr.take().expect("it is piped").read_to_string(&mut log).ok();
            panic!("{error}: {line:?}; it said {log}")
        });
        Self { child, out, said }
    }

    fn url(&self, at: usize) -> &str {
        self.said["listening"][at].as_str().expect("it listens there")
    }

    fn call(&self, url: &str, line: &str) -> Prepared {
        command(line.split(' ')).variable("REVFS_ENDPOINT", url)
    }

    /// SIGTERM; what it logged.
    fn end(mut self) -> String {
        let id = i32::try_from(self.child.id()).expect("an id");
        kill(Pid::from_raw(id), Signal::SIGTERM).expect("it runs");
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("it is text");
        let mut log = String::new();
        let stderr = self.child.stderr.as_mut().expect("it is piped");
        stderr.read_to_string(&mut log).expect("it is text");
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "{status}: {log}");
        assert_eq!(rest, "");
        log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already where all went well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn scratch() -> TempDir {
    TempDir::with_prefix("revfs-serve-").expect("a temporary directory")
}

#[test]
fn it_serves_every_url_and_its_owners_socket_and_keeps_what_it_acknowledged() {
    let directory = scratch();
    let socket = directory.path().join("clients.sock");
    let urls = format!("http://localhost:0,unix://{}", socket.display());
    let server = Server::start(&directory, &["--listen-client-urls", &urls]);
    let (tcp, unix) = (server.url(0).to_owned(), server.url(1).to_owned());
    let owners = server.said["endpoint"].as_str().expect("an endpoint").to_owned();
    let mode = |path: &PathBuf| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    };
    assert_eq!(mode(&directory.path().join("data/revfs.sock")), 0o600);
    server.call(&tcp, "put /a tcp").run().ok();
    server.call(&unix, "put /b unix").run().ok();
    server.call(&owners, "put /c owner").run().ok();
    let log = server.end();
    assert!(log.contains("SIGTERM") && !log.contains("WARN"), "{log}");
    assert!(!socket.exists());

    let server = Server::start(&directory, &["--listen-client-urls", "http://localhost:0"]);
    let url = server.url(0).to_owned();
    for (key, value) in [("/a", "tcp"), ("/b", "unix"), ("/c", "owner")] {
        assert_eq!(server.call(&url, &format!("get {key}")).run().ok(), format!("{value}\n"));
    }
    server.end();
}

#[test]
fn it_encrypts_with_a_certificate_of_its_own() {
    let directory = scratch();
    let urls = ["--auto-tls", "--listen-client-urls", "https://localhost:0"];
    let server = Server::start(&directory, &urls);
    let url = server.url(0).to_owned();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    assert!(directory.path().join("data/auto-tls/cert.pem").exists());
    let plain = url.replace("https", "http");
    server.call(&plain, "get /a").run().fails(4, &[&plain]);
    server.end();
}

#[test]
fn files_of_certificates_that_are_missing_are_named() {
    let directory = scratch();
    let data = directory.path().join("data");
    let line =
        "serve --listen-client-urls https://localhost:0 --cert-file /no/cert --key-file /no/key";
    let started = command(line.split(' ')).argument("--data-dir").argument(&data).run();
    assert_eq!(started.code(), Some(1), "{started}");
    assert!(started.err().contains("/no/cert"), "{started}");
}

#[test]
fn how_it_is_can_be_asked_on_a_port_of_its_own() {
    let directory = scratch();
    let urls = ["--listen-client-urls", "http://localhost:0", "--listen-metrics-urls"];
    let server = Server::start(&directory, &[&urls[..], &["http://localhost:0"]].concat());
    let ask = |at: usize, path: &str| {
        use std::io::Write as _;
        let address = server.url(at).strip_prefix("http://").expect("a URL").to_owned();
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it is text");
        answer
    };
    assert!(ask(1, "/readyz").ends_with("ok\n"));
    assert!(ask(1, "/metrics").contains("etcd_server_has_leader 1"));
    assert!(ask(0, "/version").contains("etcdserver"), "clients have them too");
    server.end();
}

#[test]
fn a_second_node_on_the_directory_is_refused_and_told_which_process_holds_it() {
    let directory = scratch();
    let server = Server::start(&directory, &["--listen-client-urls", "http://localhost:0"]);
    let data = directory.path().join("data");
    let second = command(["serve", "--listen-client-urls", "http://localhost:0", "--data-dir"]);
    let holder = format!("process {}", server.child.id());
    second.argument(&data).run().fails(3, &[&holder, "which serves it", "kill"]);
    server.end();
}

#[test]
fn the_file_and_the_environment_set_what_the_command_line_does_not() {
    let directory = scratch();
    let file = directory.path().join("revfs.toml");
    let text = "name = \"from-file\"\nlisten-client-urls = [\"http://localhost:0\"]\nlog-format = \"json\"\n";
    std::fs::write(&file, text).expect("it is written");
    let file = file.to_str().expect("it is text");
    let server = Server::start(&directory, &["--config-file", file]);
    assert_eq!(server.said["name"], "from-file");
    let log = server.end();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).expect("each line is JSON");
        assert_eq!(line["level"], "INFO", "{line}");
    }
}

#[test]
fn what_is_unknown_is_refused_with_the_nearest_name() {
    revfs(["serve", "--data-dr", "x"]).fails(2, &["--data-dir"]);
    let unknown = command(["serve"]).variable("REVFS_DATADIR", "x").run();
    unknown.fails(2, &["REVFS_DATADIR", "REVFS_DATA_DIR"]);
    let directory = scratch();
    let file = directory.path().join("revfs.toml");
    std::fs::write(&file, "datadir = 'x'\n").expect("it is written");
    command(["serve", "--config-file"])
        .argument(&file)
        .run()
        .fails(2, &["'datadir'", "'data-dir'"]);
}

#[test]
fn what_does_not_fit_together_is_refused_naming_both_sides() {
    for (arguments, words) in [
        (
            "--election-timeout 400",
            &["--election-timeout 400", "--heartbeat-interval 100", "500"][..],
        ),
        ("--election-timeout 60000", &["from 1 to 50000"]),
        ("--listen-client-urls https://localhost:0", &["https://localhost:0", "certificate"]),
        (
            "--listen-client-urls http://localhost:1 --listen-metrics-urls http://127.0.0.1:1",
            &["--listen-metrics-urls", "--listen-client-urls", "another port"],
        ),
        ("--cert-file a", &["--cert-file needs key-file"]),
        ("--client-cert-auth", &["--client-cert-auth needs trusted-ca-file"]),
        ("--client-crl-file a", &["--client-crl-file needs trusted-ca-file"]),
        ("--mount-read-only", &["--mount-read-only says how", "with mount"]),
        ("--mount /mnt/revfs --mount-prefix app", &["--mount-prefix 'app'", "/registry/pods/"]),
        ("--auto-tls", &["--auto-tls contradicts --listen-client-urls", "https://"]),
        ("--auto-tls --cert-file a --key-file b", &["--auto-tls contradicts --cert-file"]),
        (
            "--listen-client-urls https://localhost:0 --auto-tls --tls-min-version TLS1.3 \
             --cipher-suites TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            &["--cipher-suites contradicts --tls-min-version"],
        ),
        (
            "--listen-client-urls https://localhost:0 --auto-tls --cipher-suites TLS_ECDHE_RSA",
            &["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
        ),
        ("--auto-tls=maybe", &["true or false"]),
        (
            "--auto-compaction-mode revision --auto-compaction-retention 1h",
            &["number of revisions"],
        ),
        ("--auto-compaction-retention 5x", &["hours (12) or a duration"]),
        ("--max-txn-ops 0", &["--max-txn-ops '0'", "from 1 to"]),
        ("--log-format xml", &["console, text or json"]),
        ("--listen-client-urls http://example.org:2379", &["http://example.org:2379", "0.0.0.0"]),
    ] {
        let line = format!("serve {arguments}");
        revfs(line.split(' ')).fails(2, words);
    }
}

#[test]
fn the_service_manager_is_told_when_it_serves_and_when_it_ends() {
    let directory = scratch();
    let path = directory.path().join("notify.sock");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).expect("a free path");
    manager.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("longer than 0");
    let told = || {
        let mut text = [0; 1_000];
        let bytes = manager.recv(&mut text).expect("it is told");
        String::from_utf8(text[..bytes].to_vec()).expect("it is text")
    };
    let mut command = Server::command(&directory, &["--listen-client-urls", "http://localhost:0"]);
    let server = Server::run(command.env("NOTIFY_SOCKET", &path));
    assert_eq!(told().lines().next(), Some("READY=1"));
    server.call(server.url(0), "put /a 1").run().ok();
    server.end();
    assert_eq!(told().lines().next(), Some("STOPPING=1"));
}

/// Whatever a failed test leaves there goes.
struct Detached(PathBuf);

impl Detached {
    fn is_mounted(&self) -> bool {
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        let point = self.0.to_str().expect("it is text");
        table.lines().any(|line| line.split(' ').nth(4) == Some(point))
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        while self.is_mounted() && umount2(&self.0, MntFlags::MNT_DETACH).is_ok() {}
    }
}

#[test]
fn it_mounts_its_store_and_serves_on_when_the_mount_is_taken_away() {
    let directory = scratch();
    let point = Detached(directory.path().canonicalize().expect("it exists").join("mnt"));
    let mount = point.0.to_str().expect("it is text");
    let arguments = ["--listen-client-urls", "http://localhost:0", "--mount", mount];
    let server = Server::start(&directory, &arguments);
    assert_eq!(server.said["directory"], mount);
    let url = server.url(0).to_owned();
    std::fs::write(point.0.join("color"), "red").expect("it is mounted");
    assert_eq!(server.call(&url, "get /color").run().ok(), "red\n");
    revfs(["umount", mount]).ok();
    assert!(!point.is_mounted());
    server.call(&url, "put /color blue").run().ok();
    assert!(server.end().contains("serves on"));
    // Killed, it leaves a dead mount behind, which the next one takes away.
    drop(Server::start(&directory, &arguments));
    let server = Server::start(&directory, &arguments);
    let color = std::fs::read_to_string(point.0.join("color")).expect("it is mounted");
    assert_eq!(color.trim_end(), "blue");
    server.end();
    assert!(!point.is_mounted());
    let inside = point.0.join("data");
    let refused = command(["serve", "--mount", mount, "--data-dir"]).argument(inside).run();
    refused.fails(2, &["inside the mount point"]);
}

#[test]
fn pages_and_names_are_let_in_by_lists() {
    use std::io::Write as _;
    let directory = scratch();
    let lists = ["--host-whitelist", "known.example, localhost", "--cors", "https://page.example"];
    let urls = ["--listen-client-urls", "http://localhost:0"];
    let server = Server::start(&directory, &[&lists[..], &urls[..]].concat());
    let address = server.url(0).strip_prefix("http://").expect("a URL").to_owned();
    let ask = |method: &str, host: &str, origin: &str| {
        let mut stream = std::net::TcpStream::connect(&address).expect("it listens");
        let body = "{\"key\":\"Yg==\"}";
        let request = format!(
            "{method} /v3/kv/range HTTP/1.1\r\nhost: {host}\r\norigin: {origin}\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it is text");
        answer.to_lowercase()
    };
    let page = "https://page.example";
    let allowed = "access-control-allow-origin: https://page.example\r\n";
    let answer = ask("POST", "known.example:2379", page);
    assert!(answer.starts_with("http/1.1 200") && answer.contains(allowed), "{answer}");
    let preflight = ask("OPTIONS", "localhost", page);
    assert!(preflight.starts_with("http/1.1 200") && preflight.contains(allowed), "{preflight}");
    assert!(preflight.contains("access-control-allow-headers: accept, content-type"));
    let stranger = ask("POST", "localhost", "https://other.example");
    assert!(stranger.starts_with("http/1.1 200"), "{stranger}");
    assert!(!stranger.contains("access-control"), "its page may not read it: {stranger}");
    let rebound = ask("POST", "other.example", page);
    assert!(rebound.starts_with("http/1.1 421"), "{rebound}");
    assert!(rebound.contains("--host-whitelist \"other.example\""), "{rebound}");
    server.call(server.url(0), "put /a 1").run().ok();
    let log = server.end();
    assert!(log.contains("other.example"), "{log}");
}
