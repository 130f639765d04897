//! How many files and connections this process may have open. What a process begins with is a bound for old
//! programs; up to the hard one it may raise it itself, and a server of many connections has to.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Below this a warning is due: each client is an open file.
const FEW: u64 = 4_096;

/// Raises the bound as far as it may be. Without it the node serves what it can.
pub(super) fn raise() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(hard)
    });
    match raised {
        Ok(hard) if hard < FEW => tracing::warn!(
            "at most {hard} files and connections may be open: raise it with `ulimit -Hn`, or \
             LimitNOFILE= of the service"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the bound of open files stays as it was"),
    }
}
