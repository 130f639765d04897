//! Everything that the program prints to standard output goes through [`Output`].
//!
//! Two forms: text for people, and with `--json` one JSON document a line. Text is exact where it is
//! piped (bytes of keys and values as they are) and safe where it meets a terminal (control bytes and
//! invalid UTF-8 are written `\xHH`). In JSON a byte string is a string if it is UTF-8, else the field
//! is called `…_base64`.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use revfs_api::keyspace::{Author, Time};
use serde_json::{Map, Value};

use crate::error::Result;

pub(crate) struct Output {
    pub(crate) json: bool,
    terminal: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self { json, terminal, out: BufWriter::new(stdout) }
    }

    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "{text}")?;
        Ok(())
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)?;
        Ok(())
    }

    /// A key or a file name: exact in a pipe, readable on a terminal.
    pub(crate) fn name<'a>(&self, name: &'a [u8]) -> Cow<'a, [u8]> {
        if self.terminal { Cow::Owned(readable(name).into_bytes()) } else { Cow::Borrowed(name) }
    }

    /// One JSON document on a line of its own.
    pub(crate) fn document(&mut self, value: &Value) -> Result<()> {
        writeln!(self.out, "{value}")?;
        Ok(())
    }

    /// Rows of columns, aligned; the last column is as wide as it is.
    pub(crate) fn table(&mut self, rows: &[Vec<Vec<u8>>]) -> Result<()> {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| shown_width(cell)).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in rows {
            for (column, cell) in row.iter().enumerate() {
                self.out.write_all(cell)?;
                if column + 1 < row.len() {
                    let padding = widths[column] - shown_width(cell) + 2;
                    write!(self.out, "{:padding$}", "")?;
                }
            }
            writeln!(self.out)?;
        }
        Ok(())
    }

    /// Rows of columns: aligned below their names on a terminal, with a tab between them elsewhere.
    pub(crate) fn columns(&mut self, names: &[&str], rows: &[Vec<String>]) -> Result<()> {
        if !self.terminal {
            for row in rows {
                self.line(&row.join("\t"))?;
            }
            return Ok(());
        }
        let cells = |row: Vec<String>| row.into_iter().map(String::into_bytes).collect();
        let names = names.iter().map(|name| name.to_uppercase()).collect();
        let all: Vec<_> = [names].into_iter().chain(rows.iter().cloned()).map(cells).collect();
        self.table(&all)
    }

    /// Shows what was printed so far to whoever waits for it.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.out.flush()?;
        Ok(())
    }
}

/// A sign of life on a terminal (standard error) for work that may take long; nothing elsewhere.
pub(crate) struct Progress {
    bar: indicatif::ProgressBar,
    began: std::time::Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { bar: indicatif::ProgressBar::new_spinner(), began: std::time::Instant::now() }
    }

    /// Short work shows nothing.
    pub(crate) fn at(&self, what: impl Into<Cow<'static, str>>) {
        if self.began.elapsed() > std::time::Duration::from_secs(1) {
            self.bar.set_message(what);
            self.bar.tick();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Columns that a cell takes: its characters (good enough for aligning keys and user names).
fn shown_width(cell: &[u8]) -> usize {
    String::from_utf8_lossy(cell).chars().count()
}

/// Bytes on one line of readable text: control bytes, backslashes and what is not UTF-8 as `\xHH`.
pub(crate) fn readable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || character == '\\' {
                let mut buffer = [0; 4];
                for byte in character.encode_utf8(&mut buffer).bytes() {
                    push_hex(&mut text, byte);
                }
            } else {
                text.push(character);
            }
        }
        for &byte in chunk.invalid() {
            push_hex(&mut text, byte);
        }
    }
    text
}

fn push_hex(text: &mut String, byte: u8) {
    use std::fmt::Write as _;
    write!(text, "\\x{byte:02x}").expect("a String takes all");
}

