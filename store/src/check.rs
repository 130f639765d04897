//! Checks an LMDB data file without LMDB, before LMDB sees it.
//!
//! LMDB trusts its pages: it answers a damaged header with an assertion, or reads beyond the page or
//! the file. So the pages are checked here first, breadth first from the roots, so that the branches
//! of every tree come before the leaves: each page's header and nodes, the order of keys within and
//! between pages, that no page is used twice or both used and free, the counts that LMDB keeps of
//! each tree, and the checksum of every row.
//!
//! The walk ends after a number of pages, because opening a large store must not read all of it; a
//! file that is shorter than its trees say is walked whole. What the walk did not reach is left to
//! the checksums of the rows when they are read.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::OpenError;
use crate::page::{
    Content, HEADER_BYTES, Meta, TreeRecord, branches, check_overflow, leaves, u64_at,
};
use crate::schema::{ROW_STATE, StateRow, Tree, decode_state};
use crate::verify::verify_row;

/// The smallest LMDB file: two meta pages of the smallest page size.
const FILE_BYTES_MIN: u64 = 8192;

/// Checks at most `pages_max` pages of the data file `path`.
///
/// # Errors
/// A file that is no LMDB file, or the place of the first damage found.
pub fn check_file(path: &Path, pages_max: usize) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_path_buf(), source };
    let corrupt = |Damage { offset, reason }: Damage| OpenError::CorruptPage {
        path: path.to_path_buf(),
        offset,
        reason,
    };
    let file = File::open(path).map_err(io)?;
    let file_bytes = file.metadata().map_err(io)?.len();
    if file_bytes < FILE_BYTES_MIN {
        let reason = format!("{file_bytes} bytes are shorter than LMDB's two meta pages");
        return Err(corrupt(Damage { offset: 0, reason }));
    }
    let mut first = [0; 256];
    file.read_exact_at(&mut first, 0).map_err(io)?;
    let meta = match read_meta(&file, &first) {
        Ok(meta) => meta,
        Err(Failure::Damage(damage)) if !has_any_magic(&file, &first) => {
            return Err(OpenError::Foreign { path: path.to_path_buf(), reason: damage.reason });
        }
        Err(Failure::Damage(damage)) => return Err(corrupt(damage)),
        Err(Failure::Io(source)) => return Err(io(source)),
    };
    let mut walk = Walk::new(&file, file_bytes, meta, pages_max);
    match walk.run() {
        Ok(()) => Ok(()),
        Err(Failure::Damage(damage)) => Err(corrupt(damage)),
        Err(Failure::Io(source)) => Err(io(source)),
    }
}

/// Reads the state row of a whole data file without LMDB: the tree *meta* is two rows on one page.
pub(crate) fn read_state_row(file: &File) -> Result<StateRow, String> {
    let page = |meta: &Meta, record: TreeRecord| {
        let number = record.root.ok_or("a tree without rows")?;
        let mut page = vec![0; meta.page_bytes];
        let at = number.saturating_mul(u64::try_from(meta.page_bytes).unwrap_or(u64::MAX));
        file.read_exact_at(&mut page, at).map_err(|error| error.to_string())?;
        Ok::<_, String>((number, page))
    };
    let mut first = [0; 256];
    file.read_exact_at(&mut first, 0).map_err(|error| error.to_string())?;
    let meta = read_meta(file, &first).map_err(|failure| match failure {
        Failure::Damage(damage) => damage.reason,
        Failure::Io(error) => error.to_string(),
    })?;
    let (number, main) = page(&meta, meta.main)?;
    let trees = leaves(&main, number)?;
    let name = Tree::Meta.name().as_bytes();
    let record = trees.iter().find(|leaf| leaf.key == name).map(|leaf| &leaf.content);
    let Some(Content::Tree(record)) = record else { return Err("no tree meta".to_owned()) };
    let (number, rows) = page(&meta, TreeRecord::parse(record)?)?;
    let rows = leaves(&rows, number)?;
    match rows.iter().find(|leaf| leaf.key == ROW_STATE).map(|leaf| &leaf.content) {
        Some(Content::Inline(value)) => decode_state(value).map_err(|error| error.to_string()),
        _ => Err("no row state in the tree meta".to_owned()),
    }
}

struct Damage {
    offset: u64,
    reason: String,
}

