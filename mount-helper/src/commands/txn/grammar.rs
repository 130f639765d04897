//! The grammar of a transaction's text: words in, [`Txn`] out.
//!
//!     text    = [ "if" compares ] "then" operations [ "else" operations ] | operations
//!     compare = "exists" KEY | "absent" RANGE
//!             | ( "value" | "version" | "create" | "mod" | "lease" ) RANGE ( "=" | "!=" | "<" | ">" ) OPERAND
//!     RANGE   = KEY | "prefix" KEY | "from" KEY | "range" KEY END
//!     operation = "put" KEY VALUE [ "lease" ID | "keep-lease" ] [ "prev" ]
//!             | "get" RANGE [ "rev" N ] [ "limit" N ] [ "keys" | "count" ]
//!             | "delete" RANGE [ "prev" ]
//!             | "append" KEY VALUE | "move" FROM TO | "exchange" A B | "restore" RANGE "rev" N
//!             | "txn" text "end"
//!
//! What follows a RANGE or VALUE may come in any order. Each compare and each operation has a line of its own; the first may follow its section's name.

use bytes::Bytes;
use revfs_api::keyspace::{
    Compare, CompareResult, CompareTarget, KeyRange, LeaseId, Op, RangeRead, Revision, Txn,
};

use super::words::{Line, Place, Word, Wrong, lines, wrong};

/// Transactions in transactions; etcd has no bound, a stack has.
const DEPTH_MAX: usize = 16;

const OPERATIONS: &str = "put, get, delete, append, move, exchange, restore or txn";
const COMPARES: &str = "value, version, create, mod, lease, exists or absent";

pub(super) fn parse(text: &str) -> Result<Txn, Wrong> {
    let mut parser = Parser { lines: lines(text)?, next: 0 };
    let txn = parser.txn(0)?;
    match parser.lines.get(parser.next) {
        Some(line) => {
            let word = &line.words[0];
            wrong(word.place, format!("nothing belongs here, and here stands {}", word.shown()))
        }
        None => Ok(txn),
    }
}

struct Parser {
    lines: Vec<Line>,
    next: usize,
}

impl Parser {
    /// The first word of the next line, if it is bare.
    fn keyword(&self) -> Option<&str> {
        self.lines.get(self.next)?.words[0].bare.as_deref()
    }

    /// Takes the name of a section off its line; the line is gone if that was all.
    fn enter(&mut self, section: &str) -> bool {
        if self.keyword() != Some(section) {
            return false;
        }
        let line = &mut self.lines[self.next];
        line.words.remove(0);
        self.next += usize::from(line.words.is_empty());
        true
    }

    fn place(&self) -> Place {
        match (self.lines.get(self.next), self.lines.last()) {
            (Some(line), _) => line.words[0].place,
            (None, Some(last)) => last.end,
            (None, None) => Place { line: 1, column: 1 },
        }
    }

    fn txn(&mut self, depth: usize) -> Result<Txn, Wrong> {
        if depth > DEPTH_MAX {
            return wrong(
                self.place(),
                format!("more than {DEPTH_MAX} transactions in each other"),
            );
        }
        let mut txn = Txn::default();
        let is_guarded = self.enter("if");
        while is_guarded && !matches!(self.keyword(), Some("then" | "else" | "end")) {
            let Some(mut line) = self.line() else { break };
            txn.compares.push(line.compare()?);
            line.ended()?;
        }
        let has_then = self.enter("then");
        if is_guarded && !has_then {
            return wrong(self.place(), "'then' belongs behind the conditions");
        }
        txn.success = self.operations(depth)?;
        if self.enter("else") {
            txn.failure = self.operations(depth)?;
        }
        Ok(txn)
    }

    fn operations(&mut self, depth: usize) -> Result<Vec<Op>, Wrong> {
        let mut operations = Vec::new();
        while !matches!(self.keyword(), Some("if" | "then" | "else" | "end")) {
            if self.enter("txn") {
                let txn = self.txn(depth + 1)?;
                if !self.enter("end") {
                    return wrong(self.place(), "'end' belongs behind a transaction in another");
                }
                operations.push(Op::Txn(txn));
                continue;
            }
            let Some(mut line) = self.line() else { break };
            operations.push(line.operation()?);
            line.ended()?;
        }
        Ok(operations)
    }

    fn line(&mut self) -> Option<Statement> {
        let line = self.lines.get(self.next)?.clone();
        self.next += 1;
        Some(Statement { words: line.words.into_iter().peekable(), end: line.end })
    }
}

/// A line while it is read.
struct Statement {
    words: std::iter::Peekable<std::vec::IntoIter<Word>>,
    end: Place,
}

impl Statement {
    fn word(&mut self, what: &str) -> Result<Word, Wrong> {
        match self.words.next() {
            Some(word) => Ok(word),
            None => wrong(self.end, format!("{what} is missing at the end of the line")),
        }
    }