/// Puts a byte string into a JSON object, as `field` or as `field_base64`.
pub(crate) fn insert_bytes(object: &mut Map<String, Value>, field: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(field.to_owned(), text.into()),
        Err(_) => object.insert(format!("{field}_base64"), base64(bytes).into()),
    };
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|at| group.get(at).copied().unwrap_or(0));
        let digits = [a >> 2, (a & 3) << 4 | b >> 4, (b & 15) << 2 | c >> 6, c & 63];
        for (at, digit) in digits.into_iter().enumerate() {
            let padding = at > group.len();
            text.push(if padding { '=' } else { char::from(DIGITS[usize::from(digit)]) });
        }
    }
    text
}

/// RFC 3339 in UTC with nanoseconds: what `--json` shows, and what the options for times read.
pub(crate) fn time_exact(time: Time) -> Option<String> {
    let stamp = Timestamp::from_nanosecond(i128::from(time.0)).expect("an i64 is in its range");
    time.is_known().then(|| format!("{stamp:.9}"))
}

/// `2026-11-22 10:12:04 +0100`, in the zone of this machine.
pub(crate) fn time_local(time: Time) -> String {
    if !time.is_known() {
        return "-".to_owned();
    }
    match Timestamp::from_nanosecond(i128::from(time.0)) {
        Ok(stamp) => {
            stamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z").to_string()
        }
        Err(_) => format!("{} ns since 1970", time.0),
    }
}

/// `2026-11-22 10:12:04.000000000 +0100`, as `diff -u` labels its files.
pub(crate) fn time_of_diff(time: Time) -> String {
    match Timestamp::from_nanosecond(i128::from(time.0)) {
        Ok(stamp) => {
            stamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S.%9f %z").to_string()
        }
        Err(_) => format!("{} ns since 1970", time.0),
    }
}

/// The verified name if there is one; what the client only says of itself stands in parentheses.
pub(crate) fn author_text(author: &Author) -> String {
    match (author.principal.as_str(), author.claimed.as_str()) {
        ("", "") => "-".to_owned(),
        ("", claimed) => format!("({})", readable(claimed.as_bytes())),
        (principal, "") => readable(principal.as_bytes()),
        (principal, claimed) => {
            format!("{} ({})", readable(principal.as_bytes()), readable(claimed.as_bytes()))
        }
    }
}

pub(crate) fn author_json(author: &Author) -> Value {
    serde_json::json!({ "principal": author.principal, "claimed": author.claimed })
}

/// `1 key`, `3 keys`.
pub(crate) fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_one_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xFB, 0xFF, 0xFE]), "+//+");
    }

    #[test]
    fn readable_text_is_one_line_and_tells_different_bytes_apart() {
        assert_eq!(readable("größe".as_bytes()), "größe");
        assert_eq!(readable(b"a\nb\\x0a\xff\x1b["), "a\\x0ab\\x5cx0a\\xff\\x1b[");
    }

    #[test]
    fn bytes_that_are_not_utf8_get_a_field_of_another_name() {
        let mut object = Map::new();
        insert_bytes(&mut object, "key", b"/a");
        insert_bytes(&mut object, "value", &[0xFF]);
        assert_eq!(
            serde_json::Value::from(object).to_string(),
            r#"{"key":"/a","value_base64":"/w=="}"#
        );
    }

    #[test]
    fn times_are_exact_in_json() {
        let moment = Time(1_700_000_000_500_000_000);
        assert_eq!(time_exact(moment).as_deref(), Some("2023-11-14T22:13:20.500000000Z"));
        let order_only = Time(7_000_000_000);
        assert_eq!((time_exact(order_only), time_local(order_only)), (None, "-".to_owned()));
    }

    #[test]
    fn what_a_client_only_says_of_itself_stands_in_parentheses() {
        let author = |principal: &str, claimed: &str| {
            author_text(&Author { principal: principal.into(), claimed: claimed.into() })
        };
        assert_eq!(author("", ""), "-");
        assert_eq!(author("", "me@host"), "(me@host)");
        assert_eq!(author("ops", "me@host"), "ops (me@host)");
    }
}
