//! How the mount is freed when `up` is told to end.
//!
//! The first signal asks politely: while someone uses the mount it is served on, and it is said who that
//! is. A second signal, or a bound, detaches the mount whoever uses it.

use std::path::Path;
use std::time::Duration;

use revfs_fs::mount::Mounted;
use tokio::time::sleep;

use crate::error::{Failure, Result};
use crate::mounts::{self, User};
use crate::signals::Signals;

/// A mount that is still there after this is in use: then it is said by whom.
const TELL_AFTER: Duration = Duration::from_millis(300);

/// Processes that are named when the mount is busy.
const USERS_SHOWN: usize = 5;

/// Unmounts. Whoever uses the mount has the moment that [`Mounted::unmount`] gives; a second signal
/// takes it away at once, and so does the end of that moment.
pub(crate) async fn unmount(mounted: Mounted, signals: &mut Signals) -> Result<()> {
    let point = mounted.mount_point().to_owned();
    let failed = |error: &std::io::Error| {
        Failure::caused(format!("cannot unmount '{}'", point.display()), error)
    };
    let complain = async {
        sleep(TELL_AFTER).await;
        let at = point.clone();
        let users = tokio::task::spawn_blocking(move || mounts::users(&at, USERS_SHOWN)).await;
        say_who(&point, &users.unwrap_or_default());
        std::future::pending::<()>().await;
    };
    tokio::select! {
        unmounted = mounted.unmount() => unmounted.map_err(|error| failed(&error)),
        name = signals.next() => {
            tracing::warn!("{name} again: {} is detached although it is in use", point.display());
            drop(mounted);
            Ok(())
        }
        () = complain => unreachable!("it never ends"),
    }
}

fn say_who(point: &Path, users: &[User]) {
    let users: Vec<String> = users.iter().map(ToString::to_string).collect();
    let who = if users.is_empty() { "someone".to_owned() } else { users.join("; ") };
    eprintln!("revfs: {} is in use: {who}", point.display());
}
