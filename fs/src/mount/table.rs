//! The table of mounts of this process, as /proc/self/mountinfo has it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountLine {
    pub number: u64,
    /// Of `major:minor`: of a FUSE mount it is the number of its connection.
    pub device_minor: u32,
    pub mount_point: PathBuf,
    /// File system type.
    pub kind: String,
    /// `user_id=` of a FUSE mount: who mounted it.
    pub owner: Option<u32>,
}

impl MountLine {
    pub(super) fn is_fuse(&self) -> bool {
        self.kind.starts_with("fuse")
    }
}

/// All mounts that this process sees; later ones lie over earlier ones.
///
/// # Errors
/// If the table cannot be read.
pub fn mounts() -> io::Result<Vec<MountLine>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(parse).collect())
}

/// What is mounted at exactly this path, the topmost of several.
pub(super) fn top_mount_at(path: &Path) -> io::Result<Option<MountLine>> {
    Ok(mounts()?.into_iter().rfind(|mount| mount.mount_point == path))
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &[u8]) -> Option<MountLine> {
    let mut fields = line.split(|&byte| byte == b' ');
    let number = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = std::str::from_utf8(fields.nth(1)?).ok()?;
    let device_minor = device.split_once(':')?.1.parse().ok()?;
    let mount_point = unescape(fields.nth(1)?);
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    let options = String::from_utf8_lossy(fields.nth(1)?).into_owned();
    let owner = options.split(',').find_map(|option| option.strip_prefix("user_id="));
    let owner = owner.and_then(|user| user.parse().ok());
    Some(MountLine { number, device_minor, mount_point, kind, owner })
}

/// Blank, tab, newline and backslash stand there as `\040` and the like.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', beyond @ ..] if *first == b'\\' => {
                path.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = beyond;
            }
            _ => {
                path.push(*first);
                rest = after;
            }
        }
    }
    debug_assert!(!OsString::from_vec(path.clone()).as_bytes().contains(&0), "a path has no NUL");
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{MountLine, parse, top_mount_at};

    #[test]
    fn reads_a_line_with_and_without_optional_fields() {
        let with = b"36 35 0:41 /root /mnt/a\\040b\\134 rw,noatime master:1 - fuse.revfs revfs rw,user_id=7,a";
        let without = b"36 35 0:41 / /mnt/a\\040b\\134 rw - fuse.revfs revfs user_id=7";
        let expected = MountLine {
            number: 36,
            device_minor: 41,
            mount_point: PathBuf::from("/mnt/a b\\"),
            kind: "fuse.revfs".to_owned(),
            owner: Some(7),
        };
        assert_eq!(parse(with), Some(expected.clone()));
        assert_eq!(parse(without), Some(expected));
        assert_eq!(parse(b""), None);
        let plain = parse(b"22 1 254:0 / /a\\9 rw - ext4 /dev/vda rw").unwrap();
        assert_eq!((plain.owner, plain.mount_point), (None, PathBuf::from("/a\\9")));
    }

    #[test]
    fn finds_what_is_mounted() {
        let proc = top_mount_at(Path::new("/proc")).unwrap().unwrap();
        assert_eq!(proc.kind, "proc");
        assert_eq!(top_mount_at(Path::new("/proc/self")).unwrap(), None);
    }
}
