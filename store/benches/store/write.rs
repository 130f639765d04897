//! Apply and commit of puts in entries of 100, against the same rows put raw into LMDB.

use std::path::Path;

use revfs_store::StoreOptions;

use crate::figures::{Bound, Figure, timed};
use crate::load::{ENTRY_PUTS, Loaded, Random, Values, puts};
use crate::peer::{Peer, RowMaker};
use crate::{Outcome, Settings};

pub(crate) fn run(settings: &Settings, dir: &Path) -> Outcome<Vec<Figure>> {
    let values = Values::new();
    let count = settings.size(200_000).max(ENTRY_PUTS);
    let mut loaded = Loaded::create(&dir.join("store"), StoreOptions::default())?;
    let peer = Peer::create(&dir.join("peer"))?;
    let mut maker = RowMaker::new();
    let mut round = |keys: &[usize], are_new: bool| -> Outcome<_> {
        let commands = puts(keys, &values, ENTRY_PUTS);
        let rows = maker.rows(keys, are_new, &values);
        let (ours, done) = timed(|| -> Outcome<()> {
            loaded.apply_all(&commands)?;
            loaded.store.commit()?;
            Ok(())
        });
        done?;
        let (raw, done) = timed(|| peer.put_all(&rows));
        done?;
        Ok((ours, raw))
    };
    let mut new = Vec::new();
    for at in 0..settings.rounds {
        let keys: Vec<usize> = (at * count..(at + 1) * count).collect();
        new.push(round(&keys, true)?);
    }
    let mut existing = Vec::new();
    let mut random = Random(1);
    let keys = settings.rounds * count;
    for _ in 0..settings.rounds {
        let keys: Vec<usize> =
            random.shuffled(keys).into_iter().take((count / 2).max(ENTRY_PUTS)).collect();
        existing.push(round(&keys, false)?);
    }
    let bound = Bound::AtLeast(0.6);
    Ok(vec![
        Figure::speed(&format!("write {count} new keys in order, entries of 100"), &new, bound),
        Figure::speed("write random existing keys, entries of 100", &existing, bound),
    ])
}