    fn ended(mut self) -> Result<(), Wrong> {
        match self.words.next() {
            Some(word) => wrong(word.place, format!("{} is too much on this line", word.shown())),
            None => Ok(()),
        }
    }

    /// Whether the next word is `keyword`; then it is taken.
    fn takes(&mut self, keyword: &str) -> bool {
        self.words.next_if(|word| word.is(keyword)).is_some()
    }

    fn key(&mut self) -> Result<Bytes, Wrong> {
        let word = self.word("a key")?;
        if word.bytes.is_empty() { wrong(word.place, "no key is empty") } else { Ok(word.bytes) }
    }

    fn value(&mut self) -> Result<Bytes, Wrong> {
        Ok(self.word("a value")?.bytes)
    }

    fn range(&mut self) -> Result<KeyRange, Wrong> {
        if self.takes("prefix") {
            return Ok(KeyRange::prefix(&self.word("a prefix")?.bytes));
        }
        if self.takes("from") {
            return Ok(KeyRange::From(self.word("a key")?.bytes));
        }
        if !self.takes("range") {
            return Ok(KeyRange::Key(self.key()?));
        }
        let (start, end) = (self.word("a key")?, self.word("the end of the range")?);
        if end.bytes <= start.bytes {
            return wrong(end.place, "the range ends before it begins");
        }
        Ok(KeyRange::Span { start: start.bytes, end: end.bytes })
    }

    fn number(&mut self) -> Result<u64, Wrong> {
        let word = self.word("a number")?;
        // etcd's numbers end where those with a sign do.
        let number = word.bare.as_deref().and_then(|bare| bare.parse::<i64>().ok());
        match number.and_then(|number| u64::try_from(number).ok()) {
            Some(number) => Ok(number),
            None => wrong(word.place, format!("{} is no number from 0", word.shown())),
        }
    }

    fn lease(&mut self) -> Result<LeaseId, Wrong> {
        let word = self.word("a lease")?;
        let lease = word.bare.as_deref().and_then(crate::lease_id::parse);
        match lease {
            Some(lease) => Ok(lease),
            None => wrong(word.place, format!("{} is no lease: hexadecimal digits", word.shown())),
        }
    }

    fn compare(&mut self) -> Result<Compare, Wrong> {
        let word = self.word("a condition")?;
        let target = word.bare.clone().unwrap_or_default();
        match target.as_str() {
            "exists" => return Ok(Compare::present(self.key()?)),
            "absent" => return Ok(Compare::absent(self.range()?)),
            "value" | "version" | "create" | "mod" | "lease" => {}
            _ => {
                let shown = word.shown();
                return wrong(word.place, format!("{shown} is no condition: {COMPARES}"));
            }
        }
        let range = self.range()?;
        let operator = self.word("one of = != < >")?;
        let result = match operator.bare.as_deref() {
            Some("=") => CompareResult::Equal,
            Some("!=") => CompareResult::NotEqual,
            Some("<") => CompareResult::Less,
            Some(">") => CompareResult::Greater,
            _ => {
                let shown = operator.shown();
                return wrong(operator.place, format!("{shown} stands where = != < or > belongs"));
            }
        };
        let target = match target.as_str() {
            "value" => CompareTarget::Value(self.value()?),
            "version" => CompareTarget::Version(self.number()?),
            "create" => CompareTarget::CreateRevision(Revision(self.number()?)),
            "mod" => CompareTarget::ModRevision(Revision(self.number()?)),
            _ => CompareTarget::Lease(self.lease()?),
        };
        Ok(Compare { range, target, result })
    }

    fn operation(&mut self) -> Result<Op, Wrong> {
        let word = self.word("an operation")?;
        match word.bare.as_deref() {
            Some("put") => self.put(),
            Some("get") => self.get(),
            Some("delete") => Ok(Op::Delete { range: self.range()?, prev_kv: self.takes("prev") }),
            Some("append") => Ok(Op::Append { key: self.key()?, value: self.value()? }),
            Some("move") => self.moved(),
            Some("exchange") => Ok(Op::Exchange { a: self.key()?, b: self.key()? }),
            Some("restore") => {
                let range = self.range()?;
                let place = self.words.peek().map_or(self.end, |word| word.place);
                if !self.takes("rev") {
                    return wrong(place, "'rev' and a revision belong here");
                }
                Ok(Op::Restore { range, revision: Revision(self.number()?) })
            }
            _ => wrong(word.place, format!("{} is no operation: {OPERATIONS}", word.shown())),
        }
    }

