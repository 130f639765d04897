//! Random operations, compared with a small POSIX file system in memory after each of them.
//!
//! The model has inodes, one tree of names and open files; it knows nothing of staging. A second mount
//! of the same store must show the same once everything is closed.

use std::collections::BTreeMap;
use std::sync::Arc;

use fuser::{Errno, FileType};
use proptest::collection;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::{ANYBODY, CREATE, Mount, Open};
use crate::filesystem::Answer;
use crate::memory::Memory;
use crate::ops::SetAttr;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Inode {
    File { content: Vec<u8>, mode: u16 },
    Directory { mode: u16 },
    Symlink { target: String },
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Create { path: String, flags: i32 },
    Open { path: String, flags: i32 },
    Write { file: usize, offset: u8, content: String },
    Resize { file: usize, size: u8 },
    Sync { file: usize },
    Close { file: usize },
    Truncate { path: String, size: u8 },
    Chmod { path: String, mode: u16 },
    Unlink { path: String },
    MakeDirectory { path: String },
    RemoveDirectory { path: String },
    Symlink { path: String },
    Rename { from: String, to: String, flags: u32 },
}

fn path() -> impl Strategy<Value = String> {
    collection::vec(prop_oneof![Just("a"), Just("b"), Just("a.b")], 1..4)
        .prop_map(|names| names.join("/"))
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let created = prop_oneof![
        Just(CREATE | libc::O_TRUNC),
        Just(CREATE | libc::O_EXCL),
        Just(CREATE),
        Just(CREATE | libc::O_APPEND),
    ];
    let opened = prop_oneof![
        Just(libc::O_RDWR),
        Just(libc::O_WRONLY | libc::O_TRUNC),
        Just(libc::O_WRONLY | libc::O_APPEND),
        Just(libc::O_RDONLY),
    ];
    let flags = prop_oneof![
        4 => Just(0),
        1 => Just(libc::RENAME_NOREPLACE),
        1 => Just(libc::RENAME_EXCHANGE),
    ];
    prop_oneof![
        4 => (path(), created).prop_map(|(path, flags)| Step::Create { path, flags }),
        3 => (path(), opened).prop_map(|(path, flags)| Step::Open { path, flags }),
        6 => (0..4usize, any::<u8>(), "[a-z]{1,4}").prop_map(|(file, offset, content)| {
            Step::Write { file, offset: offset % 12, content }
        }),
        1 => (0..4usize, 0..12u8).prop_map(|(file, size)| Step::Resize { file, size }),
        1 => (0..4usize).prop_map(|file| Step::Sync { file }),
        4 => (0..4usize).prop_map(|file| Step::Close { file }),
        1 => (path(), 0..12u8).prop_map(|(path, size)| Step::Truncate { path, size }),
        1 => (path(), prop_oneof![Just(0o600u16), Just(0o644), Just(0o755)])
            .prop_map(|(path, mode)| Step::Chmod { path, mode }),
        2 => path().prop_map(|path| Step::Unlink { path }),
        4 => path().prop_map(|path| Step::MakeDirectory { path }),
        1 => path().prop_map(|path| Step::RemoveDirectory { path }),
        1 => path().prop_map(|path| Step::Symlink { path }),
        4 => (path(), path(), flags).prop_map(|(from, to, flags)| Step::Rename { from, to, flags }),
    ]
}

#[derive(Clone, Default)]
struct Model {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    /// Open files: inode and flags.
    open: Vec<(usize, i32)>,
}

impl Model {
    fn parent(&self, path: &str) -> Answer<()> {
        let Some((parent, _)) = path.rsplit_once('/') else { return Ok(()) };
        self.parent(parent)?;
        match self.at(parent)? {
            Inode::Directory { .. } => Ok(()),
            Inode::File { .. } | Inode::Symlink { .. } => Err(Errno::ENOTDIR),
        }
    }

    fn at(&self, path: &str) -> Answer<&Inode> {
        self.parent(path)?;
        self.names.get(path).map(|inode| &self.inodes[*inode]).ok_or(Errno::ENOENT)
    }

    fn is_directory(&self, path: &str) -> bool {
        matches!(self.at(path), Ok(Inode::Directory { .. }))
    }

    fn has_children(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.names.keys().any(|name| name.starts_with(&below))
    }

    fn make(&mut self, path: &str, inode: Inode) -> Answer<usize> {
        self.parent(path)?;
        if self.names.contains_key(path) {
            return Err(Errno::EEXIST);
        }
        self.inodes.push(inode);
        self.names.insert(path.to_owned(), self.inodes.len() - 1);
        Ok(self.inodes.len() - 1)
    }

