//! The power goes at any moment, and the disk has what was synced, and of the rest whole pages, torn ones, some in
//! another order, or nothing. No acknowledged change is lost, and the store opens.
//!
//! `REVFS_POWER_CUTS=N` takes as many as are said instead of what fits into the usual time.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_api::wire::etcdserverpb::{CompactionRequest, PutRequest, RangeRequest};
use revfs_tests::dice::Dice;
use revfs_tests::forgetful::ForgetfulDisk;
use revfs_tests::{program, tools, wait};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

/// What the cuts of a usual run may take together.
const USUAL_TIME: Duration = Duration::from_secs(40);

const WRITERS: u64 = 6;

const BYTES_MAX: u64 = 20_000;

const CALL_LIMIT: Duration = Duration::from_secs(20);

/// A node whose data lies on the disk; killed with its power.
struct Powered {
    child: Child,
    /// Kept open: what it says at its end waits there.
    said: std::io::BufReader<std::process::ChildStdout>,
}

impl Powered {
    fn start(disk: &Path, log: &Path) -> Self {
        tools::need(&["setpriv"]);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program::revfs()).args(["serve", "--json"]);
        // The log of entries is purged often: that reuses its files.
        command.args(["--listen-client-urls=http://127.0.0.1:0", "--snapshot-count=200"]);
        command.arg("--data-dir").arg(disk.join("data")).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(log).expect("a file for its log"));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let said = std::io::BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, said }
    }

    /// Waits until it serves: its address, or nothing if it ended.
    fn address(&mut self) -> Option<String> {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.said, &mut line).expect("it is text");
        let said: serde_json::Value = serde_json::from_str(&line).ok()?;
        said["listening"][0].as_str().map(str::to_owned)
    }
}

impl Drop for Powered {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// One after the other, each with the next number: what was acknowledged and what was sent.
#[derive(Default)]
struct Written {
    acknowledged: AtomicU64,
    sent: AtomicU64,
}

fn connect(address: &str) -> KvClient<Channel> {
    let endpoint = Endpoint::from_shared(address.to_owned()).expect("an address");
    KvClient::new(endpoint.timeout(CALL_LIMIT).connect_lazy())
}

fn key(writer: u64) -> Vec<u8> {
    format!("/writer/{writer}").into_bytes()
}

/// Writes until the node does not acknowledge any more.
async fn write(address: String, writer: u64, mut dice: Dice, written: Arc<Written>) {
    let mut client = connect(&address);
    loop {
        let number = written.sent.load(Ordering::SeqCst) + 1;
        written.sent.store(number, Ordering::SeqCst);
        let bytes = usize::try_from(dice.below(BYTES_MAX)).expect("small");
        let value = format!("{number} {}", "x".repeat(bytes)).into_bytes().into();
        let put = PutRequest { key: key(writer).into(), value, ..PutRequest::default() };
        let Ok(answer) = client.put(put).await else { return };
        written.acknowledged.store(number, Ordering::SeqCst);
        if dice.below(50) == 0 {
            let revision = answer.into_inner().header.map_or(0, |header| header.revision);
            let compact = CompactionRequest { revision, physical: false };
            // Another may have compacted further.
            client.compact(compact).await.ok();
        }
    }
}

/// What a writer's key holds.
async fn read(client: &mut KvClient<Channel>, writer: u64) -> u64 {
    let request = RangeRequest { key: key(writer).into(), ..RangeRequest::default() };
    let answer = client.range(request).await.expect("it serves").into_inner();
    let value = answer.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
    let number = value.as_deref().and_then(|value| value.split(' ').next()?.parse().ok());
    number.unwrap_or(0)
}

struct Run {
    disk: ForgetfulDisk,
    dice: Dice,
    runtime: Runtime,
    written: Vec<Arc<Written>>,
    log: tempfile::NamedTempFile,
}

impl Run {
    fn new(test: &str, lies: bool) -> Self {
        let disk = Path::new(env!("CARGO_BIN_EXE_forgetful-disk"));
        Self {
            disk: ForgetfulDisk::start(disk, lies),
            dice: Dice::new(test),
            runtime: Runtime::new().expect("a runtime"),
            written: (0..WRITERS).map(|_| Arc::default()).collect(),
            log: tempfile::NamedTempFile::new().expect("a file for the node's log"),
        }
    }

