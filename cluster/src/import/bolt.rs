//! Reading bbolt's file, page by page, and nothing else of it: etcd keeps its data in one.
//!
//! ```text
//! page 0, 1: meta (magic, page size, root of all buckets, checksum) ── the newer one that is whole counts
//! branch page: elements (key, page below) ─► leaf page: elements (key, value, or a bucket)
//! bucket: root page; a small one has its only page within its own value
//! ```
//!
//! The file is somebody else's and may be damaged: pages have no checksum, so everything that a page says
//! is compared with its bounds before it is used. Keys must ascend, and no more pages are read than the
//! file has, so that a walk ends whatever stands there.
#![expect(
    clippy::little_endian_bytes,
    reason = "bbolt writes as the machine does; etcd's are little-endian"
)]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
/// Of a bucket, before its inline page.
const BUCKET_HEADER: usize = 16;
const META_BYTES: usize = 64;
const FLAG_BRANCH: u16 = 1;
const FLAG_LEAF: u16 = 2;
const ELEMENT_IS_BUCKET: u32 = 1;
const PAGE_BYTES_MIN: u32 = 512;
const PAGE_BYTES_MAX: u32 = 1 << 20;
/// A tree of a page of two elements each would hold 2^48 rows.
const DEPTH_MAX: usize = 48;
/// etcd's requests, and so its values, are smaller by far.
const RUN_BYTES_MAX: u64 = 1 << 30;
/// `etcdctl snapshot save` puts a SHA-256 behind whole blocks.
const BLOCK_BYTES: u64 = 512;
const DIGEST_BYTES: u64 = 32;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BoltError {
    #[error("{path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} is no data file of etcd: {reason}; name what `etcdctl snapshot save` wrote, or member/snap/db",
        path = .path.display()
    )]
    Foreign { path: PathBuf, reason: String },
    #[error("{path} is damaged at byte {offset}: {reason}; use another snapshot", path = .path.display())]
    Damaged { path: PathBuf, offset: u64, reason: String },
}

/// Called with each row; an error ends the walk.
type OnRow<'r, E> = &'r mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, E>;

/// See the module.
#[derive(Debug)]
pub struct Bolt {
    file: File,
    path: PathBuf,
    file_bytes: u64,
    page_bytes: u64,
    root: u64,
    /// Pages that the file should have.
    pages: u64,
    /// A digest stood behind it and was compared.
    pub is_verified: bool,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn size_at(bytes: &[u8], at: usize) -> Option<usize> {
    u32_at(bytes, at).and_then(|size| usize::try_from(size).ok())
}

/// bbolt's checksum of a meta page: FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

struct Meta {
    page_bytes: u32,
    root: u64,
    pages: u64,
    transaction: u64,
}

impl Meta {
    /// `page` begins with the page's header.
    fn parse(page: &[u8]) -> Option<Self> {
        let meta = page.get(PAGE_HEADER..PAGE_HEADER + META_BYTES)?;
        let is_whole = u32_at(meta, 0)? == MAGIC
            && u32_at(meta, 4)? == VERSION
            && fnv(&meta[..56]) == u64_at(meta, 56)?;
        let page_bytes = u32_at(meta, 8)?;
        let is_page =
            page_bytes.is_power_of_two() && (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes);
        (is_whole && is_page).then_some(Self {
            page_bytes,
            root: u64_at(meta, 16)?,
            pages: u64_at(meta, 40)?,
            transaction: u64_at(meta, 48)?,
        })
    }
}

/// Where the rows of a bucket are.
enum Rooted {
    Page(u64),
    /// Within the bucket's own value, which stands at this offset of the file.
    Inline(Vec<u8>, u64),
}

/// A page in memory, and where it came from.
struct Page {
    bytes: Vec<u8>,
    offset: u64,
}

/// A row of a leaf, or a bucket.
struct Element<'p> {
    is_bucket: bool,
    key: &'p [u8],
    value: &'p [u8],
    /// Where the value begins in the page.
    value_at: u64,
}

/// One walk over a bucket.
struct Walk {
    /// Pages that may still be read.
    left: u64,
    last: Option<Vec<u8>>,
}

impl Bolt {
    /// Opens a snapshot or a data file; the digest of a snapshot is compared first.
    ///
    /// # Errors
    /// A file that is not etcd's, or not whole.
    pub fn open(path: &Path) -> Result<Self, BoltError> {
        let io = |source| BoltError::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let has_digest = length % BLOCK_BYTES == DIGEST_BYTES;
        let file_bytes = if has_digest { length - DIGEST_BYTES } else { length };
        let mut bolt = Self {
            file,
            path: path.to_path_buf(),
            file_bytes,
            page_bytes: 0,
            root: 0,
            pages: 0,
            is_verified: has_digest,
        };
        let meta = bolt.meta()?;
        bolt.page_bytes = u64::from(meta.page_bytes);
        (bolt.root, bolt.pages) = (meta.root, meta.pages);
        if meta.pages.checked_mul(bolt.page_bytes).is_none_or(|bytes| bytes > file_bytes) {
            let reason = format!(
                "it has {file_bytes} bytes, and should have {} pages of {}",
                meta.pages, meta.page_bytes
            );
            return Err(bolt.damaged(file_bytes, reason));
        }
        if has_digest {
            bolt.compare_digest()?;
        }
        Ok(bolt)
    }

