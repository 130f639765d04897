//! Questions that one view of a store answers, whoever asks and whatever the store is of: a node, or a backup.

use revfs_api::keyspace::{Answer, Read, ReadAnswer, Result, Revision};
use revfs_store::ReadView;
use revfs_store::types as store;

use crate::convert;

/// Answers all questions, each after `permit` has let its keys be read.
pub(crate) fn answer(
    view: &ReadView,
    revision: Revision,
    reads: Vec<Read>,
    permit: impl Fn(&store::KeyRange) -> Result<()>,
) -> Result<ReadAnswer> {
    let current = convert::revision_to_api(view.current());
    let at = convert::revision_to_store(revision);
    let answer = |read| match read {
        Read::Range(read) => {
            let query = convert::range_read_to_store(read);
            permit(&query.range)?;
            let result = view.range(at, &query).map_err(convert::read_error)?;
            Ok(Answer::Range(convert::range_to_api(result)))
        }
        Read::List(read) => {
            let query = convert::list_read_to_store(read);
            permit(&store::KeyRange::prefix(&query.directory))?;
            let result = view.list(at, &query).map_err(convert::read_error)?;
            Ok(Answer::List(convert::list_to_api(result)))
        }
        Read::Directory(directory) => {
            permit(&store::KeyRange::prefix(&directory))?;
            let state = view.directory(at, &directory).map_err(convert::read_error)?;
            Ok(Answer::Directory(convert::directory_to_api(state)))
        }
    };
    let answers: Result<_> = reads.into_iter().map(answer).collect();
    Ok(ReadAnswer {
        revision: if revision == Revision::NONE { current } else { revision },
        current,
        answers: answers?,
    })
}

/// Time of the oldest revision whose history is complete; empty on an empty store.
pub(crate) fn history_since(view: &ReadView) -> Result<String> {
    let first = store::Revision::FIRST.next();
    let oldest = view.compacted().max(first);
    if oldest > view.current() {
        return Ok(String::new());
    }
    let time = view.stamp(oldest).map_err(convert::read_error)?.time;
    Ok(jiff::Timestamp::from_nanosecond(i128::from(time.0))
        .map(|time| time.to_string())
        .unwrap_or_default())
}
