//! The words of a transaction's text, each with its place.
//!
//! Words are separated by blanks; a line is a statement. A word is either bare (everything up to the next
//! blank, byte for byte) or a *string* in double quotes, in which `\n`, `\t`, `\r`, `\"`, `\\` and `\xHH`
//! (a byte) are escapes. Only bare words are keywords. `#` where a word would begin comments the rest of
//! the line out.

use bytes::Bytes;

/// Where something stands: line and column in characters, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) place: Place,
    /// What a key or value is.
    pub(super) bytes: Bytes,
    /// As a keyword or number; `None` for a string.
    pub(super) bare: Option<String>,
}

impl Word {
    pub(super) fn is(&self, keyword: &str) -> bool {
        self.bare.as_deref() == Some(keyword)
    }

    /// For an error: as it was written, nearly.
    pub(super) fn shown(&self) -> String {
        match &self.bare {
            Some(bare) => format!("'{bare}'"),
            None => format!("\"{}\"", crate::output::readable(&self.bytes)),
        }
    }
}

/// A text that is no transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) place: Place,
    pub(super) reason: String,
}

pub(super) fn wrong<T>(place: Place, reason: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { place, reason: reason.into() })
}

/// A line that has words, and where it ends.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) words: Vec<Word>,
    pub(super) end: Place,
}

pub(super) fn lines(text: &str) -> Result<Vec<Line>, Wrong> {
    let mut lines = Vec::new();
    for (number, text) in text.lines().enumerate() {
        let mut scanner = Scanner::new(text, number + 1);
        let mut words = Vec::new();
        while let Some(word) = scanner.word()? {
            words.push(word);
        }
        if !words.is_empty() {
            lines.push(Line { words, end: scanner.place() });
        }
    }
    Ok(lines)
}

struct Scanner<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
    column: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str, line: usize) -> Self {
        Self { rest: text.chars().peekable(), line, column: 1 }
    }

    fn place(&self) -> Place {
        Place { line: self.line, column: self.column }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.column += usize::from(next.is_some());
        next
    }

    fn word(&mut self) -> Result<Option<Word>, Wrong> {
        while self.rest.peek().is_some_and(|c| c.is_whitespace()) {
            self.next();
        }
        let place = self.place();
        match self.rest.peek() {
            None | Some('#') => Ok(None),
            Some('"') => self.string(place).map(Some),
            Some(_) => {
                let mut bare = String::new();
                while self.rest.peek().is_some_and(|c| !c.is_whitespace()) {
                    bare.extend(self.next());
                }
                let bytes = Bytes::from(bare.clone());
                Ok(Some(Word { place, bytes, bare: Some(bare) }))
            }
        }
    }

    fn string(&mut self, place: Place) -> Result<Word, Wrong> {
        self.next();
        let mut bytes = Vec::new();
        loop {
            let at = self.place();
            match self.next() {
                None => return wrong(place, "the string is not closed on its line"),
                Some('"') => break,
                Some('\\') => bytes.push(self.escape(at)?),
                Some(plain) => bytes.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if self.rest.peek().is_some_and(|c| !c.is_whitespace()) {
            return wrong(self.place(), "a blank belongs behind a string");
        }
        Ok(Word { place, bytes: bytes.into(), bare: None })
    }

    fn escape(&mut self, at: Place) -> Result<u8, Wrong> {
        Ok(match self.next() {
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('r') => b'\r',
            Some('"') => b'"',
            Some('\\') => b'\\',
            Some('x') => {
                let mut digit = || self.next().and_then(|c| c.to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => {
                        u8::try_from(high * 16 + low).expect("two digits make a byte")
                    }
                    _ => return wrong(at, "\\x needs two hexadecimal digits"),
                }
            }
            _ => return wrong(at, "no such escape: \\n \\t \\r \\\" \\\\ \\xHH"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Vec<Vec<u8>>, Wrong> {
        let all = lines(text)?.into_iter().flat_map(|line| line.words);
        Ok(all.map(|word| word.bytes.to_vec()).collect())
    }

    #[test]
    fn words_are_bare_or_strings_and_comments_begin_where_words_do() {
        let found = words("put /a=b  \"x y\" # no\n\n  # none\nget /a#b\n").unwrap();
        assert_eq!(found, [b"put".as_slice(), b"/a=b", b"x y", b"get", b"/a#b"]);
        assert_eq!(
            words(r#""\x00\xfF\n\"\\ü""#).unwrap(),
            ["\0"
                .as_bytes()
                .to_vec()
                .into_iter()
                .chain([0xFF])
                .chain("\n\"\\ü".bytes())
                .collect::<Vec<u8>>()]
        );
        assert!(lines("\"then\"").unwrap()[0].words[0].bare.is_none());
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        let place = |text: &str| {
            let wrong = lines(text).unwrap_err();
            (wrong.place.line, wrong.place.column)
        };
        assert_eq!(place("put\nput /k \"open"), (2, 8));
        assert_eq!(place("ü \"\\q\""), (1, 4));
        assert_eq!(place("\"\\x4\""), (1, 2));
        assert_eq!(place("\"a\"b"), (1, 4));
    }
}
