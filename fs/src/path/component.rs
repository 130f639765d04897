//! One component of a key as a file name, and back.
//!
//! The encoding is a composition of three injective steps, undone in reverse order. With `25^k` for k
//! repetitions of the text `25`:
//!
//! 1. *NUL*: each NUL becomes `%00`; each literal `%25^k00`, wherever it stands, becomes `%25^(k+1)00`.
//!    A bijection from all byte strings to those without NUL.
//! 2. *Whole component*: empty, `.`, `..` and a hidden name `@h` become `%`, `%2E`, `%2E%2E` and `%40h`;
//!    a literal `%25^k`, `%25^k2E`, `%25^k2E%2E` or `%25^k40h` gets one more `25` after its first `%`.
//!    A bijection onto what is neither empty, a dot name nor hidden.
//! 3. *Length*: text that ends in `%25^k~` and [`DIGEST_DIGITS`] lower-case hexadecimal digits gets one
//!    more `25` there. If the result is over [`NAME_BYTES_MAX`], the name is instead its first 213
//!    bytes before step 3, `%~`, and the first 40 hexadecimal digits of the SHA-256 of the component.
//!
//! So each legal file name is a hidden name, or a digest name (ends in `%~` and digits), or the name of
//! exactly one component; and no two components share a name unless their digests collide.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::NameError;

/// The longest file name (Linux's `NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;

/// Hexadecimal digits of the digest in a name that was cut: 160 bits of SHA-256.
pub const DIGEST_DIGITS: usize = 40;

/// `%~` and the digits.
pub(super) const DIGEST_TAIL_BYTES: usize = 2 + DIGEST_DIGITS;

/// A file name of a directory, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// The component of a key: free of `/`, possibly empty.
    Component(Bytes),
    /// `@value`: the value of the key that equals the directory without its slash.
    Value,
    Hidden(Hidden),
    /// Everything that starts with `@@`: kept for later, never there and never created.
    Reserved,
    /// A component too long for a file name: to be found by listing.
    Digest(DigestName),
}

/// The names that are never listed. They are reserved in every directory, also where nothing answers
/// to them, so that a key has the same name wherever it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hidden {
    Rev,
    Time,
    History,
    /// `@watch`, or `@watch.DIGITS` with its number (`u64::MAX` where it does not fit).
    Watch(Option<u64>),
    Txn,
    Status,
    Keys,
    Commit,
}

impl Hidden {
    /// Whether only the root of a mount has it.
    #[must_use]
    pub fn is_root_only(self) -> bool {
        match self {
            Self::Txn | Self::Status | Self::Keys => true,
            Self::Rev | Self::Time | Self::History | Self::Watch(_) | Self::Commit => false,
        }
    }
}

/// A name that was cut and given a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestName {
    pub(super) name: Bytes,
    pub(super) stem: Bytes,
}

impl DigestName {
    /// The file name.
    #[must_use]
    pub fn name(&self) -> &Bytes {
        &self.name
    }

    /// What everything of this name begins with (perhaps nothing): bounds the listing.
    #[must_use]
    pub fn stem(&self) -> &Bytes {
        &self.stem
    }

    /// Whether `component` has this name.
    #[must_use]
    pub fn is_of_component(&self, component: &[u8]) -> bool {
        component.starts_with(&self.stem) && encode_component(component) == self.name.as_ref()
    }
}

/// Takes a file name apart.
///
/// # Errors
/// [`NameError::TooLong`] over 255 bytes; [`NameError::Illegal`] for what no directory entry can be
/// called (empty, `.`, `..`, with a slash or a NUL).
pub fn decode_name(name: &OsStr) -> Result<Name, NameError> {
    let name = name.as_bytes();
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    if matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(NameError::Illegal { name: name.escape_ascii().to_string() });
    }
    if let Some(hidden) = name.strip_prefix(b"@").and_then(hidden_after_at) {
        return Ok(hidden);
    }
    let text = match digest_form(name) {
        Some(Repeated { count: 0, .. }) => {
            let stem_bytes = name.iter().position(|&byte| byte == b'%').unwrap_or(0);
            let name = Bytes::copy_from_slice(name);
            return Ok(Name::Digest(DigestName { stem: name.slice(..stem_bytes), name }));
        }
        Some(Repeated { percent, .. }) => without_one_25(name, percent),
        None => Cow::Borrowed(name),
    };
    let text = match whole_form(&text) {
        Some((0, rest)) => Cow::Owned(unescaped_whole(rest)),
        Some(_) => Cow::Owned(without_one_25(&text, 0).into_owned()),
        None => text,
    };
    Ok(Name::Component(Bytes::from(unescape_nul(&text).into_owned())))
}

/// The file name of a component (which must not hold a `/`).
#[must_use]
pub fn encode_component(component: &[u8]) -> Cow<'_, [u8]> {
    debug_assert!(!component.contains(&b'/'), "a component holds no slash");
    let text = escape_whole(escape_nul(component));
    let name = match digest_form(&text) {
        Some(Repeated { percent, .. }) => Cow::Owned(with_one_25(&text, percent)),
        None => Cow::Borrowed(text.as_ref()),
    };
    if name.len() > NAME_BYTES_MAX {
        let kept = NAME_BYTES_MAX - DIGEST_TAIL_BYTES;
        return Cow::Owned(with_digest(&text[..kept], component));
    }
    match name {
        Cow::Owned(name) => Cow::Owned(name),
        Cow::Borrowed(_) => text,
    }
}