    fn create(&mut self, path: &str, flags: i32) -> Answer<()> {
        let new = Inode::File { content: Vec::new(), mode: 0o644 };
        match self.make(path, new) {
            Ok(inode) => {
                self.open.push((inode, flags));
                Ok(())
            }
            Err(Errno::EEXIST) if flags & libc::O_EXCL == 0 => self.open(path, flags),
            Err(errno) => Err(errno),
        }
    }

    fn open(&mut self, path: &str, flags: i32) -> Answer<()> {
        self.at(path)?;
        let inode = self.names[path];
        match &mut self.inodes[inode] {
            Inode::Directory { .. } => return Err(Errno::EISDIR),
            Inode::File { content, .. } if flags & libc::O_TRUNC != 0 => content.clear(),
            Inode::File { .. } | Inode::Symlink { .. } => {}
        }
        self.open.push((inode, flags));
        Ok(())
    }

    fn file(&mut self, inode: usize) -> &mut Vec<u8> {
        match &mut self.inodes[inode] {
            Inode::File { content, .. } => content,
            other => panic!("{other:?} is not open"),
        }
    }

    fn rename(&mut self, from: &str, to: &str, flags: u32) -> Answer<()> {
        self.parent(from)?;
        self.parent(to)?;
        let source = self.at(from)?.clone();
        let target = self.at(to).ok().cloned();
        if flags & libc::RENAME_EXCHANGE != 0 {
            return self.exchange(from, to, &source, target.as_ref());
        }
        if flags & libc::RENAME_NOREPLACE != 0 && target.is_some() {
            return Err(Errno::EEXIST);
        }
        if from == to {
            return Ok(());
        }
        let is_directory = |inode: &Inode| matches!(inode, Inode::Directory { .. });
        match (is_directory(&source), target.as_ref().map(is_directory)) {
            (true, Some(false)) => return Err(Errno::ENOTDIR),
            (false, Some(true)) => return Err(Errno::EISDIR),
            (true, _) if to.starts_with(&format!("{from}/")) => return Err(Errno::EINVAL),
            (true, Some(true)) if self.has_children(to) => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        let inode = self.names.remove(from).expect("it was found");
        self.names.insert(to.to_owned(), inode);
        let below = format!("{from}/");
        for name in
            self.names.keys().filter(|name| name.starts_with(&below)).cloned().collect::<Vec<_>>()
        {
            let inode = self.names.remove(&name).expect("it was listed");
            self.names.insert(format!("{to}/{}", &name[below.len()..]), inode);
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        from: &str,
        to: &str,
        source: &Inode,
        target: Option<&Inode>,
    ) -> Answer<()> {
        let target = target.ok_or(Errno::ENOENT)?;
        if from == to {
            return Ok(());
        }
        let is_directory = |inode: &Inode| matches!(inode, Inode::Directory { .. });
        let (below_from, below_to) = (format!("{from}/"), format!("{to}/"));
        if (is_directory(source) && to.starts_with(&below_from))
            || (is_directory(target) && from.starts_with(&below_to))
        {
            return Err(Errno::EINVAL);
        }
        let exchanged = |name: String| match name {
            name if name == from => to.to_owned(),
            name if name == to => from.to_owned(),
            name if name.starts_with(&below_from) => {
                format!("{below_to}{}", &name[below_from.len()..])
            }
            name if name.starts_with(&below_to) => {
                format!("{below_from}{}", &name[below_to.len()..])
            }
            name => name,
        };
        let names = std::mem::take(&mut self.names);
        self.names = names.into_iter().map(|(name, inode)| (exchanged(name), inode)).collect();
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Answer<()> {
        self.at(path)?;
        if self.is_directory(path) {
            return Err(Errno::EISDIR);
        }
        self.names.remove(path);
        Ok(())
    }

    fn remove_directory(&mut self, path: &str) -> Answer<()> {
        self.at(path)?;
        if !self.is_directory(path) {
            return Err(Errno::ENOTDIR);
        }
        if self.has_children(path) {
            return Err(Errno::ENOTEMPTY);
        }
        self.names.remove(path);
        Ok(())
    }

    fn truncate(&mut self, path: &str, size: u8) -> Answer<()> {
        self.at(path)?;
        let inode = self.names[path];
        match &mut self.inodes[inode] {
            Inode::Directory { .. } => Err(Errno::EISDIR),
            Inode::File { content, .. } => {
                content.resize(size.into(), 0);
                Ok(())
            }
            // The kernel follows symlinks before it asks.
            Inode::Symlink { .. } => Ok(()),
        }
    }

    fn chmod(&mut self, path: &str, new: u16) -> Answer<()> {
        self.at(path)?;
        let inode = self.names[path];
        match &mut self.inodes[inode] {
            Inode::Directory { mode } | Inode::File { mode, .. } => *mode = new,
            Inode::Symlink { .. } => {}
        }
        Ok(())
    }

    fn is_symlink(&self, path: &str) -> bool {
        matches!(self.at(path), Ok(Inode::Symlink { .. }))
    }
}

struct Run<'a> {
    model: Model,
    mount: &'a Mount,
    open: Vec<Open<'a>>,
}

impl<'a> Run<'a> {
    async fn step(&mut self, step: &Step) {
        match step {
            Step::Create { path, .. }
            | Step::Open { path, .. }
            | Step::Truncate { path, .. }
            | Step::Chmod { path, .. }
                // Symlinks are followed by the kernel: none of these reaches one.
                if self.model.is_symlink(path) => {}
            Step::Create { path, flags } => {
                let expected = self.model.create(path, *flags);
                let opened = self.mount.create(path, *flags).await;
                self.opened(expected, opened);
            }
            Step::Open { path, flags } => {
                let expected = self.model.open(path, *flags);
                let opened = self.mount.open(path, *flags).await;
                // The kernel opens directories by OPENDIR.
                if !self.model.is_directory(path) {
                    self.opened(expected, opened);
                } else if let Ok(open) = opened {
                    open.close().await.expect("nothing is staged");
                }
            }
            Step::Write { file, offset, content } => self.write(*file, *offset, content).await,
            Step::Resize { file, size } => self.resize(*file, *size).await,
            Step::Sync { file } => {
                if let Some(open) = self.open.get(*file) {
                    assert_eq!(open.fsync().await, Ok(()));
                }
            }
            Step::Close { file } => {
                if *file < self.open.len() {
                    self.model.open.remove(*file);
                    assert_eq!(self.open.remove(*file).close().await, Ok(()));
                }
            }
            other => self.change_names(other).await,
        }
    }

    async fn change_names(&mut self, step: &Step) {
        let mount = self.mount;
        let (expected, done) = match step {
            Step::Truncate { path, size } => {
                let set = SetAttr { size: Some((*size).into()), ..SetAttr::default() };
                (self.model.truncate(path, *size), self.set(path, set).await)
            }
            Step::Chmod { path, mode } => {
                let set = SetAttr { mode: Some((*mode).into()), ..SetAttr::default() };
                (self.model.chmod(path, *mode), self.set(path, set).await)
            }
            Step::Unlink { path } => (self.model.remove(path), mount.unlink(path).await),
            Step::MakeDirectory { path } => {
                let made = self.model.make(path, Inode::Directory { mode: 0o755 });
                (made.map(drop), mount.mkdir(path).await)
            }
            Step::RemoveDirectory { path } => {
                (self.model.remove_directory(path), mount.rmdir(path).await)
            }
            Step::Symlink { path } => {
                let link = Inode::Symlink { target: "to".to_owned() };
                (self.model.make(path, link).map(drop), mount.symlink(path, "to").await)
            }
            Step::Rename { from, to, flags } => {
                (self.model.rename(from, to, *flags), mount.rename_with(from, to, *flags).await)
            }
            other => panic!("{other:?} is done elsewhere"),
        };
        assert_eq!(done, expected);
    }

    async fn set(&self, path: &str, set: SetAttr) -> Answer<()> {
        let ino = self.mount.ino(path).await?;
        self.mount.fs.setattr(ANYBODY, ino, set).await.map(drop)
    }

    async fn write(&mut self, file: usize, offset: u8, text: &str) {
        let Some(open) = self.open.get(file) else { return };
        let (inode, flags) = self.model.open[file];
        let written = open.write(offset.into(), text).await;
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            assert_eq!(written, Err(Errno::EBADF));
            return;
        }
        assert_eq!(written, Ok(()));
        let content = self.model.file(inode);
        let start = if flags & libc::O_APPEND != 0 { content.len() } else { offset.into() };
        if content.len() < start + text.len() {
            content.resize(start + text.len(), 0);
        }
        content[start..start + text.len()].copy_from_slice(text.as_bytes());
    }

    async fn resize(&mut self, file: usize, size: u8) {
        let Some(open) = self.open.get(file) else { return };
        let (inode, flags) = self.model.open[file];
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            return;
        }
        let set =
            SetAttr { size: Some(size.into()), handle: Some(open.handle), ..SetAttr::default() };
        let done = self.mount.fs.setattr(ANYBODY, open.ino, set).await;
        assert_eq!(done.map(drop), Ok(()));
        self.model.file(inode).resize(size.into(), 0);
    }

