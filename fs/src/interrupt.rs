//! Whether who waits for an answer has a signal to act on.
//!
//! The kernel's own word for it (FUSE_INTERRUPT) does not get through to us, and a thread whose request
//! is with the daemon cannot even be killed before it is answered. So whatever lets a caller wait for
//! others looks at /proc now and then, and answers EINTR if a signal is pending; the kernel then delivers
//! it, or has the call made again. EINTR without a signal would show in the program as errno 512.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// How often to look.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(40);

/// Whether a thread has a signal pending that it does not block, or is gone.
pub(crate) fn is_interrupted(thread: u32) -> bool {
    match fs::read_to_string(format!("/proc/{thread}/status")) {
        Ok(status) => has_signal(&status),
        Err(error) if error.kind() == ErrorKind::NotFound => is_gone(thread),
        // It ended while it was looked at.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => true,
        Err(_) => false,
    }
}

/// Not merely hidden from this process.
fn is_gone(thread: u32) -> bool {
    i32::try_from(thread).is_ok_and(|thread| kill(Pid::from_raw(thread), None) == Err(Errno::ESRCH))
}

fn has_signal(status: &str) -> bool {
    let mask = |name: &str| {
        let digits = status.lines().find_map(|line| line.strip_prefix(name));
        digits.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
    };
    (mask("SigPnd:") | mask("ShdPnd:")) & !mask("SigBlk:") != 0
}

#[cfg(test)]
mod tests {
    //! A child that is stopped keeps its signals pending.

    use std::process::Command;

    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, waitpid};
    use nix::unistd::Pid;

    use super::{has_signal, is_interrupted};

    #[test]
    fn a_pending_signal_counts_unless_it_is_blocked() {
        let status = |pending: &str, shared: &str, blocked: &str| {
            format!("Name:\tx\nSigPnd:\t{pending}\nShdPnd:\t{shared}\nSigBlk:\t{blocked}\n")
        };
        let none = "0000000000000000";
        let term = "0000000000004000";
        assert!(!has_signal(&status(none, none, none)));
        assert!(has_signal(&status(term, none, none)));
        assert!(has_signal(&status(none, term, none)));
        assert!(!has_signal(&status(none, term, term)));
    }

    #[test]
    fn a_process_with_a_signal_and_one_that_is_gone_are_told_from_one_that_runs() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        assert!(!is_interrupted(child.id()));
        kill(pid, Signal::SIGSTOP).unwrap();
        waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
        kill(pid, Signal::SIGTERM).unwrap();
        assert!(is_interrupted(child.id()));
        kill(pid, Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(is_interrupted(child.id()));
    }
}
