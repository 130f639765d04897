//! Members: who is to belong to the cluster, as state of the whole cluster.
//!
//! A row says what an operator *wants* of a member and what it has told of itself. Replication has its
//! own membership, which alone says who votes now; the leader brings it after the rows, one step at a
//! time. So a row harms nobody: a member that was added at a wrong address stays
//!
//! ```text
//! pending ──Identify: it was reached, and is new──► joined ──Remove──► removed (for ever)
//!    └───────────────────────Remove────────────────────────────────────────┘
//! ```
//!
//! What replication knows without a row (the founders, before the first leader wrote theirs) is
//! adopted as joined. A member is one data directory, known by its instance: another directory under
//! the same number is a wiped disk, and refused. A removed number is kept, and never given again.
//!
//! The row `version` of *counters* is the cluster's version: what all members speak, raised when the
//! last of them can, never lowered. None of all this makes a revision.

use crate::error::StoreError;
use crate::schema::{Tree, VERSION_ROW, decode_member, decode_version};
use crate::view::ReadView;

mod change;

pub(crate) use change::run;

/// Members at once, those that are pending included.
pub const MEMBERS_MAX: usize = 64;

/// URLs of one kind of one member.
pub const MEMBER_URLS_MAX: usize = 16;

/// The longest URL or name of a member.
pub const MEMBER_TEXT_BYTES_MAX: usize = 1_000;

/// What the first release speaks; the cluster's version until it is raised.
pub const FIRST_VERSION: u32 = 1;

/// What an operator wants of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberRole {
    /// Votes as soon as it has caught up.
    #[default]
    Voter,
    /// Receives the log until it is promoted.
    Learner,
    /// A learner that votes in place of a voter that is gone.
    Standby,
    /// A learner for reads far away; it never votes.
    ReadOnly,
}

impl MemberRole {
    pub const ALL: [Self; 4] = [Self::Voter, Self::Learner, Self::Standby, Self::ReadOnly];

    /// The number that stands in rows and commands.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Voter => 1,
            Self::Learner => 2,
            Self::Standby => 3,
            Self::ReadOnly => 4,
        }
    }

    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.number() == number)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
            Self::Standby => "standby",
            Self::ReadOnly => "read-only",
        }
    }

    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// A member that was not removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Never 0.
    pub id: u64,
    pub role: MemberRole,
    /// It was reached at its address, or replication knew it from the start; otherwise it is pending.
    pub joined: bool,
    /// The random number of the data directory that is this member, once it is known.
    pub instance: Option<u128>,
    /// The newest cluster version that it speaks; 0 = it has not said.
    pub version: u32,
    /// The member whose place it takes once it has caught up.
    pub replaces: Option<u64>,
    /// Empty until it has come up once.
    pub name: String,
    /// Where the other members find it. Of living members no two have one in common, but for the
    /// one that is replaced at its own address.
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
}

/// The row of one member number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberRow {
    Live(Member),
    Removed,
    /// It is to leave although too few of the other voters are there.
    RemovedByForce,
}

impl MemberRow {
    #[must_use]
    pub fn live(&self) -> Option<&Member> {
        match self {
            Self::Live(member) => Some(member),
            Self::Removed | Self::RemovedByForce => None,
        }
    }
}

/// A change of the members' rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Someone who is to join: pending until identified.
    Add {
        id: u64,
        role: MemberRole,
        replaces: Option<u64>,
        peer_urls: Vec<String>,
    },
    /// Someone whom replication knows and who has no row. Nothing changes if there is one, or was.
    Adopt {
        id: u64,
        role: MemberRole,
        peer_urls: Vec<String>,
    },
    /// Also lifts the member's alarms, which nobody else could.
    Remove {
        id: u64,
    },
    /// The same, also of one that was removed and still votes because too few others are there.
    RemoveByForce {
        id: u64,
    },
    SetUrls {
        id: u64,
        peer_urls: Vec<String>,
    },
    /// To make a voter of one that is wanted as a voter is refused, as etcd does.
    SetRole {
        id: u64,
        role: MemberRole,
    },
    /// The leader has reached the member at its address: this data directory is it from now on.
    Identify {
        id: u64,
        instance: u128,
        version: u32,
    },
    /// What a member tells of itself when it starts. Its peer URLs count only if it has none yet.
    Publish {
        id: u64,
        instance: u128,
        version: u32,
        name: String,
        peer_urls: Vec<String>,
        client_urls: Vec<String>,
    },
    /// Nothing changes if the cluster's version is so high already.
    RaiseVersion {
        version: u32,
    },
}

/// Why members were not changed; where etcd has words, they are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberRefusal {
    /// Also of a number that was removed.
    #[error("member ID already exist")]
    IdExists,
    #[error("member id 0 means no member")]
    IdZero,
    #[error("Peer URLs already exists")]
    UrlExists,
    #[error("member not found")]
    NotFound,
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    #[error("can only promote a learner member")]
    NotLearner,
    /// It is the only voter.
    #[error("re-configuration failed due to not enough started members")]
    LastVoter,
    #[error("given member URLs are invalid")]
    UrlsInvalid,
    #[error("name of {bytes} bytes is longer than {max}")]
    NameTooLong { bytes: usize, max: usize },
    #[error("there are {max} members: remove one first")]
    TooMany { max: usize },
    #[error("member {by:x} replaces it already")]
    ReplacedAlready { by: u64 },
    #[error(
        "member {id:x} has the data directory with instance {known:032x}, this one has \
         {found:032x}: a wiped disk comes back with 'revfs member replace {id:x}'"
    )]
    OtherInstance { id: u64, known: u128, found: u128 },
    #[error("the data directory with instance {instance:032x} is member {of:x}")]
    InstanceTaken { instance: u128, of: u64 },
    #[error("it speaks cluster version {found}, the cluster is at {needed}: use a newer release")]
    VersionTooLow { found: u32, needed: u32 },
    #[error("member {by:x} speaks cluster version {speaks}, not {version}")]
    VersionNotSpoken { version: u32, by: u64, speaks: u32 },
}

impl ReadView {
    /// Every member number that was ever given, in ascending order.
    ///
    /// # Errors
    /// A closed store.
    pub fn member_rows(&self) -> Result<Vec<(u64, MemberRow)>, StoreError> {
        // LMDB has no empty keys.
        let mut cursor = self.cursor(Tree::Members, &[0], None)?;
        let mut rows = Vec::new();
        while let Some(row) = cursor.next().map_err(|e| self.lmdb(&e))? {
            rows.push(decode_member(row.key(), row.value()).map_err(|e| self.row(&e))?);
        }
        Ok(rows)
    }

    /// The members that were not removed, in ascending order.
    ///
    /// # Errors
    /// A closed store.
    pub fn members(&self) -> Result<Vec<Member>, StoreError> {
        let live = |(_, row)| match row {
            MemberRow::Live(member) => Some(member),
            MemberRow::Removed | MemberRow::RemovedByForce => None,
        };
        Ok(self.member_rows()?.into_iter().filter_map(live).collect())
    }

    /// What all members speak.
    ///
    /// # Errors
    /// A closed store.
    pub fn cluster_version(&self) -> Result<u32, StoreError> {
        match self.get_row(Tree::Counters, VERSION_ROW)? {
            None => Ok(FIRST_VERSION),
            Some(row) => decode_version(row.key(), row.value()).map_err(|e| self.row(&e)),
        }
    }
}
