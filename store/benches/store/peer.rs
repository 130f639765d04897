//! Raw LMDB: the same rows without a store around them.

use std::path::Path;

use heed::types::Bytes as Raw;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions};
use revfs_store::schema::{
    KeyRow, Tree, encode_change, encode_directory, encode_key_row, encode_name, encode_stamp,
    key_row, name_row, revision_row,
};
use revfs_store::types::{DirectoryState, KeyValue, Revision, Stamp};

use crate::Outcome;
use crate::load::{DIRECTORY, ENTRY_PUTS, TIME, VALUE_BYTES, Values, author, key};

pub(crate) type Rows = Database<'static, Raw, Raw>;

/// Rows of one transaction in a raw environment.
pub(crate) const TRANSACTION_ROWS: usize = 10_000;

pub(crate) struct Peer {
    pub(crate) env: Env,
    trees: [Rows; Tree::ALL.len()],
}

/// A row of a tree.
pub(crate) type PeerRow = (Tree, Vec<u8>, Vec<u8>);

impl Peer {
    pub(crate) fn create(dir: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(dir)?;
        let mut open = EnvOpenOptions::new();
        open.map_size(1 << 38).max_dbs(u32::try_from(Tree::ALL.len())?);
        // SAFETY: this process alone has the file, through this environment alone.
        #[expect(unsafe_code, reason = "LMDB maps a file, as the store's env.rs does")]
        let env = unsafe { open.open(dir)? };
        let wtxn = env.write_txn()?;
        let made = env.create_databases_and_commit(wtxn, |opener, wtxn| {
            let mut trees = Vec::new();
            for tree in Tree::ALL {
                trees.push(opener.create_database::<Raw, Raw>(wtxn, Some(tree.name()))?);
            }
            let trees: [_; Tree::ALL.len()] =
                trees.try_into().unwrap_or_else(|_| unreachable!("one database per tree"));
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(trees))
        });
        let trees = made?.unwrap_commit();
        Ok(Self { env, trees })
    }

    pub(crate) fn rows(&self, tree: Tree) -> &Rows {
        &self.trees[tree.index()]
    }

    /// Puts rows in transactions of [`TRANSACTION_ROWS`], each sorted already.
    pub(crate) fn put_all(&self, rows: &[PeerRow]) -> Outcome<()> {
        for transaction in rows.chunks(TRANSACTION_ROWS) {
            let mut wtxn = self.env.write_txn()?;
            for (tree, row, value) in transaction {
                self.rows(*tree).put(&mut wtxn, row, value)?;
            }
            wtxn.commit()?;
        }
        Ok(())
    }
}

/// Makes the rows that the store makes of entries of puts.
pub(crate) struct RowMaker {
    main: Revision,
    names: u64,
}

impl RowMaker {
    pub(crate) fn new() -> Self {
        Self { main: Revision::FIRST, names: 0 }
    }

    /// The rows of these puts, sorted by tree and row within each transaction.
    pub(crate) fn rows(&mut self, keys: &[usize], are_new: bool, values: &Values) -> Vec<PeerRow> {
        let mut rows = Vec::new();
        for entry in keys.chunks(ENTRY_PUTS) {
            self.entry(entry, are_new, values, &mut rows);
        }
        for transaction in rows.chunks_mut(TRANSACTION_ROWS) {
            transaction.sort_unstable();
        }
        rows
    }

    fn entry(&mut self, keys: &[usize], are_new: bool, values: &Values, rows: &mut Vec<PeerRow>) {
        self.main = self.main.next();
        let main = self.main;
        for (sub, &number) in (0..).zip(keys) {
            let key = key(number);
            let value = values.get(number, VALUE_BYTES);
            let kv = KeyValue {
                key: key.clone(),
                value,
                create_revision: main,
                mod_revision: main,
                version: 1,
                time: TIME,
                content_revision: main,
                content_time: TIME,
                birth_revision: main,
                ..KeyValue::default()
            };
            let row = key_row(&key, main);
            let value = encode_key_row(&row, &KeyRow { sub, tombstone: false, kv });
            rows.push((Tree::Keys, row, value));
            let row = revision_row(main, sub);
            rows.push((Tree::Revisions, row.to_vec(), encode_change(&row, false, &key)));
            if are_new {
                let row = name_row(DIRECTORY, &key[DIRECTORY.len()..], main);
                let value = encode_name(&row, true);
                rows.push((Tree::Names, row, value));
                self.names += 1;
            }
        }
        if are_new {
            let row = key_row(DIRECTORY, main);
            let state = DirectoryState { names: self.names, changed: main, time: TIME };
            let value = encode_directory(&row, &state);
            rows.push((Tree::Directories, row, value));
        }
        let row = main.0.to_be_bytes();
        let stamp =
            Stamp { revision: main, time: TIME, author: author(), note: bytes::Bytes::new() };
        rows.push((Tree::Times, row.to_vec(), encode_stamp(&row, &stamp)));
    }
}
