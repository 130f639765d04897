//! How a node without data learns as whom it comes to a cluster that has begun: it asks the members for
//! those that they await at its own addresses. Who finds that a member lives there has lost its data, and
//! waits to be put in that one's place.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use revfs_api::client::{Settings, Tls};
use tokio::time::Instant;

use crate::data_dir::{self, Identity};
use crate::founding::{Founders, Founding, Invitation};
use crate::members::SPOKEN_VERSION;
use crate::peer::{Met, Peers};
use crate::raft::{TooOld, check_spoken};

/// Between two rounds of questions: `member add` may come after the node.
const PAUSE: Duration = Duration::from_millis(500);

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Why nobody awaits the node.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotInvited {
    #[error(
        "no member awaits this node at {own} after {waited:?}: {answers}; run 'revfs member add {own}', \
         or check initial-advertise-peer-urls"
    )]
    Unknown { own: String, waited: Duration, answers: String },
    #[error(
        "the data directory is empty, but member {lives:x} lives at {own} and has data: find that, or, if it \
         is lost, run 'revfs member replace {lives:x} {own}' and start this node again (it waited for \
         that {waited:?})"
    )]
    DataLost { own: String, waited: Duration, lives: u64 },
    #[error(transparent)]
    TooOld(#[from] TooOld),
}

/// One round of questions.
#[derive(Default)]
struct Round {
    invitation: Option<Invitation>,
    /// The member that has data and lives where this node is.
    lives: Option<u64>,
    /// What the cluster needs to be spoken.
    needed_version: u32,
    /// What else was said.
    answers: Vec<String>,
}

/// Whether a data directory belongs to a cluster already: then it is that one's, whatever is said.
#[must_use]
pub fn is_in_use(data_dir: &Path) -> bool {
    data_dir::is_in_use(data_dir)
}

/// Asks the members at `others` until one of them awaits a node at `own`.
///
/// # Errors
/// [`NotInvited`], with what each of them said.
pub async fn invitation(
    others: &[String],
    own: &[String],
    tls: Tls,
    timeout: Duration,
) -> Result<Invitation, NotInvited> {
    let deadline = Instant::now() + timeout;
    let peers = nobody(tls);
    let mut has_told = false;
    loop {
        let round = ask(&peers, others, own, None).await;
        check_spoken(round.needed_version, SPOKEN_VERSION)?;
        if let Some(invitation) = round.invitation {
            return Ok(invitation);
        }
        tell_of_loss(&round, own, &mut has_told);
        if Instant::now() + PAUSE >= deadline {
            return Err(round.refusal(own, timeout));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// As whom a founder without data begins: as the one it is told to be; but if its cluster has begun and
/// knows data of it, as who is to take its place.
///
/// # Errors
/// [`NotInvited`], if nobody is to.
pub async fn founder(
    founders: &Founders,
    tls: Tls,
    timeout: Duration,
) -> Result<Founding, NotInvited> {
    let deadline = Instant::now() + timeout;
    let peers = nobody(tls);
    let own = founders.members.get(founders.own).cloned().unwrap_or_default();
    let others = founders.members.iter().flatten().filter(|url| !own.contains(url));
    let others: Vec<String> = others.cloned().collect();
    let mut has_told = false;
    loop {
        let round = ask(&peers, &others, &own, Some(founders.cluster())).await;
        check_spoken(round.needed_version, SPOKEN_VERSION)?;
        if let Some(invitation) = round.invitation {
            return Ok(Founding::Invited(invitation));
        }
        if round.lives.is_none() {
            return Ok(Founding::Together(founders.clone()));
        }
        tell_of_loss(&round, &own, &mut has_told);
        if Instant::now() + PAUSE >= deadline {
            return Err(round.refusal(&own, timeout));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn nobody(tls: Tls) -> Peers {
    let nobody = Identity { cluster: 0, member: 0, instance: 0 };
    let settings = Settings { connect_timeout: ANSWER_TIMEOUT, tls, ..Settings::default() };
    Peers::new(nobody, settings, Arc::new(Met::default()))
}

/// Asks all others at once; only those of `cluster`, once it has begun, if it is known which one.
async fn ask(peers: &Peers, others: &[String], own: &[String], cluster: Option<u64>) -> Round {
    let asked = others.iter().map(|url| peers.who_is_at(url, own));
    let mut round = Round::default();
    for answer in futures_util::future::join_all(asked).await {
        match answer {
            Ok(answer) if cluster.is_some_and(|known| known != answer.cluster) => {
                let (member, cluster) = (answer.member, answer.cluster);
                round.answers.push(format!("member {member:x} is of cluster {cluster:016x}"));
            }
            Ok(answer) => {
                round.needed_version = round.needed_version.max(answer.needed_version);
                if answer.invited != 0 {
                    let (cluster, member) = (answer.cluster, answer.invited);
                    round.invitation.get_or_insert(Invitation { cluster, member });
                }
                if answer.lives != 0 {
                    round.lives = Some(answer.lives);
                }
                round.answers.push(format!("member {:x} awaits nobody there", answer.member));
            }
            Err(error) => round.answers.push(error.to_string()),
        }
    }
    round
}

/// Once: it may be mended while the node waits.
fn tell_of_loss(round: &Round, own: &[String], has_told: &mut bool) {
    let Some(lives) = round.lives.filter(|_| !*has_told) else { return };
    *has_told = true;
    let own = own.join(" ");
    tracing::warn!(
        "the data directory is empty, but member {lives:x} lives at {own} and has data: this node waits for \
         'revfs member replace {lives:x} {own}'"
    );
}

impl Round {
    fn refusal(self, own: &[String], waited: Duration) -> NotInvited {
        let own = own.join(" ");
        match self.lives {
            Some(lives) => NotInvited::DataLost { own, waited, lives },
            None => NotInvited::Unknown { own, waited, answers: self.answers.join("; ") },
        }
    }
}
