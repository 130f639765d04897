//! LMDB's pages as bytes: what a header, a node and a meta page must look like.
//!
//! The layout is LMDB's own (data version 1, 64-bit, in the byte order of the machine) and nothing
//! here trusts it: every offset is compared with the page before it is followed.

/// Bytes of a page's header.
pub(crate) const HEADER_BYTES: usize = 16;
/// Bytes of a tree's record in a meta page or a main tree's leaf.
pub(crate) const TREE_BYTES: usize = 48;

const FLAG_BRANCH: u16 = 0x01;
const FLAG_LEAF: u16 = 0x02;
const FLAG_OVERFLOW: u16 = 0x04;
const FLAG_META: u16 = 0x08;

const NODE_BYTES: usize = 8;
const NODE_BIG: u16 = 0x01;
const NODE_TREE: u16 = 0x02;

const META_MAGIC: u32 = 0xBEEF_C0DE;
const META_VERSION: u32 = 1;

/// The root of a tree that has no pages.
const NO_PAGE: u64 = u64::MAX;

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    field(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    field(bytes, at).map(u32::from_ne_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    field(bytes, at).map(u64::from_ne_bytes)
}

fn need<T>(found: Option<T>, what: &str) -> Result<T, String> {
    found.ok_or_else(|| format!("{what} lies beyond the page"))
}

/// A tree's record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TreeRecord {
    pub(crate) depth: u16,
    pub(crate) branch_pages: u64,
    pub(crate) leaf_pages: u64,
    pub(crate) overflow_pages: u64,
    pub(crate) entries: u64,
    /// `None`: the tree is empty.
    pub(crate) root: Option<u64>,
}

impl TreeRecord {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let number = |at| need(u64_at(bytes, at), "a tree's record");
        let root = number(40)?;
        Ok(Self {
            depth: need(u16_at(bytes, 6), "a tree's record")?,
            branch_pages: number(8)?,
            leaf_pages: number(16)?,
            overflow_pages: number(24)?,
            entries: number(32)?,
            root: (root != NO_PAGE).then_some(root),
        })
    }
}

/// A meta page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub(crate) page_bytes: usize,
    pub(crate) free: TreeRecord,
    pub(crate) main: TreeRecord,
    pub(crate) last_page: u64,
    pub(crate) txn: u64,
}

impl Meta {
    /// Whether the page begins as a meta page of any LMDB file does.
    pub(crate) fn has_magic(page: &[u8]) -> bool {
        u32_at(page, HEADER_BYTES) == Some(META_MAGIC)
    }

    pub(crate) fn parse(page: &[u8], number: u64) -> Result<Self, String> {
        let body = need(page.get(HEADER_BYTES..), "a meta page")?;
        if u64_at(page, 0) != Some(number) || u16_at(page, 10) != Some(FLAG_META) {
            return Err(format!("page {number} is not a meta page"));
        }
        if !Self::has_magic(page) {
            return Err(format!("meta page {number} has no magic number"));
        }
        let version = need(u32_at(body, 4), "the version")?;
        if version != META_VERSION {
            return Err(format!("meta page {number} has LMDB data version {version}"));
        }
        let page_bytes = need(u32_at(body, 24), "the page size")?;
        let page_bytes = usize::try_from(page_bytes).unwrap_or(usize::MAX);
        if !page_bytes.is_power_of_two() || !(4096..=65536).contains(&page_bytes) {
            return Err(format!("meta page {number} says that pages have {page_bytes} bytes"));
        }
        Ok(Self {
            page_bytes,
            free: TreeRecord::parse(need(body.get(24..72), "the free tree")?)?,
            main: TreeRecord::parse(need(body.get(72..120), "the main tree")?)?,
            last_page: need(u64_at(body, 120), "the last page")?,
            txn: need(u64_at(body, 128), "the transaction")?,
        })
    }
}

/// What a leaf's node holds.
#[derive(Debug)]
pub(crate) enum Content<'p> {
    Inline(&'p [u8]),
    /// So many bytes, on pages of their own from this one on.
    Overflow {
        page: u64,
        bytes: usize,
    },
    Tree(&'p [u8]),
}

#[derive(Debug)]
pub(crate) struct Leaf<'p> {
    pub(crate) key: &'p [u8],
    pub(crate) content: Content<'p>,
}

