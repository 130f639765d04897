//! Who reads an `@watch`, and which directories it may list: as the kernel would decide.

use std::fs;

use crate::attributes::Effective;
use crate::filesystem::Caller;

/// To read a directory, and to search it.
const LIST: u16 = 0o5;

#[derive(Clone, Debug)]
pub(crate) struct Reader {
    uid: u32,
    gid: u32,
    /// Its other groups, as far as /proc tells them.
    groups: Vec<u32>,
}

impl Reader {
    pub(crate) fn of(caller: Caller) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", caller.pid));
        let groups = if caller.pid == 0 { Vec::new() } else { groups(&status.unwrap_or_default()) };
        Self { uid: caller.uid, gid: caller.gid, groups }
    }

    pub(super) fn may_list_all(&self) -> bool {
        self.uid == 0
    }

    pub(super) fn may_list(&self, directory: &Effective) -> bool {
        let bits = if self.uid == directory.uid {
            directory.mode >> 6
        } else if self.gid == directory.gid || self.groups.contains(&directory.gid) {
            directory.mode >> 3
        } else {
            directory.mode
        };
        self.may_list_all() || bits & LIST == LIST
    }
}

fn groups(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_whitespace().filter_map(|group| group.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use revfs_api::keyspace::Time;

    use super::{Reader, groups};
    use crate::attributes::{Effective, Kind};

    #[test]
    fn a_directory_is_listed_by_those_whom_its_mode_lets() {
        let reader = |uid, gid, groups: &[u32]| Reader { uid, gid, groups: groups.to_vec() };
        let directory = |mode| Effective {
            kind: Kind::Directory,
            mode,
            uid: 10,
            gid: 20,
            mtime: Time(0),
            ctime: Time(0),
            xattrs: std::collections::BTreeMap::new(),
        };
        let (owner, member, other) = (reader(10, 1, &[]), reader(11, 20, &[]), reader(11, 1, &[]));
        let also_member = reader(11, 1, &[7, 20]);
        for (mode, owns, is_member, is_other) in [
            (0o750, true, true, false),
            (0o705, true, false, true),
            (0o055, false, true, true),
            (0o710, true, false, false),
            (0o740, true, false, false),
        ] {
            let directory = directory(mode);
            assert_eq!(owner.may_list(&directory), owns, "{mode:o}");
            assert_eq!(member.may_list(&directory), is_member, "{mode:o}");
            assert_eq!(also_member.may_list(&directory), is_member, "{mode:o}");
            assert_eq!(other.may_list(&directory), is_other, "{mode:o}");
            assert!(reader(0, 0, &[]).may_list(&directory), "{mode:o}");
        }
    }

    #[test]
    fn groups_are_read_from_what_proc_says() {
        assert_eq!(groups("Gid:\t1\t1\t1\t1\nGroups:\t4 24 27 \nNStgid:\t1\n"), [4, 24, 27]);
        assert!(groups("Groups:\t \n").is_empty() && groups("").is_empty());
    }
}
