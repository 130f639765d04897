//! The rows of *alarms*: member, kind -> nothing.

use super::{RowError, Tree, check_length, opened, row_error, sealed};
use crate::alarm::{Alarm, AlarmKind};
use crate::codec::{Problem, Reader};

#[must_use]
pub fn alarm_row(alarm: Alarm) -> [u8; 9] {
    let mut row = [0; 9];
    row[..8].copy_from_slice(&alarm.member.to_be_bytes());
    row[8] = alarm.kind.number();
    row
}

#[must_use]
pub fn encode_alarm(row: &[u8]) -> Vec<u8> {
    sealed(Tree::Alarms, row, &[])
}

/// # Errors
/// A row whose checksum, length or kind is wrong.
pub fn decode_alarm(row: &[u8], value: &[u8]) -> Result<Alarm, RowError> {
    let read = || {
        check_length(row, 9)?;
        check_length(value, 4)?;
        opened(Tree::Alarms, row, value)?;
        let mut reader = Reader::new(row);
        let member = reader.u64("member")?;
        let kind = reader.u8("kind")?;
        let unknown = Problem::UnknownTag { tag: u32::from(kind) };
        let kind = AlarmKind::of_number(kind).ok_or_else(|| reader.error("kind", unknown))?;
        Ok(Alarm { member, kind })
    };
    read().map_err(row_error(Tree::Alarms, row))
}
