//! Events, stamps, and what is asked and answered about history.

use super::{Malformed, RANGES_MAX, Result, at_most, number, required, size};
use crate::keyspace::{
    Author, ChangeKind, ChangesAnswer, ChangesRequest, Event, HistoryRequest, KeyRange, Revision,
    RevisionEvents, Stamp, Time, Version,
};
use crate::wire::revfs as wire;
use crate::wire::revfs::event;

impl From<Stamp> for wire::Stamp {
    fn from(stamp: Stamp) -> Self {
        Self {
            revision: stamp.revision.0,
            time: stamp.time.0,
            principal: stamp.author.principal,
            claimed: stamp.author.claimed,
            note: stamp.note,
        }
    }
}

impl From<wire::Stamp> for Stamp {
    fn from(stamp: wire::Stamp) -> Self {
        Self {
            revision: Revision(stamp.revision),
            time: Time(stamp.time),
            author: Author { principal: stamp.principal, claimed: stamp.claimed },
            note: stamp.note,
        }
    }
}

impl From<Event> for wire::Event {
    fn from(event: Event) -> Self {
        let kind = match event.kind {
            ChangeKind::Put => event::Kind::Put,
            ChangeKind::Delete => event::Kind::Delete,
        };
        Self { kind: kind.into(), kv: Some(event.kv.into()) }
    }
}

impl TryFrom<wire::Event> for Event {
    type Error = Malformed;

    fn try_from(event: wire::Event) -> Result<Self> {
        let kind = match event.kind() {
            event::Kind::Put => ChangeKind::Put,
            event::Kind::Delete => ChangeKind::Delete,
            event::Kind::Unspecified => {
                return Err(Malformed::new("Event", format!("kind is {}", event.kind)));
            }
        };
        Ok(Self { kind, kv: required(event.kv, "Event", "kv")?.into() })
    }
}

impl From<RevisionEvents> for wire::RevisionEvents {
    fn from(revision: RevisionEvents) -> Self {
        Self {
            stamp: Some(revision.stamp.into()),
            events: revision.events.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::RevisionEvents> for RevisionEvents {
    type Error = Malformed;

    fn try_from(revision: wire::RevisionEvents) -> Result<Self> {
        Ok(Self {
            stamp: required(revision.stamp, "RevisionEvents", "stamp")?.into(),
            events: revision.events.into_iter().map(Event::try_from).collect::<Result<_>>()?,
        })
    }
}

impl From<HistoryRequest> for wire::HistoryRequest {
    fn from(request: HistoryRequest) -> Self {
        Self {
            key: request.key,
            at_most: request.at_most.0,
            limit: number(request.limit),
            keys_only: request.keys_only,
        }
    }
}

impl From<wire::HistoryRequest> for HistoryRequest {
    fn from(request: wire::HistoryRequest) -> Self {
        Self {
            key: request.key,
            at_most: Revision(request.at_most),
            limit: size(request.limit),
            keys_only: request.keys_only,
        }
    }
}

/// A [`wire::HistoryResponse`] from what [`crate::KeySpace::history`] answers.
#[must_use]
pub fn history_response(versions: Vec<Version>) -> wire::HistoryResponse {
    let versions = versions.into_iter().map(|version| wire::history_response::Version {
        event: Some(version.event.into()),
        stamp: Some(version.stamp.into()),
    });
    wire::HistoryResponse { versions: versions.collect() }
}

/// What [`crate::KeySpace::history`] answers from a [`wire::HistoryResponse`].
///
/// # Errors
/// [`Malformed`] if a version lacks its event or stamp.
pub fn history_answer(response: wire::HistoryResponse) -> Result<Vec<Version>> {
    let version = |version: wire::history_response::Version| {
        Ok(Version {
            event: required(version.event, "HistoryResponse.Version", "event")?.try_into()?,
            stamp: required(version.stamp, "HistoryResponse.Version", "stamp")?.into(),
        })
    };
    response.versions.into_iter().map(version).collect()
}

fn ranges(ranges: Vec<wire::KeyRange>, message: &'static str) -> Result<Vec<KeyRange>> {
    at_most(ranges.len(), RANGES_MAX, message, "ranges")?;
    ranges.into_iter().map(KeyRange::try_from).collect()
}

impl From<ChangesRequest> for wire::ChangesRequest {
    fn from(request: ChangesRequest) -> Self {
        Self {
            ranges: request.ranges.into_iter().map(Into::into).collect(),
            from: request.from.0,
            to: request.to.0,
            newest_first: request.newest_first,
            limit: number(request.limit),
            scan_limit: number(request.scan_limit),
            keys_only: request.keys_only,
        }
    }
}

impl TryFrom<wire::ChangesRequest> for ChangesRequest {
    type Error = Malformed;

    fn try_from(request: wire::ChangesRequest) -> Result<Self> {
        Ok(Self {
            ranges: ranges(request.ranges, "ChangesRequest")?,
            from: Revision(request.from),
            to: Revision(request.to),
            newest_first: request.newest_first,
            limit: size(request.limit),
            scan_limit: size(request.scan_limit),
            keys_only: request.keys_only,
        })
    }
}

impl From<ChangesAnswer> for wire::ChangesResponse {
    fn from(answer: ChangesAnswer) -> Self {
        Self {
            revisions: answer.revisions.into_iter().map(Into::into).collect(),
            next: answer.next.unwrap_or(Revision::NONE).0,
            current: answer.current.0,
        }
    }
}

impl TryFrom<wire::ChangesResponse> for ChangesAnswer {
    type Error = Malformed;

    fn try_from(response: wire::ChangesResponse) -> Result<Self> {
        let revisions = response.revisions.into_iter().map(RevisionEvents::try_from);
        Ok(Self {
            revisions: revisions.collect::<Result<_>>()?,
            next: Some(Revision(response.next)).filter(|&next| next != Revision::NONE),
            current: Revision(response.current),
        })
    }
}

/// A [`wire::StampResponse`] from what [`crate::KeySpace::stamp`] answers.
#[must_use]
pub fn stamp_response(stamp: Stamp) -> wire::StampResponse {
    wire::StampResponse { stamp: Some(stamp.into()) }
}

/// What [`crate::KeySpace::stamp`] answers from a [`wire::StampResponse`].
///
/// # Errors
/// [`Malformed`] if there is no stamp.
pub fn stamp_answer(response: wire::StampResponse) -> Result<Stamp> {
    Ok(required(response.stamp, "StampResponse", "stamp")?.into())
}

/// A [`wire::WatchRequest`] from what [`crate::KeySpace::watch`] takes.
#[must_use]
pub fn watch_request(ranges: Vec<KeyRange>, from: Revision) -> wire::WatchRequest {
    wire::WatchRequest { ranges: ranges.into_iter().map(Into::into).collect(), from: from.0 }
}

/// What [`crate::KeySpace::watch`] takes from a [`wire::WatchRequest`].
///
/// # Errors
/// [`Malformed`] if a range has no meaning, or there is none, or more than [`RANGES_MAX`].
pub fn watch_arguments(request: wire::WatchRequest) -> Result<(Vec<KeyRange>, Revision)> {
    if request.ranges.is_empty() {
        return Err(Malformed::new("WatchRequest", "no range is named"));
    }
    Ok((ranges(request.ranges, "WatchRequest")?, Revision(request.from)))
}
