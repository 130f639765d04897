//! Clients that take the address of a server, scheme and all, for its name.
//!
//! The Go client sends `http://127.0.0.1:2379`, or the path of a unix socket, as `:authority` where it was
//! given such an endpoint. etcd does not mind; the HTTP library here resets the request, for such a name is none.
//! In the first HEADERS frame of a connection such a name is replaced; afterwards the client sends no more
//! than its number in the table of headers (RFC 7541, 2.3), and nothing is looked at any more.
//!
//! The entry in our table is shorter than the client thinks: whatever the client still knows, ours knows too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Bytes before the first request, and its headers, at most; a client that needs more is let through.
const LOOKED_AT_MAX: usize = 64 << 10;

/// What is read at once.
const CHUNK: usize = 4 << 10;

/// The name of a request whose own is none.
const NAME: &[u8] = b"localhost";

/// How names begin that are none: as they are, and Huffman-coded (RFC 7541, appendix B) with their bits.
const NO_NAMES: [(&[u8], u64, u32); 4] = [
    (b"http://", 0b1_0011_1010_0101_0011_0101_1101_1100_0110_0001_1000, 41),
    (b"https://", 0b10_0111_0100_1010_0110_1011_0100_0101_1100_0110_0001_1000, 46),
    (b"unix:", 0b101_1011_0101_0001_1011_1100_1101_1100, 31),
    (b"/", 0b01_1000, 6),
];

/// What is read from a connection. See the module.
#[derive(Debug)]
pub(super) enum Names {
    /// Until the first HEADERS frame: what has not been passed on yet, and whether the preface has.
    Looking {
        held: Vec<u8>,
        is_begun: bool,
        passed: Vec<u8>,
    },
    Passing,
}

impl Default for Names {
    fn default() -> Self {
        Self::Looking { held: Vec::new(), is_begun: false, passed: Vec::new() }
    }
}

