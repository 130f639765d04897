//! Keys that are longer than ours may be, as an import names them before it begins.

use serde_json::{Map, Value};

use crate::error::{Failure, Kind, Result};
use crate::output::{Output, insert_bytes, readable};

/// Those that are named, each with its length, and how many there are.
pub(super) struct LongKeys<'a> {
    pub(super) named: Vec<(&'a [u8], usize)>,
    pub(super) count: u64,
}

impl LongKeys<'_> {
    pub(super) fn documents(&self) -> Vec<Value> {
        let document = |&(key, bytes): &(&[u8], usize)| {
            let mut object = Map::new();
            insert_bytes(&mut object, "key", key);
            object.insert("bytes".to_owned(), bytes.into());
            object.into()
        };
        self.named.iter().map(document).collect()
    }

    pub(super) fn print(&self, output: &mut Output) -> Result<()> {
        for (key, bytes) in &self.named {
            output.line(&format!("too long: {bytes} bytes: {}", readable(key)))?;
        }
        let named = super::as_u64(self.named.len());
        if self.count > named {
            output.line(&format!("too long: {} more", self.count - named))?;
        }
        Ok(())
    }
}

/// They are listed; nothing has begun.
pub(super) fn refused(failure: Failure) -> Failure {
    failure.of_kind(Kind::Conflict).hint("they are listed above; --skip-long-keys leaves them out")
}
