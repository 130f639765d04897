//! Names of the file system that the commands understand too: side records, `@keys`, times.
//!
//! Nothing is built here: this is the one place where the commands lean on `revfs_fs` for them.

use std::ffi::OsStr;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use revfs_api::keyspace::Time;
use revfs_fs::attributes;
use revfs_fs::history::parse_time_name;
use revfs_fs::path::{KeysName, parse_keys_name};

use crate::error::{Failure, Result};

/// The key of the side record of a key or directory prefix.
pub(crate) fn record_key(key: &[u8]) -> Bytes {
    attributes::record_key(key)
}

/// The key whose side record this is.
pub(crate) fn key_of_record(record: &Bytes) -> Option<Bytes> {
    let is_record = record.starts_with(attributes::RECORD_PREFIX);
    is_record.then(|| record.slice(attributes::RECORD_PREFIX.len()..))
}

/// The key of an entry of `@keys/`.
pub(crate) fn flat_key(name: &OsStr) -> Result<Bytes, String> {
    match parse_keys_name(name) {
        Ok(KeysName::Key(key)) => Ok(key),
        Ok(KeysName::Digest(_)) => {
            Err("the name is shortened; `revfs ls -R` shows the whole key".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The moment that a time expression means, in the zone of this machine.
pub(crate) fn time(text: &str) -> Result<Time> {
    parse_time_name(text.as_bytes(), Timestamp::now(), &TimeZone::system())
        .map_err(|error| Failure::usage(error.to_string()))
}
