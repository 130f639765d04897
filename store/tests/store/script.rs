//! The scenarios under store/testdata: commands and what the store answers, as text.
//!
//! A file is made of blocks: commands, a line `----`, the answers, an empty line. Each file starts
//! with an empty store and its entries have term 1; every block is run again after a restart of the store,
//! so that its reads are checked on the overlay and on LMDB. `REVFS_UPDATE=1` rewrites the answers: read the difference.

mod auth;
mod members;
mod parse;
mod print;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use revfs_store::types::{ChangesQuery, Revision, Time};
use revfs_store::{Body, Command, Position, Store, StoreOptions};

use parse::{Action, Lines};

pub(crate) struct Scenario {
    directory: tempfile::TempDir,
    store: Option<Store>,
    index: u64,
}

fn options() -> StoreOptions {
    StoreOptions { map_bytes: 1 << 28, ..StoreOptions::default() }
}

impl Scenario {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Some(Store::create(directory.path(), options()).unwrap());
        Self { directory, store, index: 0 }
    }

    /// Goes on with the store in `directory`.
    pub(crate) fn open(directory: tempfile::TempDir) -> Self {
        let store = Store::open(directory.path(), options()).unwrap();
        let index = store.applied().index;
        Self { directory, store: Some(store), index }
    }

    /// Stops; the store is in the directory.
    pub(crate) fn close(mut self) -> tempfile::TempDir {
        self.settle();
        self.store.take().unwrap().close().unwrap();
        self.directory
    }

    fn apply(&mut self, body: Body) -> String {
        self.index += 1;
        let time = Time(i64::try_from(self.index).unwrap() * 10);
        let author = revfs_store::types::Author {
            principal: "alice".to_owned(),
            claimed: "alice@host".to_owned(),
        };
        let command = Command { time, author, note: Bytes::new(), body };
        let position = Position { index: self.index, term: 1, raft: Bytes::new() };
        let outcome = self.store.as_ref().unwrap().apply(position, &command).unwrap();
        print::outcome(&outcome)
    }

    fn restart(&mut self) {
        self.store.take().unwrap().close().unwrap();
        self.store = Some(Store::open(self.directory.path(), options()).unwrap());
    }

    /// Waits until a compaction is physical: nothing that is read may change by it.
    fn settle(&self) {
        let store = self.store.as_ref().unwrap();
        let compacted = store.read_view().unwrap().compacted();
        let timeout = std::time::Duration::from_secs(60);
        assert!(store.wait_compacted(compacted, timeout).unwrap());
    }

    fn run(&mut self, action: Action) -> String {
        let action = match action {
            Action::Apply(body) => return self.apply(body),
            Action::As(user, at, asked) => match *asked {
                Action::Apply(body) => {
                    let now =
                        || self.store.as_ref().unwrap().read_view().unwrap().auth().revision();
                    let auth_revision = at.unwrap_or_else(now);
                    return self.apply(Body::Request { user, auth_revision, body: Box::new(body) });
                }
                read => Action::As(user, at, Box::new(read)),
            },
            read => read,
        };
        let before = self.read(&action);
        self.settle();
        self.restart();
        let after = self.read(&action);
        assert_eq!(before, after, "{action:?} before and after a restart");
        after
    }

    fn read(&self, action: &Action) -> String {
        let view = self.store.as_ref().unwrap().read_view().unwrap();
        match action {
            Action::Apply(_) => unreachable!("run applies"),
            Action::As(user, at, asked) => match auth::authorise(&view, user, *at, asked) {
                Ok(()) => self.read(asked),
                Err(error) => format!("error: {error}"),
            },
            Action::Auth => auth::show(view.auth()),
            Action::Get(at, query) => print::read(view.range(*at, query), print::range),
            Action::List(at, query) => print::read(view.list(*at, query), print::list),
            Action::Directory(at, directory) => {
                print::read(view.directory(*at, directory), |state| print::directory(&state))
            }
            Action::History(key) => {
                let versions = view.history(key, Revision::NONE, 0, false).unwrap();
                let lines = versions.iter().map(|(event, stamp)| {
                    format!("{} by {:?}", print::event(event), stamp.author.principal)
                });
                lines.collect::<Vec<_>>().join("\n")
            }
            Action::Changes(from, to, range) => {
                let query = ChangesQuery {
                    ranges: vec![range.clone()],
                    from: *from,
                    to: *to,
                    newest_first: false,
                    limit: 0,
                    scan_limit: 0,
                    keys_only: false,
                };
                print::read(view.changes(&query), print::changes)
            }
            Action::At(time) => print::read(view.revision_at(*time), |found| found.to_string()),
            Action::Leases(after, limit) => print::leases(&view.leases(*after, *limit).unwrap()),
            Action::Lease(id) => {
                let found = view.lease(*id).unwrap().map(|lease| print::leases(&[lease]));
                let keys = view.lease_keys(*id).unwrap();
                let keys: Vec<_> = keys.iter().map(|key| key.escape_ascii().to_string()).collect();
                format!("{}: {}", found.unwrap_or_else(|| "none".into()), keys.join(" "))
            }
            Action::Members => members::show(&view),
            Action::Uploads => {
                let uploads = view.uploads().unwrap().into_iter();
                let lines = uploads.map(|(id, state)| format!("upload {} {state:?}", id.0));
                lines.collect::<Vec<_>>().join("\n")
            }
            Action::Hash(at) => {
                let store = self.store.as_ref().unwrap();
                print::read(store.hash_kv(*at), |found| format!("hash {}", found.hash))
            }
            Action::Revision => {
                format!("current {} compacted {}", view.current(), view.compacted())
            }
        }
    }
}

/// Runs a file; returns it with the answers of this run.
pub(crate) fn run(scenario: &mut Scenario, text: &str) -> String {
    let mut output = String::new();
    for block in text.split("\n\n").map(str::trim_end).filter(|block| !block.is_empty()) {
        let Some((commands, _)) = block.split_once("----") else {
            // A block without answers is a comment.
            assert!(block.lines().all(|line| line.starts_with('#')), "no ---- in: {block}");
            writeln!(output, "{block}\n").unwrap();
            continue;
        };
        writeln!(output, "{commands}----").unwrap();
        let mut lines = Lines::new(commands);
        while let Some(action) = lines.action() {
            let answer = scenario.run(action);
            // An empty line would end the block.
            let answer = if answer.is_empty() { "(nothing)" } else { &answer };
            writeln!(output, "{answer}").unwrap();
        }
        output.push('\n');
    }
    output
}

#[test]
fn scenarios_are_answered_as_their_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(files.len() >= 6);
    let mut different = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let found = run(&mut Scenario::new(), &text);
        if std::env::var_os("REVFS_UPDATE").is_some() {
            std::fs::write(&path, found).unwrap();
        } else if found != text {
            let lines = text.lines().zip(found.lines()).find(|(own, new)| own != new);
            different.push(format!("{}: {lines:?}", path.display()));
        }
    }
    assert!(different.is_empty(), "expected and found:\n{}", different.join("\n"));
}
