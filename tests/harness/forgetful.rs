//! A disk that forgets at a power cut what was not synced: a file system in a process of its own.
//!
//! [`ForgetfulDisk`] is the tests' side; the program `forgetful-disk` is [`serve`], which is told by lines on its
//! input when the power goes and when it is back.

mod disk;
mod served;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption};
use nix::mount::{MntFlags, umount2};
use parking_lot::Mutex;
use tempfile::TempDir;

use self::disk::{Cut, Disk};
use self::served::Served;
use crate::dice::Dice;
use crate::{mount, tools, wait};

/// Says that it has stored what it was asked to, and has not.
const LIES: &str = "--lies";

/// How often something is stored before the power goes when something is.
const OTHERS_MAX: u64 = 6;

/// Who stores nothing for so long has his power cut at rest.
const STORING_LIMIT: Duration = Duration::from_millis(300);

/// See the module. The power is there; when dropped, everything is gone.
pub struct ForgetfulDisk {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    directory: TempDir,
}

impl ForgetfulDisk {
    /// An empty one. `program` is `forgetful-disk`; with `lies` the planted fault.
    ///
    /// # Panics
    /// If it cannot be mounted.
    #[must_use]
    pub fn start(program: &Path, lies: bool) -> Self {
        tools::need(&["fusermount3", "setpriv"]);
        let directory = TempDir::with_prefix("revfs-forgetful-").expect("a temporary directory");
        std::fs::create_dir(directory.path().join("mnt")).expect("a mount point");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(program).arg(directory.path().join("mnt"));
        command.args(lies.then_some(LIES)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut disk = Self { child, input, output, directory };
        disk.answer();
        disk
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it is text");
        assert!(line.ends_with('\n'), "the disk is gone");
        line
    }

    fn tell(&mut self, line: &str) -> String {
        let input = self.input.as_mut().expect("it is open until the end");
        writeln!(input, "{line}").expect("the disk listens");
        self.answer()
    }

    /// The file system.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    /// The power goes, now or when something is next stored: from then on every access is an error. What was lost, in
    /// words.
    pub fn cut(&mut self, seed: u64) -> String {
        self.tell(&format!("cut {seed}"))
    }

    /// The power is back; whoever used the disk must have ended.
    pub fn revive(&mut self) {
        self.tell("revive");
    }
}

impl Drop for ForgetfulDisk {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.input.take());
        self.child.wait().ok();
        mount::detach(&self.path());
    }
}

fn mounted(disk: &Arc<Mutex<Disk>>, point: &Path) -> BackgroundSession {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("forgetful".to_owned())];
    fuser::spawn_mount(Served(Arc::clone(disk)), point, &config)
        .unwrap_or_else(|error| panic!("{}: {error}", point.display()))
}

/// The program: serves an empty disk at the directory that is its argument until its input ends.
///
/// # Panics
/// If it cannot, or is told what it does not understand.
pub fn serve() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let point = PathBuf::from(arguments.first().expect("it is told where to mount"));
    let disk = Arc::new(Mutex::new(Disk::new(arguments.iter().any(|argument| argument == LIES))));
    let mut session = Some(mounted(&disk, &point));
    let mut output = std::io::stdout();
    let mut say = |words: &str| {
        writeln!(output, "{words}").and_then(|()| output.flush()).ok();
    };
    say("ready");
    for line in std::io::stdin().lines() {
        let line = line.expect("the input is text");
        match line.split_once(' ') {
            Some(("cut", seed)) => {
                let seed = seed.parse().expect("a seed is a number");
                let cut = cut(&disk, Dice::from_seed(seed));
                say(&format!("{} pages, {} names", cut.pages, cut.names));
            }
            None if line == "revive" => {
                // What the kernel has of it goes with the mount.
                end(&point, session.take());
                disk.lock().revive();
                session = Some(mounted(&disk, &point));
                say("ready");
            }
            _ => panic!("'{line}' is neither a cut nor the end of one"),
        }
    }
    end(&point, session);
}

fn cut(disk: &Mutex<Disk>, mut dice: Dice) -> Cut {
    if dice.below(4) > 0 {
        let others = dice.below(OTHERS_MAX);
        disk.lock().arm(others, Dice::from_seed(dice.roll()));
        if let Some(cut) = wait::ask(STORING_LIMIT, || disk.lock().lost()) {
            return cut;
        }
    }
    let mut disk = disk.lock();
    let lost = disk.lost();
    lost.unwrap_or_else(|| disk.cut(&mut dice))
}

fn end(point: &Path, session: Option<BackgroundSession>) {
    // An error means that it is gone already.
    umount2(point, MntFlags::MNT_DETACH).ok();
    if let Some(session) = session {
        session.join().ok();
    }
}