    fn put(&mut self) -> Result<Op, Wrong> {
        let (key, value) = (self.key()?, self.value()?);
        let (mut lease, mut prev_kv, mut ignore_lease) = (LeaseId::default(), false, false);
        loop {
            if self.takes("keep-lease") {
                ignore_lease = true;
            } else if self.takes("lease") {
                lease = self.lease()?;
            } else if self.takes("prev") {
                prev_kv = true;
            } else {
                break;
            }
        }
        Ok(Op::Put { key, value, lease, prev_kv, ignore_value: false, ignore_lease })
    }

    fn get(&mut self) -> Result<Op, Wrong> {
        let mut read = RangeRead::new(self.range()?);
        loop {
            if self.takes("rev") {
                read.at = Revision(self.number()?);
            } else if self.takes("limit") {
                read.limit = usize::try_from(self.number()?).unwrap_or(usize::MAX);
            } else if self.takes("keys") {
                read.keys_only = true;
            } else if self.takes("count") {
                read.count_only = true;
            } else {
                return Ok(Op::Range(read));
            }
        }
    }

    /// Two names that end in a slash are directories with all that lies below.
    fn moved(&mut self) -> Result<Op, Wrong> {
        let (from, to) = (self.key()?, self.key()?);
        match from.ends_with(b"/") && to.ends_with(b"/") {
            true => Ok(Op::Move { from, to }),
            false => Ok(Op::MoveKey { from, to }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_grammar_is_understood() {
        let txn = parse(
            "# a lock\nif\n exists /a\n absent prefix /b/\n value /a != \"x y\"\n version /a > 1\n \
             create range /a /c < 7\n mod from /z = 0\n lease /a = 1f\nthen put /a 1 lease 1f prev\n \
             put /b 2 keep-lease\n get prefix /a rev 3 limit 10 keys\n get /a count\n \
             delete prefix /old/ prev\n append /log x\n move /d/ /e/\n move /f /g\n \
             exchange /x /y\n restore /r rev 5\n txn\n  if absent /n\n  then put /n 1\n end\n\
             else\n get /a\n",
        );
        let txn = txn.unwrap();
        assert_eq!((txn.compares.len(), txn.success.len(), txn.failure.len()), (7, 11, 1));
        assert_eq!(txn.compares[0], Compare::present("/a"));
        assert_eq!(txn.compares[6].target, CompareTarget::Lease(LeaseId(0x1f)));
        let Op::Put { lease, prev_kv, .. } = &txn.success[0] else { panic!("{txn:?}") };
        assert_eq!((*lease, *prev_kv), (LeaseId(0x1f), true));
        assert!(matches!(&txn.success[6], Op::Move { .. }));
        assert!(matches!(&txn.success[7], Op::MoveKey { .. }));
        let Op::Txn(inner) = &txn.success[10] else { panic!("{txn:?}") };
        assert_eq!((inner.compares.len(), inner.success.len()), (1, 1));
    }

    #[test]
    fn operations_alone_are_a_transaction_without_conditions() {
        let txn = parse("put /a 1\nput \"then\" 2\n").unwrap();
        assert_eq!(
            txn,
            Txn { success: vec![Op::put("/a", "1"), Op::put("then", "2")], ..txn.clone() }
        );
        assert!(txn.compares.is_empty() && txn.failure.is_empty());
        assert_eq!(parse("# nothing\n").unwrap(), Txn::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, line, column, part) in [
            ("set /a 1", 1, 1, "'set' is no operation: put,"),
            ("if\n  equals /a 1\nthen", 2, 3, "'equals' is no condition: value,"),
            ("if value /a is 1", 1, 13, "where = != < or > belongs"),
            ("if value /a =", 1, 14, "a value is missing"),
            ("if version /a = x\nthen", 1, 17, "no number"),
            ("if version /a = -1\nthen", 1, 17, "no number"),
            ("if lease /a = xyz\nthen", 1, 15, "no lease"),
            ("if absent /a\n", 1, 13, "'then' belongs"),
            ("put /a", 1, 7, "a value is missing"),
            ("put /a 1 2", 1, 10, "'2' is too much"),
            ("put \"\" 1", 1, 5, "no key is empty"),
            ("get range /b /a", 1, 14, "ends before it begins"),
            ("restore /a 5", 1, 12, "'rev'"),
            ("txn\nput /a 1", 2, 9, "'end' belongs"),
            ("put /a 1\nthen put /b 1", 2, 1, "nothing belongs here"),
            ("end", 1, 1, "nothing belongs here"),
            ("put /a \"x", 1, 8, "not closed"),
        ] {
            let wrong = parse(text).unwrap_err();
            assert_eq!((wrong.place.line, wrong.place.column), (line, column), "{text}: {wrong:?}");
            assert!(wrong.reason.contains(part), "{text}: {wrong:?}");
        }
        assert!(parse(&"txn\n".repeat(100_000)).unwrap_err().reason.contains("16"));
    }
}