    fn damaged(&self, offset: u64, reason: impl Into<String>) -> BoltError {
        BoltError::Damaged { path: self.path.clone(), offset, reason: reason.into() }
    }

    fn io(&self, source: io::Error) -> BoltError {
        BoltError::Io { path: self.path.clone(), source }
    }

    /// The newer of the metas that are whole. The second one lies at the size of a page, which only the
    /// first one says.
    fn meta(&self) -> Result<Meta, BoltError> {
        let at = |offset: u64| -> Result<Option<Meta>, BoltError> {
            let mut page = [0; PAGE_HEADER + META_BYTES];
            match self.file.read_exact_at(&mut page, offset) {
                Ok(()) => Ok(Meta::parse(&page)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
                Err(error) => Err(self.io(error)),
            }
        };
        let first = at(0)?;
        let sizes = match &first {
            Some(meta) => meta.page_bytes..=meta.page_bytes,
            None => PAGE_BYTES_MIN..=PAGE_BYTES_MAX,
        };
        let mut found = first;
        for size in (0..32).map(|bit| 1_u32 << bit).filter(|size| sizes.contains(size)) {
            let second = at(u64::from(size))?.filter(|meta| meta.page_bytes == size);
            let newer =
                |meta: &Meta| found.as_ref().is_none_or(|f| f.transaction < meta.transaction);
            if let Some(second) = second.filter(newer) {
                found = Some(second);
            }
        }
        found.ok_or_else(|| BoltError::Foreign {
            path: self.path.clone(),
            reason: "neither of its first two pages is a meta page of bbolt".to_owned(),
        })
    }

    fn compare_digest(&self) -> Result<(), BoltError> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).map_err(|error| self.io(error))?;
        let mut hash = Sha256::new();
        let mut chunk = vec![0; 1 << 20];
        let mut rest = file.take(self.file_bytes);
        loop {
            let read = rest.read(&mut chunk).map_err(|error| self.io(error))?;
            if read == 0 {
                break;
            }
            hash.update(&chunk[..read]);
        }
        let mut expected = [0; 32];
        let read = self.file.read_exact_at(&mut expected, self.file_bytes);
        read.map_err(|error| self.io(error))?;
        if <[u8; 32]>::from(hash.finalize()) == expected {
            return Ok(());
        }
        Err(self.damaged(0, "its SHA-256 is not the one that stands behind it"))
    }

    /// Gives every row of the bucket `name` to `each`, in ascending order; returns whether there is such a
    /// bucket.
    ///
    /// # Errors
    /// Damage, or what `each` fails with.
    pub fn rows<E: From<BoltError>>(&self, name: &[u8], each: OnRow<'_, E>) -> Result<bool, E> {
        let Some(root) = self.bucket(name)? else { return Ok(false) };
        let mut walk = Walk { left: self.pages, last: None };
        match root {
            Rooted::Page(page) => self.walk(&mut walk, page, each)?,
            Rooted::Inline(bytes, offset) => {
                let page = Page { bytes, offset };
                // Its only page: whether the caller has enough makes no difference.
                self.leaf(&mut walk, &page, each)?.is_break();
            }
        }
        Ok(true)
    }

    fn bucket(&self, name: &[u8]) -> Result<Option<Rooted>, BoltError> {
        let mut walk = Walk { left: self.pages, last: None };
        let mut found = None;
        let mut pages = vec![(self.root, 0)];
        while let Some((number, depth)) = pages.pop() {
            let page = self.page(&mut walk, number)?;
            if self.kind(&page)? == FLAG_BRANCH {
                self.descend(&page, depth, &mut pages)?;
                continue;
            }
            for at in 0..self.count(&page)? {
                let element = self.leaf_element(&page, at)?;
                self.ascends(&mut walk, &page, element.key)?;
                if element.key == name && element.is_bucket {
                    let offset = page.offset + element.value_at;
                    found = Some(self.rooted(element.value, offset)?);
                }
            }
        }
        Ok(found)
    }

    fn rooted(&self, value: &[u8], offset: u64) -> Result<Rooted, BoltError> {
        let short = || self.damaged(offset, "a bucket is shorter than its header");
        match u64_at(value, 0).ok_or_else(short)? {
            0 => {
                let inline = value.get(BUCKET_HEADER..).ok_or_else(short)?;
                Ok(Rooted::Inline(inline.to_vec(), offset + 16))
            }
            page => Ok(Rooted::Page(page)),
        }
    }

    fn walk<E: From<BoltError>>(
        &self,
        walk: &mut Walk,
        root: u64,
        each: OnRow<'_, E>,
    ) -> Result<(), E> {
        let mut pages = vec![(root, 0)];
        while let Some((number, depth)) = pages.pop() {
            let page = self.page(walk, number)?;
            if self.kind(&page)? == FLAG_BRANCH {
                self.descend(&page, depth, &mut pages)?;
            } else if self.leaf(walk, &page, each)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Puts the pages below a branch on the stack, the first one on top.
    fn descend(
        &self,
        page: &Page,
        depth: usize,
        pages: &mut Vec<(u64, usize)>,
    ) -> Result<(), BoltError> {
        if depth >= DEPTH_MAX {
            return Err(self.damaged(page.offset, format!("more than {DEPTH_MAX} branches deep")));
        }
        for at in (0..self.count(page)?).rev() {
            let element = u64_at(&page.bytes, PAGE_HEADER + at * ELEMENT + 8);
            let below = element.ok_or_else(|| self.beyond(page, at))?;
            pages.push((below, depth + 1));
        }
        Ok(())
    }

    fn leaf<E: From<BoltError>>(
        &self,
        walk: &mut Walk,
        page: &Page,
        each: OnRow<'_, E>,
    ) -> Result<ControlFlow<()>, E> {
        if self.kind(page)? != FLAG_LEAF {
            return Err(self.damaged(page.offset, "a bucket within a value has branches").into());
        }
        for at in 0..self.count(page)? {
            let Element { is_bucket, key, value, .. } = self.leaf_element(page, at)?;
            self.ascends(walk, page, key)?;
            if !is_bucket && each(key, value)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn beyond(&self, page: &Page, element: usize) -> BoltError {
        self.damaged(page.offset, format!("element {element} of the page lies beyond it"))
    }

    fn ascends(&self, walk: &mut Walk, page: &Page, key: &[u8]) -> Result<(), BoltError> {
        if walk.last.as_deref().is_some_and(|last| last >= key) {
            let key = key.escape_ascii();
            return Err(self.damaged(page.offset, format!("key \"{key}\" is out of order")));
        }
        walk.last = Some(key.to_vec());
        Ok(())
    }

    fn leaf_element<'p>(&self, page: &'p Page, at: usize) -> Result<Element<'p>, BoltError> {
        let read = || {
            let start = PAGE_HEADER + at * ELEMENT;
            let flags = u32_at(&page.bytes, start)?;
            let position = size_at(&page.bytes, start + 4)?;
            let (key_bytes, value_bytes) =
                (size_at(&page.bytes, start + 8)?, size_at(&page.bytes, start + 12)?);
            let key_at = start.checked_add(position)?;
            let value_at = key_at.checked_add(key_bytes)?;
            let end = value_at.checked_add(value_bytes)?;
            let (key, value) = (page.bytes.get(key_at..value_at)?, page.bytes.get(value_at..end)?);
            let is_bucket = flags & ELEMENT_IS_BUCKET != 0;
            Some(Element { is_bucket, key, value, value_at: u64::try_from(value_at).ok()? })
        };
        read().ok_or_else(|| self.beyond(page, at))
    }

    fn kind(&self, page: &Page) -> Result<u16, BoltError> {
        match u16_at(&page.bytes, 8) {
            Some(kind @ (FLAG_BRANCH | FLAG_LEAF)) => Ok(kind),
            kind => Err(self
                .damaged(page.offset, format!("a page of kind {kind:?} is no branch and no leaf"))),
        }
    }

    fn count(&self, page: &Page) -> Result<usize, BoltError> {
        let count = u16_at(&page.bytes, 10).map(usize::from);
        count.ok_or_else(|| self.damaged(page.offset, "a page is shorter than its header"))
    }

    fn page(&self, walk: &mut Walk, number: u64) -> Result<Page, BoltError> {
        let offset = number.saturating_mul(self.page_bytes);
        if number >= self.pages {
            let reason = format!("page {number} is wanted, and there are {}", self.pages);
            return Err(self.damaged(offset.min(self.file_bytes), reason));
        }
        let mut header = [0; PAGE_HEADER];
        self.file.read_exact_at(&mut header, offset).map_err(|error| self.io(error))?;
        let (found, more) = (u64_at(&header, 0), u32_at(&header, 12));
        if found != Some(number) {
            let reason = format!("here should be page {number}, it says that it is {found:?}");
            return Err(self.damaged(offset, reason));
        }
        let run = (u64::from(more.unwrap_or_default()) + 1).saturating_mul(self.page_bytes);
        if run > RUN_BYTES_MAX || offset.checked_add(run).is_none_or(|end| end > self.file_bytes) {
            return Err(self.damaged(offset, format!("a page of {run} bytes ends beyond the file")));
        }
        walk.left = walk.left.checked_sub(run / self.page_bytes).ok_or_else(|| {
            self.damaged(offset, "more pages are linked than there are: some are linked twice")
        })?;
        let mut bytes = vec![0; usize::try_from(run).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, offset).map_err(|error| self.io(error))?;
        Ok(Page { bytes, offset })
    }
}