enum Failure {
    Damage(Damage),
    Io(std::io::Error),
}

fn has_any_magic(file: &File, first: &[u8]) -> bool {
    let mut second = [0; 256];
    let second_has = file.read_exact_at(&mut second, 4096).is_ok() && Meta::has_magic(&second);
    Meta::has_magic(first) || second_has
}

/// The newer meta page. LMDB opens a file only if both are whole.
fn read_meta(file: &File, first: &[u8]) -> Result<Meta, Failure> {
    let damage = |offset| move |reason| Failure::Damage(Damage { offset, reason });
    let zero = Meta::parse(first, 0).map_err(damage(0))?;
    let offset = u64::try_from(zero.page_bytes).unwrap_or(u64::MAX);
    let mut second = [0; 256];
    file.read_exact_at(&mut second, offset).map_err(Failure::Io)?;
    let one = Meta::parse(&second, 1).map_err(damage(offset))?;
    if one.page_bytes != zero.page_bytes {
        return Err(damage(offset)("the meta pages disagree on the size of a page".to_owned()));
    }
    // Transactions take turns between the two; a fresh file has 0 in both.
    let distance = zero.txn.abs_diff(one.txn);
    if distance > 1 {
        let reason = format!("the meta pages are of transactions {} and {}", zero.txn, one.txn);
        return Err(damage(offset)(reason));
    }
    Ok(if one.txn > zero.txn { one } else { zero })
}

/// A tree of the file: LMDB's own two, then ours.
#[derive(Default)]
struct Counts {
    branch_pages: u64,
    leaf_pages: u64,
    overflow_pages: u64,
    entries: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Free,
    Main,
    Ours(Tree),
}

struct Root {
    kind: Kind,
    record: TreeRecord,
    counts: Counts,
    /// Where the record stands, for errors.
    offset: u64,
}

/// A page to visit, and the bounds that its parent gives its keys: `[low, high)`.
struct Visit {
    root: usize,
    page: u64,
    level: u16,
    low: Vec<u8>,
    high: Option<Vec<u8>>,
}

struct Walk<'f> {
    file: &'f File,
    meta: Meta,
    pages_in_file: u64,
    pages_left: usize,
    /// Whether the walk may end before it has seen all. Then the lists of free pages say nothing, and
    /// a large value takes no part in it: one may be longer than the walk.
    is_bounded: bool,
    used: Vec<u64>,
    free: Vec<u64>,
    roots: Vec<Root>,
    queue: VecDeque<Visit>,
}

fn test_and_set(bits: &mut [u64], page: u64) -> Option<bool> {
    let word = bits.get_mut(usize::try_from(page / 64).ok()?)?;
    let bit = 1 << (page % 64);
    let was_set = *word & bit != 0;
    *word |= bit;
    Some(was_set)
}

impl<'f> Walk<'f> {
    fn new(file: &'f File, file_bytes: u64, meta: Meta, pages_max: usize) -> Self {
        let pages_in_file = file_bytes / u64::try_from(meta.page_bytes).unwrap_or(u64::MAX);
        // The last pages may be missing if they are free; then only a whole walk can tell.
        let is_short = meta.last_page >= pages_in_file;
        let words = usize::try_from(pages_in_file / 64 + 1).unwrap_or(usize::MAX);
        let record = |kind, record| Root { kind, record, counts: Counts::default(), offset: 0 };
        Self {
            file,
            meta,
            pages_in_file,
            pages_left: if is_short { usize::MAX } else { pages_max },
            is_bounded: !is_short && u64::try_from(pages_max).is_ok_and(|max| max < pages_in_file),
            used: vec![0; words],
            free: Vec::new(),
            roots: vec![record(Kind::Free, meta.free), record(Kind::Main, meta.main)],
            queue: VecDeque::new(),
        }
    }

    fn offset(&self, page: u64) -> u64 {
        page.saturating_mul(u64::try_from(self.meta.page_bytes).unwrap_or(u64::MAX))
    }

    fn damage(&self, page: u64, reason: impl Into<String>) -> Failure {
        Failure::Damage(Damage { offset: self.offset(page), reason: reason.into() })
    }

