//! The rows of *members* (id -> what is known of it, or that it was removed), and the row `version` of
//! *counters* (-> the cluster's version).

use super::{
    RowError, Tree, check_held_length, check_length, opened, row_error, sealed_with_length,
};
use crate::codec::{DecodeError, Problem, Reader, Writer};
use crate::member::{Member, MemberRole, MemberRow};

pub const VERSION_ROW: &[u8] = b"version";

#[must_use]
pub fn encode_version(version: u32) -> Vec<u8> {
    super::sealed(Tree::Counters, VERSION_ROW, &version.to_be_bytes())
}

/// # Errors
/// A row of another name, or whose checksum or length is wrong.
pub fn decode_version(row: &[u8], value: &[u8]) -> Result<u32, RowError> {
    let read = || {
        check_length(value, 8)?;
        let mut reader = Reader::new(opened(Tree::Counters, row, value)?);
        if row != VERSION_ROW {
            let tag = row.first().map_or(0, |&byte| byte.into());
            return Err(reader.error("counter", Problem::UnknownTag { tag }));
        }
        reader.u32("cluster version")
    };
    read().map_err(row_error(Tree::Counters, row))
}

const REMOVED: u8 = 0;
const PENDING: u8 = 1;
const JOINED: u8 = 2;
const REMOVED_BY_FORCE: u8 = 3;

#[must_use]
pub fn member_row(id: u64) -> [u8; 8] {
    id.to_be_bytes()
}

const FITS: &str = "the fields come from commands, whose lengths have four bytes";

fn write_texts(body: &mut Writer, texts: &[String]) {
    body.u32(u32::try_from(texts.len()).expect(FITS));
    for text in texts {
        body.bytes(text.as_bytes()).expect(FITS);
    }
}

fn read_texts(reader: &mut Reader<'_>, field: &'static str) -> Result<Vec<String>, DecodeError> {
    (0..reader.count(field)?).map(|_| reader.text(field)).collect()
}

#[must_use]
pub fn encode_member(row: &[u8], member: &MemberRow) -> Vec<u8> {
    let mut body = Writer::with_capacity(160);
    match member {
        MemberRow::Removed => body.u8(REMOVED),
        MemberRow::RemovedByForce => body.u8(REMOVED_BY_FORCE),
        MemberRow::Live(member) => {
            body.u8(if member.joined { JOINED } else { PENDING });
            body.u8(member.role.number());
            body.u64(member.replaces.unwrap_or(0));
            body.u32(member.version);
            body.u8(u8::from(member.instance.is_some()));
            body.raw(&member.instance.unwrap_or(0).to_be_bytes());
            body.bytes(member.name.as_bytes()).expect(FITS);
            write_texts(&mut body, &member.peer_urls);
            write_texts(&mut body, &member.client_urls);
        }
    }
    sealed_with_length(Tree::Members, row, &body)
}

/// # Errors
/// A row whose checksum, length, state or role is wrong.
pub fn decode_member(row: &[u8], value: &[u8]) -> Result<(u64, MemberRow), RowError> {
    let read = || {
        check_length(row, 8)?;
        check_held_length(value, 4)?;
        let id = Reader::new(row).u64("member")?;
        let mut reader = Reader::new(opened(Tree::Members, row, value)?);
        reader.raw("length", 4)?;
        let found = match reader.u8("state")? {
            REMOVED => MemberRow::Removed,
            REMOVED_BY_FORCE => MemberRow::RemovedByForce,
            state @ (PENDING | JOINED) => MemberRow::Live(live(&mut reader, id, state == JOINED)?),
            other => {
                let problem = Problem::UnknownTag { tag: u32::from(other) };
                return Err(reader.error("state", problem));
            }
        };
        reader.end("member")?;
        Ok((id, found))
    };
    read().map_err(row_error(Tree::Members, row))
}

fn live(reader: &mut Reader<'_>, id: u64, joined: bool) -> Result<Member, DecodeError> {
    let number = reader.u8("role")?;
    let unknown = Problem::UnknownTag { tag: u32::from(number) };
    let role = MemberRole::of_number(number).ok_or_else(|| reader.error("role", unknown))?;
    let replaces = Some(reader.u64("replaces")?).filter(|old| *old != 0);
    let version = reader.u32("version")?;
    let is_known = reader.u8("instance known")?;
    let instance =
        (u128::from(reader.u64("instance")?) << 64) | u128::from(reader.u64("instance")?);
    let instance = match (is_known, instance) {
        (0, 0) => None,
        (1, instance) => Some(instance),
        _ => {
            let problem = Problem::UnknownTag { tag: u32::from(is_known) };
            return Err(reader.error("instance known", problem));
        }
    };
    let name = reader.text("name")?;
    let peer_urls = read_texts(reader, "peer URL")?;
    let client_urls = read_texts(reader, "client URL")?;
    Ok(Member { id, role, joined, instance, version, replaces, name, peer_urls, client_urls })
}