    fn opened(&mut self, expected: Answer<()>, opened: Answer<Open<'a>>) {
        match opened {
            Ok(open) => {
                assert_eq!(expected, Ok(()));
                self.open.push(open);
            }
            Err(errno) => assert_eq!(expected, Err(errno)),
        }
    }
}

/// What a mount shows at every path of the model's universe.
async fn assert_shows(mount: &Mount, model: &Model) {
    let names = ["a", "b", "a.b"];
    let mut paths: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut index = 0;
    while index < paths.len() {
        let path = paths[index].clone();
        index += 1;
        if model.is_directory(&path) {
            paths.extend(names.iter().map(|name| format!("{path}/{name}")));
        }
        let shown = mount.stat(&path).await;
        match model.at(&path) {
            Err(errno) => assert_eq!(shown.map(|attr| attr.kind), Err(errno), "{path}"),
            Ok(Inode::Directory { mode }) => {
                let attr = shown.unwrap();
                assert_eq!((attr.kind, attr.perm), (FileType::Directory, *mode), "{path}");
            }
            Ok(Inode::Symlink { target }) => {
                let attr = shown.unwrap();
                let size = target.len() as u64;
                assert_eq!((attr.kind, attr.size), (FileType::Symlink, size), "{path}");
            }
            Ok(Inode::File { content, mode }) => {
                let attr = shown.unwrap();
                let size = content.len() as u64;
                assert_eq!((attr.perm, attr.size), (*mode, size), "{path}");
                let read = mount.read(&path).await.unwrap();
                assert_eq!(read.as_bytes(), content, "{path}");
            }
        }
    }
}