/// `text`, `%~` and the digest of `whole`.
pub(super) fn with_digest(text: &[u8], whole: &[u8]) -> Vec<u8> {
    const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";
    let mut name = text.to_vec();
    name.extend_from_slice(b"%~");
    for byte in &Sha256::digest(whole)[..DIGEST_DIGITS / 2] {
        name.push(HEXADECIMAL[usize::from(byte >> 4)]);
        name.push(HEXADECIMAL[usize::from(byte & 15)]);
    }
    name
}

/// Whether `text` ends in the digits of a digest after a `~`.
pub(super) fn ends_in_digest(text: &[u8]) -> bool {
    text.len() > DIGEST_DIGITS && {
        let (head, digits) = text.split_at(text.len() - DIGEST_DIGITS);
        head.ends_with(b"~")
            && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    }
}

/// What a name is whose first byte `@` was cut off; `None` if it is an ordinary one.
fn hidden_after_at(rest: &[u8]) -> Option<Name> {
    let hidden = match rest {
        b"rev" => Hidden::Rev,
        b"time" => Hidden::Time,
        b"history" => Hidden::History,
        b"watch" => Hidden::Watch(None),
        b"txn" => Hidden::Txn,
        b"status" => Hidden::Status,
        b"keys" => Hidden::Keys,
        b"commit" => Hidden::Commit,
        b"value" => return Some(Name::Value),
        [b'@', ..] => return Some(Name::Reserved),
        _ => Hidden::Watch(Some(digits(rest.strip_prefix(b"watch.")?)?)),
    };
    Some(Name::Hidden(hidden))
}

fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0_u64, |number, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    }))
}

/// Where a `%` stands and how many `25` follow it.
struct Repeated {
    percent: usize,
    count: usize,
}

/// Finds `%25^k~DIGITS` at the end.
fn digest_form(text: &[u8]) -> Option<Repeated> {
    if !ends_in_digest(text) {
        return None;
    }
    let mut head = &text[..text.len() - DIGEST_DIGITS - 1];
    let mut count = 0;
    while let Some(shorter) = head.strip_suffix(b"25") {
        head = shorter;
        count += 1;
    }
    head.ends_with(b"%").then(|| Repeated { percent: head.len() - 1, count })
}

/// If `text` is `%25^k` and one of the endings of step 2: k and that ending.
fn whole_form(text: &[u8]) -> Option<(usize, &[u8])> {
    let (count, rest) = strip_25s(text.strip_prefix(b"%")?);
    let is_ending = matches!(rest, b"" | b"2E" | b"2E%2E")
        || rest.strip_prefix(b"40").is_some_and(|hidden| hidden_after_at(hidden).is_some());
    is_ending.then_some((count, rest))
}

fn unescaped_whole(ending: &[u8]) -> Vec<u8> {
    match ending {
        b"2E" => b".".to_vec(),
        b"2E%2E" => b"..".to_vec(),
        _ => ending.strip_prefix(b"40").map_or_else(Vec::new, |hidden| [b"@", hidden].concat()),
    }
}

fn escape_whole(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match text.as_ref() {
        b"" => Cow::Borrowed(b"%"),
        b"." => Cow::Borrowed(b"%2E"),
        b".." => Cow::Borrowed(b"%2E%2E"),
        [b'@', hidden @ ..] if hidden_after_at(hidden).is_some() => {
            Cow::Owned([b"%40", hidden].concat())
        }
        other if whole_form(other).is_some() => Cow::Owned(with_one_25(other, 0)),
        _ => text,
    }
}

fn escape_nul(component: &[u8]) -> Cow<'_, [u8]> {
    if !component.iter().any(|byte| matches!(byte, b'%' | 0)) {
        return Cow::Borrowed(component);
    }
    let mut text = Vec::with_capacity(component.len() + 2);
    let mut rest = component;
    while let [first, after @ ..] = rest {
        match first {
            0 => text.extend_from_slice(b"%00"),
            b'%' if strip_25s(after).1.starts_with(b"00") => text.extend_from_slice(b"%25"),
            _ => text.push(*first),
        }
        rest = after;
    }
    Cow::Owned(text)
}

fn unescape_nul(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let mut component = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let (count, ending) = if *first == b'%' { strip_25s(after) } else { (0, &b""[..]) };
        rest = after;
        if !ending.starts_with(b"00") {
            component.push(*first);
        } else if count == 0 {
            component.push(0);
            rest = &after[2..];
        } else {
            component.push(b'%');
            rest = &after[2..];
        }
    }
    Cow::Owned(component)
}

fn strip_25s(mut text: &[u8]) -> (usize, &[u8]) {
    let mut count = 0;
    while let Some(shorter) = text.strip_prefix(b"25") {
        text = shorter;
        count += 1;
    }
    (count, text)
}

fn with_one_25(text: &[u8], percent: usize) -> Vec<u8> {
    [&text[..=percent], b"25", &text[percent + 1..]].concat()
}

fn without_one_25(text: &[u8], percent: usize) -> Cow<'_, [u8]> {
    Cow::Owned([&text[..=percent], &text[percent + 3..]].concat())
}

#[cfg(test)]
mod tests;