    fn run(&mut self) -> Result<(), Failure> {
        for page in 0..2 {
            test_and_set(&mut self.used, page);
        }
        self.enter(0)?;
        self.enter(1)?;
        while let Some(visit) = self.queue.pop_front() {
            if self.pages_left == 0 {
                return Ok(());
            }
            self.pages_left -= 1;
            let page = self.read(visit.page, 1)?;
            if visit.level > 1 {
                self.visit_branch(&visit, &page)?;
            } else {
                self.visit_leaf(&visit, &page)?;
            }
        }
        if self.is_bounded {
            // It passed over what the counts are compared with.
            return Ok(());
        }
        self.check_counts()?;
        self.check_free()
    }

    /// Queues the root of a tree.
    fn enter(&mut self, root: usize) -> Result<(), Failure> {
        let Root { record, offset, .. } = &self.roots[root];
        let (record, offset) = (*record, *offset);
        let is_empty = record.root.is_none();
        if is_empty != (record.entries == 0) || is_empty != (record.depth == 0) {
            let reason = format!("a tree of depth {} has {} rows", record.depth, record.entries);
            return Err(Failure::Damage(Damage { offset, reason }));
        }
        if let Some(page) = record.root {
            let level = record.depth;
            self.queue.push_back(Visit { root, page, level, low: Vec::new(), high: None });
        }
        Ok(())
    }

    /// Reads `pages` pages that nothing else uses.
    fn read(&mut self, page: u64, pages: u64) -> Result<Vec<u8>, Failure> {
        let end = page.saturating_add(pages);
        if page < 2 || end > self.pages_in_file || end > self.meta.last_page.saturating_add(1) {
            let reason = format!(
                "{pages} pages from page {page} are wanted; the file has {}, its last used page is {}",
                self.pages_in_file, self.meta.last_page
            );
            return Err(self.damage(page, reason));
        }
        for own in page..end {
            if test_and_set(&mut self.used, own) != Some(false) {
                return Err(self.damage(own, format!("page {own} is used twice")));
            }
        }
        let bytes = usize::try_from(pages).unwrap_or(usize::MAX) * self.meta.page_bytes;
        let mut buffer = vec![0; bytes];
        self.file.read_exact_at(&mut buffer, self.offset(page)).map_err(Failure::Io)?;
        Ok(buffer)
    }

    fn visit_branch(&mut self, visit: &Visit, page: &[u8]) -> Result<(), Failure> {
        let nodes = branches(page, visit.page).map_err(|e| self.damage(visit.page, e))?;
        self.roots[visit.root].counts.branch_pages += 1;
        let bounds = |at: usize| {
            if at == 0 { visit.low.clone() } else { nodes[at].key.to_vec() }
        };
        if self.is_bounded && self.roots[visit.root].kind == Kind::Free {
            return Ok(());
        }
        for (at, node) in nodes.iter().enumerate() {
            let (low, high) = (
                bounds(at),
                nodes.get(at + 1).map_or(visit.high.clone(), |n| Some(n.key.to_vec())),
            );
            self.check_order(visit, &low, high.as_deref())?;
            let child =
                Visit { root: visit.root, page: node.child, level: visit.level - 1, low, high };
            self.queue.push_back(child);
        }
        Ok(())
    }

    /// Compares as the tree does: the free tree's keys are numbers in the machine's byte order.
    fn is_less(&self, root: usize, a: &[u8], b: &[u8]) -> bool {
        if self.roots[root].kind == Kind::Free {
            return u64_at(a, 0).unwrap_or(0) < u64_at(b, 0).unwrap_or(0);
        }
        a < b
    }

    fn check_order(&self, visit: &Visit, low: &[u8], high: Option<&[u8]>) -> Result<(), Failure> {
        let is_in = !self.is_less(visit.root, low, &visit.low)
            && high.is_none_or(|high| self.is_less(visit.root, low, high) || low.is_empty())
            && match (high, &visit.high) {
                (Some(high), Some(bound)) => !self.is_less(visit.root, bound, high),
                _ => true,
            };
        if is_in {
            return Ok(());
        }
        Err(self.damage(visit.page, format!("the keys of page {} are out of order", visit.page)))
    }