#[derive(Debug)]
pub(crate) struct Branch<'p> {
    /// Meaningless for the first node of a page.
    pub(crate) key: &'p [u8],
    pub(crate) child: u64,
}

/// Where a node lies, its key and its flags.
type Node<'p> = (usize, &'p [u8], u16);

/// The nodes of a page, after checking the page's own header.
fn nodes(
    page: &[u8],
    number: u64,
    flag: u16,
) -> Result<impl Iterator<Item = Result<Node<'_>, String>>, String> {
    let own = need(u64_at(page, 0), "the header")?;
    let flags = need(u16_at(page, 10), "the header")?;
    if own != number || flags != flag {
        return Err(format!(
            "page {number} says that it is page {own} with flags {flags:#x}, {flag:#x} expected"
        ));
    }
    let lower = usize::from(need(u16_at(page, 12), "the header")?);
    let upper = usize::from(need(u16_at(page, 14), "the header")?);
    let is_sound =
        lower > HEADER_BYTES && lower.is_multiple_of(2) && lower <= upper && upper <= page.len();
    if !is_sound {
        return Err(format!("page {number} has its free space from {lower} to {upper}"));
    }
    let count = (lower - HEADER_BYTES) / 2;
    Ok((0..count).map(move |node| {
        let at = usize::from(need(u16_at(page, HEADER_BYTES + 2 * node), "a node's offset")?);
        if at < upper {
            return Err(format!("node {node} of page {number} lies at {at}, below {upper}"));
        }
        let flags = need(u16_at(page, at + 4), "a node")?;
        let key_bytes = usize::from(need(u16_at(page, at + 6), "a node")?);
        let key = page.get(at + NODE_BYTES..at + NODE_BYTES + key_bytes);
        Ok((at, need(key, "a node's key")?, flags))
    }))
}

/// The nodes of a branch page.
pub(crate) fn branches(page: &[u8], number: u64) -> Result<Vec<Branch<'_>>, String> {
    let all = nodes(page, number, FLAG_BRANCH)?.map(|node| {
        let (at, key, high) = node?;
        let low = need(u16_at(page, at), "a node")?;
        let middle = need(u16_at(page, at + 2), "a node")?;
        let child = u64::from(low) | (u64::from(middle) << 16) | (u64::from(high) << 32);
        Ok(Branch { key, child })
    });
    all.collect()
}

/// The nodes of a leaf page.
pub(crate) fn leaves(page: &[u8], number: u64) -> Result<Vec<Leaf<'_>>, String> {
    let all = nodes(page, number, FLAG_LEAF)?.map(|node| {
        let (at, key, flags) = node?;
        let low = need(u16_at(page, at), "a node")?;
        let high = need(u16_at(page, at + 2), "a node")?;
        let bytes = usize::from(low) | (usize::from(high) << 16);
        let from = at + NODE_BYTES + key.len();
        let content = match flags {
            0 => Content::Inline(need(page.get(from..from + bytes), "a node's data")?),
            NODE_BIG => {
                let page = need(u64_at(page, from), "a node's page number")?;
                Content::Overflow { page, bytes }
            }
            NODE_TREE if bytes == TREE_BYTES => {
                Content::Tree(need(page.get(from..from + bytes), "a tree's record")?)
            }
            other => return Err(format!("a node of page {number} has flags {other:#x}")),
        };
        Ok(Leaf { key, content })
    });
    all.collect()
}

/// Checks the header of the first of `pages` overflow pages.
pub(crate) fn check_overflow(page: &[u8], number: u64, pages: u64) -> Result<(), String> {
    let own = u64_at(page, 0);
    let flags = u16_at(page, 10);
    let count = u32_at(page, 12).map(u64::from);
    if own == Some(number) && flags == Some(FLAG_OVERFLOW) && count == Some(pages) {
        return Ok(());
    }
    Err(format!("page {number} is not the first of {pages} overflow pages"))
}
