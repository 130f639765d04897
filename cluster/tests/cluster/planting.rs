//! Changes a row in the store file of a member that is stopped, past the store and with the right checksums:
//! what no check of its own can notice.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use heed::types::Bytes as Raw;
use heed::{CommitOrAbort, Database, EnvOpenOptions, RwTxn};
use revfs_store::schema::{
    ROW_STATE, Tree, Want, decode_key_row, decode_state, encode_key_row, encode_lease,
    encode_state, key_prefix, lease_row, split_descending,
};
use revfs_store::types::{Lease, LeaseId};

use crate::rig::{Cluster, wait_for};

type Rows<'e> = dyn Fn(Tree) -> Database<'e, Raw, Raw> + 'e;

impl Cluster {
    /// The directory of a stopped member's store.
    pub(crate) fn store_directory(&self, member: usize) -> PathBuf {
        let data_dir = self.config(member).data_dir;
        let current = std::fs::read_to_string(data_dir.join("CURRENT")).unwrap();
        let name = current.strip_prefix("store ").unwrap().lines().next().unwrap();
        data_dir.join(name)
    }

    /// Gives the newest version of a key another value.
    pub(crate) async fn plant_value(&self, member: usize, key: &str, value: &'static str) {
        self.plant(member, |rows, wtxn| {
            let tree = rows(Tree::Keys);
            let prefix = key_prefix(key.as_bytes());
            let newest = tree.get_greater_than_or_equal_to(wtxn, &prefix).unwrap().unwrap();
            let (row, old) = (newest.0.to_vec(), newest.1.to_vec());
            let (found, revision) = split_descending(Tree::Keys, &row).unwrap();
            assert_eq!(found, prefix, "{key} is in the store");
            let named = Bytes::copy_from_slice(key.as_bytes());
            let mut version = decode_key_row(&row, named, revision, &old, Want::Value).unwrap();
            version.kv.value = Bytes::from_static(value.as_bytes());
            version.kv.value_bytes = u64::try_from(value.len()).unwrap();
            tree.put(wtxn, &row, &encode_key_row(&row, &version)).unwrap();
        })
        .await;
    }

    /// Adds a lease that nobody granted.
    pub(crate) async fn plant_lease(&self, member: usize, id: i64) {
        self.plant(member, |rows, wtxn| {
            let (id, ttl_seconds) = (LeaseId(id), 3_600);
            let lease = Lease { id, ttl_seconds, remaining_seconds: 0 };
            let row = lease_row(id);
            rows(Tree::Leases).put(wtxn, &row, &encode_lease(&row, &lease)).unwrap();
        })
        .await;
    }

    async fn plant(&self, member: usize, change: impl Fn(&Rows<'_>, &mut RwTxn<'_>)) {
        let directory = self.store_directory(member);
        // Somebody may still ask the node that was stopped.
        wait_for("a store that nobody has open", async || change_rows(&directory, &change)).await;
    }
}

fn change_rows(directory: &Path, change: impl Fn(&Rows<'_>, &mut RwTxn<'_>)) -> Option<()> {
    let mut open = EnvOpenOptions::new();
    open.map_size(1 << 30).max_dbs(u32::try_from(Tree::ALL.len()).unwrap());
    #[expect(unsafe_code, reason = "nobody else has the file open")]
    // SAFETY: the member was stopped, and the directory is this test's own.
    let env = match unsafe { open.open(directory) } {
        Ok(env) => env,
        Err(heed::Error::EnvAlreadyOpened) => return None,
        Err(error) => panic!("{error}"),
    };
    let wtxn = env.write_txn().unwrap();
    env.create_databases_and_commit(wtxn, |opener, wtxn| {
        let mut trees = Vec::new();
        for tree in Tree::ALL {
            trees.push(opener.create_database::<Raw, Raw>(wtxn, Some(tree.name()))?);
        }
        change(&|tree: Tree| trees[tree.index()], wtxn);
        // The state row names the transaction that wrote last.
        let meta = trees[Tree::Meta.index()];
        let mut state = decode_state(meta.get(wtxn, ROW_STATE)?.unwrap()).unwrap();
        state.txn = u64::try_from(wtxn.id()).unwrap();
        meta.put(wtxn, ROW_STATE, &encode_state(&state))?;
        Ok(CommitOrAbort::<_, ()>::Commit(()))
    })
    .map_err(|error: heed::Error| error)
    .unwrap();
    Some(())
}