impl Names {
    pub(super) fn poll_read(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let Self::Looking { held, is_begun, passed } = self else {
                return Pin::new(io).poll_read(context, buffer);
            };
            if !passed.is_empty() {
                let count = passed.len().min(buffer.remaining());
                buffer.put_slice(&passed[..count]);
                passed.drain(..count);
                return Poll::Ready(Ok(()));
            }
            // The last that was held has been passed on.
            if *is_begun && held.is_empty() && held.capacity() == 0 {
                *self = Self::Passing;
                continue;
            }
            let mut chunk = [0; CHUNK];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut *io).poll_read(context, &mut read))?;
            held.extend_from_slice(read.filled());
            let is_over = read.filled().is_empty() || held.len() > LOOKED_AT_MAX;
            if is_over || pass(held, is_begun, passed) {
                passed.append(held);
                *held = Vec::new();
                *is_begun = true;
                if passed.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// Passes on what needs no look, and what was looked at; true if nothing more does.
fn pass(held: &mut Vec<u8>, is_begun: &mut bool, passed: &mut Vec<u8>) -> bool {
    if !*is_begun {
        let begun = held.len().min(PREFACE.len());
        if held[..begun] != PREFACE[..begun] {
            return true;
        }
        if begun < PREFACE.len() {
            return false;
        }
        passed.extend(held.drain(..begun));
        *is_begun = true;
    }
    while let Some((&[a, b, c, kind, flags, ..], _)) = held.split_first_chunk::<FRAME_HEADER>() {
        let end =
            FRAME_HEADER + usize::from(a) * 0x1_0000 + usize::from(b) * 0x100 + usize::from(c);
        if held.len() < end {
            return false;
        }
        if kind != HEADERS {
            passed.extend(held.drain(..end));
            continue;
        }
        if let Some(payload) = renamed(&held[FRAME_HEADER..end], flags)
            && let [0, b, c, d] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes()
        {
            passed.extend([b, c, d]);
            passed.extend(&held[3..FRAME_HEADER]);
            passed.extend(payload);
            held.drain(..end);
        }
        return true;
    }
    false
}

/// The payload of a HEADERS frame with another name, if its own is none.
fn renamed(payload: &[u8], flags: u8) -> Option<Vec<u8>> {
    let mut at = usize::from(flags & PADDED != 0);
    if flags & PRIORITY != 0 {
        at += 5;
    }
    let padding = if flags & PADDED != 0 { usize::from(*payload.first()?) } else { 0 };
    let end = payload.len().checked_sub(padding)?;
    while at < end {
        let first = *payload.get(at)?;
        let (prefix_bits, is_literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (index, after) = number(payload, at, prefix_bits)?;
        at = after;
        if !is_literal {
            continue;
        }
        if index == 0 {
            at = text(payload, at)?.1;
        }
        let (value, after) = text(payload, at)?;
        // The first entry of the static table is :authority.
        if index == 1 {
            let is_coded = payload[at] & 0x80 != 0;
            if !is_no_name(&payload[value..after], is_coded) {
                return None;
            }
            let mut other = payload[..at].to_vec();
            other.push(u8::try_from(NAME.len()).expect("it is short"));
            other.extend_from_slice(NAME);
            other.extend_from_slice(&payload[after..]);
            return Some(other);
        }
        at = after;
    }
    None
}

fn is_no_name(value: &[u8], is_coded: bool) -> bool {
    NO_NAMES.iter().any(|&(plain, code, bits)| {
        if !is_coded {
            return value.starts_with(plain);
        }
        let mut first = [0; 8];
        let count = value.len().min(first.len());
        first[..count].copy_from_slice(&value[..count]);
        u64::from_be_bytes(first) >> (u64::BITS - bits) == code
    })
}

/// A number with a prefix of so many bits, and where it ends (RFC 7541, 5.1).
fn number(bytes: &[u8], at: usize, prefix_bits: u32) -> Option<(usize, usize)> {
    let most = (1_usize << prefix_bits) - 1;
    let mut number = usize::from(*bytes.get(at)?) & most;
    let mut at = at + 1;
    if number < most {
        return Some((number, at));
    }
    // No length in a frame needs more.
    for shift in [0, 7, 14, 21] {
        let byte = *bytes.get(at)?;
        at += 1;
        number += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((number, at));
        }
    }
    None
}

/// Where a text begins and ends (RFC 7541, 5.2).
fn text(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let (length, begin) = number(bytes, at, 7)?;
    let end = begin.checked_add(length)?;
    (end <= bytes.len()).then_some((begin, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What RFC 7541, appendix B, has for the letters of these names.
    fn code(letter: u8) -> (u64, u32) {
        match letter {
            b'/' => (0x18, 6),
            b':' => (0x5c, 7),
            b'h' => (0x27, 6),
            b'i' => (0x6, 5),
            b'n' => (0x2a, 6),
            b'p' => (0x2b, 6),
            b's' => (0x8, 5),
            b't' => (0x9, 5),
            b'u' => (0x2d, 6),
            b'x' => (0x79, 7),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_coded_beginnings_are_those_of_the_plain_ones() {
        for (plain, bits, count) in NO_NAMES {
            let (mut own, mut own_count) = (0, 0);
            for (letter, letter_bits) in plain.iter().map(|&letter| code(letter)) {
                own = (own << letter_bits) | letter;
                own_count += letter_bits;
            }
            let name = String::from_utf8_lossy(plain);
            assert_eq!((own, own_count), (bits, count), "{name}: {own:#b}");
        }
    }

    /// A HEADERS frame with a method, an authority and something behind it.
    fn frame(authority: &[u8], is_coded: bool) -> Vec<u8> {
        let length = u8::try_from(authority.len()).unwrap();
        let mut payload = vec![0x83, 0x41, length | if is_coded { 0x80 } else { 0 }];
        payload.extend(authority);
        payload.push(0x86);
        let mut frame = vec![0, 0, u8::try_from(payload.len()).unwrap(), HEADERS, 4, 0, 0, 0, 1];
        frame.extend(payload);
        frame
    }

    fn passed(bytes: &[u8]) -> (Vec<u8>, bool) {
        let (mut held, mut is_begun, mut passed) = (bytes.to_vec(), false, Vec::new());
        let is_over = pass(&mut held, &mut is_begun, &mut passed);
        (passed, is_over)
    }

    #[test]
    fn addresses_are_replaced_and_names_are_not() {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let connection = |frame: Vec<u8>| [PREFACE, &settings, &frame].concat();
        for address in ["http://127.0.0.1:2379", "https://a:1", "unix:///tmp/s", "/tmp/s"] {
            let (passed, is_over) = passed(&connection(frame(address.as_bytes(), false)));
            assert!(is_over);
            assert_eq!(passed, connection(frame(NAME, false)), "{address}");
        }
        // "http://" and padding of ones, Huffman-coded.
        let coded = [0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x7f];
        let (passed, _) = passed(&connection(frame(&coded, true)));
        assert_eq!(passed, connection(frame(NAME, false)));
        for name in ["127.0.0.1:2379", "node-1", ""] {
            let sent = connection(frame(name.as_bytes(), false));
            let (passed, is_over) = self::passed(&sent);
            assert!(
                is_over && passed.len() == PREFACE.len() + settings.len(),
                "{name} is left alone"
            );
        }
    }

    #[test]
    fn frames_pass_as_soon_as_they_are_whole_and_other_protocols_at_once() {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let (out, is_over) =
            passed(&[PREFACE, &settings, &frame(b"http://a", false)[..12]].concat());
        assert_eq!((out, is_over), ([PREFACE, &settings].concat(), false));
        assert!(passed(b"GET / HTTP/1.1\r\n").1);
        assert!(!passed(&PREFACE[..5]).1);
    }

    #[test]
    fn garbage_is_left_to_whoever_reads_it() {
        for length in 0..24 {
            for byte in [0x00, 0x01, 0x41, 0x7f, 0xff] {
                for flags in [0, PADDED, PRIORITY, PADDED | PRIORITY] {
                    assert!(renamed(&vec![byte; length], flags).is_none());
                }
            }
        }
    }
}