async fn run(steps: Vec<Step>) {
    let memory = Arc::new(Memory::new());
    let mount = Mount::new(&memory);
    let mut run = Run { model: Model::default(), mount: &mount, open: Vec::new() };
    for step in &steps {
        run.step(step).await;
        assert_shows(&mount, &run.model).await;
        for (open, (inode, _)) in run.open.iter().zip(&run.model.open) {
            if let Inode::File { content, .. } = &run.model.inodes[*inode] {
                assert_eq!(open.read().await.unwrap().as_bytes(), content, "open file");
            }
        }
    }
    for open in run.open.drain(..) {
        assert_eq!(open.close().await, Ok(()));
    }
    assert_shows(&mount, &run.model).await;
    assert_shows(&Mount::new(&memory), &run.model).await;
    assert!(mount.fs.unborn.lock().is_empty());
    assert_eq!(mount.fs.writing.budget.used(), 0);
}

/// Some steps on a mount, the others in a transaction on it.
async fn run_in_transaction(before: Vec<Step>, within: Vec<Step>) {
    let memory = Arc::new(Memory::new());
    let mount = Mount::new(&memory);
    let mut run = Run { model: Model::default(), mount: &mount, open: Vec::new() };
    for step in &before {
        run.step(step).await;
    }
    for open in run.open.drain(..) {
        assert_eq!(open.close().await, Ok(()));
    }
    let live = Model { open: Vec::new(), ..run.model };
    let revision = mount.revision();
    let transaction = mount.begin("t").await.unwrap();
    let mut run = Run { model: live.clone(), mount: &transaction, open: Vec::new() };
    for step in &within {
        run.step(step).await;
        assert_shows(&transaction, &run.model).await;
        for (open, (inode, _)) in run.open.iter().zip(&run.model.open) {
            if let Inode::File { content, .. } = &run.model.inodes[*inode] {
                assert_eq!(open.read().await.unwrap().as_bytes(), content, "open file");
            }
        }
    }
    for open in run.open.drain(..) {
        assert_eq!(open.close().await, Ok(()));
    }
    assert_shows(&transaction, &run.model).await;
    assert_eq!(mount.revision(), revision, "nobody else sees it");
    assert_shows(&mount, &live).await;
    assert_eq!(transaction.commit().await, Ok(()));
    assert!(mount.revision() <= revision + 1);
    assert_shows(&mount, &run.model).await;
    assert_shows(&Mount::new(&memory), &run.model).await;
    // What it decided, it shows.
    assert_shows(&transaction, &run.model).await;
}

proptest! {
    #[test]
    fn a_transaction_is_a_posix_file_system_and_becomes_one_revision(
        before in collection::vec(step(), 0..25),
        within in collection::vec(step(), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run_in_transaction(before, within));
    }

    #[test]
    fn a_mount_is_a_posix_file_system(steps in collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(steps));
    }
}