    /// Starts the node, compares, writes, and cuts the power; what was wrong, if anything was.
    fn one_cut(&mut self) -> Result<(), String> {
        let mut node = Powered::start(&self.disk.path(), self.log.path());
        let pause = Duration::from_millis(self.dice.below(500));
        // Nothing is waited for but the moment.
        let rest = || assert!(wait::ask(pause, || None::<()>).is_none());
        let writers = if self.dice.below(5) == 0 {
            // While it opens what the last cut left.
            rest();
            Vec::new()
        } else {
            let address = node.address().ok_or_else(|| self.refusal())?;
            self.compare(&address)?;
            let writers = self.start_writers(&address);
            rest();
            writers
        };
        let lost = self.disk.cut(self.dice.roll());
        drop(node);
        for writer in writers {
            self.runtime.block_on(writer).expect("no writer panics");
        }
        self.disk.revive();
        println!("lost with the power: {}", lost.trim_end());
        Ok(())
    }

    fn refusal(&self) -> String {
        let log = std::fs::read_to_string(self.log.path()).unwrap_or_default();
        format!("the node does not start: {log}")
    }

    fn start_writers(&mut self, address: &str) -> Vec<tokio::task::JoinHandle<()>> {
        let start = |(writer, written): (u64, &Arc<Written>)| {
            let dice = Dice::from_seed(self.dice.roll());
            self.runtime.spawn(write(address.to_owned(), writer, dice, Arc::clone(written)))
        };
        (0..).zip(&self.written).map(start).collect()
    }

    fn compare(&mut self, address: &str) -> Result<(), String> {
        let mut client = self.runtime.block_on(async { connect(address) });
        for (writer, written) in (0..).zip(&self.written) {
            let held = self.runtime.block_on(read(&mut client, writer));
            let acknowledged = written.acknowledged.load(Ordering::SeqCst);
            let sent = written.sent.load(Ordering::SeqCst);
            if !(acknowledged..=sent).contains(&held) {
                return Err(format!(
                    "writer {writer}: {acknowledged} was acknowledged, {sent} sent, {held} is there"
                ));
            }
            // What was sent without an answer happened, or never will.
            written.acknowledged.store(held, Ordering::SeqCst);
        }
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.written.iter().map(|written| written.acknowledged.load(Ordering::SeqCst)).sum()
    }
}

/// Half of the time a disk that was told to sync what lies in it, but not its name, forgets a directory.
#[test]
fn a_new_data_directory_survives_its_first_cut() {
    for round in 0..6 {
        let mut run = Run::new("first cut", false);
        for _ in 0..2 {
            run.one_cut().unwrap_or_else(|wrong| panic!("round {round}: {wrong}"));
        }
    }
}

#[test]
fn no_cut_of_the_power_costs_an_acknowledged_change_or_the_store() {
    let wanted: Option<u64> = std::env::var("REVFS_POWER_CUTS").ok().map(|text| {
        text.parse().unwrap_or_else(|error| panic!("REVFS_POWER_CUTS={text}: {error}"))
    });
    let mut run = Run::new("power_cuts", false);
    let begun = Instant::now();
    let mut cuts = 0;
    while wanted.map_or(begun.elapsed() < USUAL_TIME, |wanted| cuts < wanted) {
        run.one_cut().unwrap_or_else(|wrong| panic!("after {cuts} cuts: {wrong}"));
        cuts += 1;
    }
    let mut node = Powered::start(&run.disk.path(), run.log.path());
    let address = node.address().unwrap_or_else(|| panic!("{}", run.refusal()));
    run.compare(&address).unwrap_or_else(|wrong| panic!("after {cuts} cuts: {wrong}"));
    drop(node);
    let mut inspect = Command::new(program::revfs());
    inspect.arg("inspect").arg(run.disk.path().join("data")).arg("--check");
    let inspected = inspect.output().expect("it is built");
    assert!(inspected.status.success(), "{}", String::from_utf8_lossy(&inspected.stdout));
    println!("{cuts} cuts, {} changes acknowledged", run.acknowledged());
    assert!(run.acknowledged() > cuts, "too few changes to say anything");
}

#[test]
fn a_disk_that_only_says_that_it_has_stored_is_found_out() {
    const CUTS_MAX: u64 = 100;
    let mut run = Run::new("lying_disk", true);
    let wrong = (0..CUTS_MAX).find_map(|_| run.one_cut().err());
    println!("{}", wrong.expect("what was acknowledged was not stored, and nobody noticed"));
}