    fn visit_leaf(&mut self, visit: &Visit, page: &[u8]) -> Result<(), Failure> {
        let nodes = leaves(page, visit.page).map_err(|e| self.damage(visit.page, e))?;
        let counts = &mut self.roots[visit.root].counts;
        counts.leaf_pages += 1;
        counts.entries += u64::try_from(nodes.len()).unwrap_or(u64::MAX);
        let mut low: &[u8] = &visit.low;
        for (at, node) in nodes.iter().enumerate() {
            let is_above = self.is_less(visit.root, low, node.key)
                || (at == 0 && !self.is_less(visit.root, node.key, low));
            let high = visit.high.as_deref();
            if !is_above || high.is_some_and(|high| !self.is_less(visit.root, node.key, high)) {
                let reason = format!("the keys of page {} are out of order", visit.page);
                return Err(self.damage(visit.page, reason));
            }
            low = node.key;
            match node.content {
                Content::Inline(value) => self.visit_row(visit, node.key, value)?,
                Content::Overflow { .. } if self.is_bounded => {}
                Content::Overflow { page, bytes } => {
                    let size = self.meta.page_bytes;
                    let pages = u64::try_from((HEADER_BYTES + bytes).div_ceil(size));
                    let pages = pages.unwrap_or(u64::MAX);
                    let whole = self.read(page, pages)?;
                    check_overflow(&whole, page, pages).map_err(|e| self.damage(page, e))?;
                    self.roots[visit.root].counts.overflow_pages += pages;
                    let read = usize::try_from(pages).unwrap_or(usize::MAX);
                    self.pages_left = self.pages_left.saturating_sub(read);
                    let value = &whole[HEADER_BYTES..HEADER_BYTES + bytes];
                    self.visit_row(visit, node.key, value)?;
                }
                Content::Tree(record) => self.visit_tree(visit, node.key, record)?,
            }
        }
        Ok(())
    }

    fn visit_tree(&mut self, visit: &Visit, name: &[u8], record: &[u8]) -> Result<(), Failure> {
        let damage = |reason: String| self.damage(visit.page, reason);
        let tree = Tree::ALL.into_iter().find(|tree| tree.name().as_bytes() == name);
        let tree = tree.filter(|_| self.roots[visit.root].kind == Kind::Main);
        let tree = tree
            .ok_or_else(|| damage(format!("\"{}\" is no tree of a store", name.escape_ascii())))?;
        let record = TreeRecord::parse(record).map_err(damage)?;
        let offset = self.offset(visit.page);
        let counts = Counts::default();
        self.roots.push(Root { kind: Kind::Ours(tree), record, counts, offset });
        self.enter(self.roots.len() - 1)
    }

    fn visit_row(&mut self, visit: &Visit, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        match self.roots[visit.root].kind {
            Kind::Ours(tree) => {
                verify_row(tree, key, value).map_err(|e| self.damage(visit.page, e.to_string()))
            }
            Kind::Main => Err(self.damage(visit.page, "the main tree holds a plain row")),
            Kind::Free => {
                let count = u64_at(value, 0).and_then(|count| usize::try_from(count).ok());
                let is_whole = count.and_then(|count| count.checked_add(1)?.checked_mul(8));
                if is_whole != Some(value.len()) {
                    return Err(self.damage(visit.page, "a list of free pages has another length"));
                }
                self.free.extend((8..value.len()).step_by(8).filter_map(|at| u64_at(value, at)));
                Ok(())
            }
        }
    }

    fn check_counts(&self) -> Result<(), Failure> {
        for Root { record, counts, offset, .. } in &self.roots {
            let found =
                (counts.branch_pages, counts.leaf_pages, counts.overflow_pages, counts.entries);
            let expected =
                (record.branch_pages, record.leaf_pages, record.overflow_pages, record.entries);
            if found != expected {
                let reason = format!(
                    "a tree has (branch, leaf, overflow pages, rows) {found:?}, {expected:?} expected"
                );
                return Err(Failure::Damage(Damage { offset: *offset, reason }));
            }
        }
        Ok(())
    }

    /// A page that is both free and used would be overwritten by the next commit.
    fn check_free(&mut self) -> Result<(), Failure> {
        for page in std::mem::take(&mut self.free) {
            let is_outside = page < 2 || page > self.meta.last_page;
            if is_outside || test_and_set(&mut self.used, page) == Some(true) {
                return Err(
                    self.damage(page, format!("page {page} is free, and used or free twice"))
                );
            }
        }
        Ok(())
    }
}
