//! Who watches what: the inodes of one file system that any process has an inotify or fanotify mark on.
//!
//! Nobody tells when a watch is added, so what is known is as old as the last look, and only used where
//! there are too many changes to repeat each ([`ALWAYS_PER_SECOND`]).

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// So many changes a second are repeated whether somebody watches or not. Each costs several requests; with fewer,
/// a watch that follows a tree as it grows would miss what is made in its new directories before the next look.
const ALWAYS_PER_SECOND: u32 = 200;

const SECOND: Duration = Duration::from_secs(1);

/// Between two looks at all processes: within these bounds so many times what the last one took, which is
/// two hundredths of a processor.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(100), SECOND);
const LOOK_SHARE: u32 = 50;

/// `/proc/self/ns/pid` of a process that sees all others.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// See the module.
#[derive(Debug)]
pub(super) struct Watched {
    /// As the kernel prints it in a mark: `major << 20 | minor`, hexadecimal.
    device: String,
    /// Whether all processes can be seen.
    can_know: bool,
    second: Instant,
    in_second: u32,
    /// What was seen, and until when that is good enough.
    looked: Option<(Instant, HashSet<u64>)>,
}

impl Watched {
    pub(super) fn new(device: libc::dev_t) -> Self {
        let namespace = fs::read_link("/proc/self/ns/pid").ok();
        let sees_all = namespace.is_some_and(|own| own == Path::new(FIRST_NAMESPACE));
        Self {
            device: format!("{:x}", (libc::major(device) << 20) | libc::minor(device)),
            can_know: sees_all && nix::unistd::geteuid().is_root(),
            second: Instant::now(),
            in_second: 0,
            looked: None,
        }
    }

    /// Whether a change of one of these inodes is to be repeated.
    pub(super) fn may_matter(&mut self, numbers: &[u64]) -> bool {
        let now = Instant::now();
        if now.duration_since(self.second) >= SECOND {
            (self.second, self.in_second) = (now, 0);
        }
        self.in_second += 1;
        if self.in_second <= ALWAYS_PER_SECOND || !self.can_know {
            return true;
        }
        if self.looked.as_ref().is_none_or(|(until, _)| now >= *until) {
            let watched = self.look();
            let pause = (now.elapsed() * LOOK_SHARE).clamp(LOOK_EVERY.0, LOOK_EVERY.1);
            self.looked = Some((Instant::now() + pause, watched));
        }
        let (_, watched) = self.looked.as_ref().expect("it was just looked");
        numbers.iter().any(|number| watched.contains(number))
    }

    fn look(&self) -> HashSet<u64> {
        let mut watched = HashSet::new();
        let Ok(processes) = fs::read_dir("/proc") else { return watched };
        for process in processes.flatten() {
            let is_number = process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
            if is_number {
                self.look_at(&process.path(), &mut watched);
            }
        }
        watched
    }

    /// A process that ended meanwhile watches nothing.
    fn look_at(&self, process: &Path, watched: &mut HashSet<u64>) {
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let target = target.as_os_str().as_encoded_bytes();
            if matches!(target, b"anon_inode:inotify" | b"anon_inode:[fanotify]")
                && let Ok(marks) =
                    fs::read_to_string(process.join("fdinfo").join(descriptor.file_name()))
            {
                watched.extend(marks.lines().filter_map(|line| marked(line, &self.device)));
            }
        }
    }
}

/// `inotify wd:1 ino:2 sdev:27 mask:fff ignored_mask:0 …`: the inode, if it is of this device.
fn marked(line: &str, device: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    if !matches!(words.next(), Some("inotify" | "fanotify")) {
        return None;
    }
    let (mut number, mut is_ours) = (None, false);
    for word in words {
        if let Some(ino) = word.strip_prefix("ino:") {
            number = u64::from_str_radix(ino, 16).ok();
        } else if let Some(own) = word.strip_prefix("sdev:") {
            is_ours = own == device;
        }
    }
    number.filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::{Duration, Instant};

    use super::{ALWAYS_PER_SECOND, Watched, marked};

    #[test]
    fn marks_are_read_as_the_kernel_prints_them() {
        let inotify = "inotify wd:1 ino:2f sdev:27 mask:fff ignored_mask:0 fhandle-bytes:c \
                       fhandle-type:81 f_handle:000000002f00000000000000";
        assert_eq!(marked(inotify, "27"), Some(0x2f));
        assert_eq!(marked(inotify, "28"), None);
        assert_eq!(marked("fanotify ino:1 sdev:27 mflags:0 mask:3b", "27"), Some(1));
        assert_eq!(marked("fanotify flags:0 event-flags:0", "27"), None);
        assert_eq!(marked("pos:\t0", "27"), None);
    }

    #[test]
    fn few_changes_are_always_repeated() {
        let mut watched = Watched::new(0);
        assert!((0..ALWAYS_PER_SECOND).all(|_| watched.may_matter(&[])));
    }

    #[test]
    fn of_many_changes_only_those_are_repeated_that_somebody_watches() {
        let later = Instant::now() + Duration::from_secs(3_600);
        let looked = Some((later, HashSet::from([7])));
        // The second does not end while this runs.
        let (can_know, second) = (true, later);
        let mut watched = Watched { can_know, looked, second, ..Watched::new(0) };
        let repeated = (0..1_000).filter(|_| watched.may_matter(&[8])).count();
        assert_eq!(repeated, ALWAYS_PER_SECOND as usize);
        assert!(watched.may_matter(&[8, 7]));
        assert!(!watched.may_matter(&[]));
    }
}
