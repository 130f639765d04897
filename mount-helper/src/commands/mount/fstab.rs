//! The line of /etc/fstab that mounts as this command line does, and the file it belongs into.
//!
//! A line is ours if it mounts a revfs at the same place: that one is replaced, any other mount there is a
//! conflict. The file is replaced whole, so that nobody ever reads half of it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use crate::error::{Failure, Result};
use crate::mount8;
use crate::output::Output;

/// mount(8) reads another file if this variable names one.
const FILE_VARIABLE: &str = "LIBMOUNT_FSTAB";

const FILE: &str = "/etc/fstab";

/// fstab comes before the network and must not stop a boot.
const ALWAYS: [&str; 2] = ["_netdev", "nofail"];

/// Prints the line, and writes it into the file if it is to.
pub(crate) fn write(
    endpoints: &str,
    point: &Path,
    updates: bool,
    output: &mut Output,
) -> Result<()> {
    let line = line(endpoints, point)?;
    let file = updates.then(|| std::env::var_os(FILE_VARIABLE).map_or(FILE.into(), PathBuf::from));
    if let Some(file) = &file {
        update(file, &line)?;
    }
    if output.json {
        let file = file.map(|file| file.display().to_string());
        output.document(&serde_json::json!({ "line": line, "file": file }))?;
    } else {
        output.line(&line)?;
        if let Some(file) = file {
            output.line(&format!(
                "{} has it now; to mount: mount {}",
                file.display(),
                point.display()
            ))?;
        }
    }
    output.finish()
}

fn line(endpoints: &str, point: &Path) -> Result<String> {
    let mut options = ALWAYS.map(str::to_owned).to_vec();
    for (name, value) in mount8::said()? {
        let is_there = options.contains(&name);
        match value {
            Some(value) => {
                options.push(format!("{name}={}", value.replace('\\', "\\\\").replace(',', "\\,")));
            }
            None if is_there => {}
            None => options.push(name),
        }
    }
    let Some(point) = point.to_str() else {
        let message = format!("'{}' is no text: fstab cannot name it", point.display());
        return Err(Failure::usage(message));
    };
    Ok(format!("{}  {}  revfs  {}  0 0", field(endpoints), field(point), field(&options.join(","))))
}

/// Blanks end a field: they are written in octal, as fstab(5) wants them.
fn field(text: &str) -> String {
    let mut field = String::new();
    for char in text.chars() {
        match char {
            ' ' | '\t' | '\n' | '\\' | '#' => {
                field.push_str(&format!("\\{:03o}", u32::from(char)));
            }
            other => field.push(other),
        }
    }
    field
}

/// Mount point and type of a line that mounts something.
fn place(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.split_whitespace();
    let source = fields.next()?;
    (!source.starts_with('#')).then_some(())?;
    Some((fields.next()?, fields.next()?))
}

/// The text with `line` instead of the one that mounts a revfs there, or after all.
fn with(text: &str, line: &str) -> std::result::Result<String, String> {
    let new = place(line).expect("it was just made");
    let mut all = String::new();
    let mut is_in = false;
    for old in text.lines() {
        match place(old) {
            Some((point, kind)) if point == new.0 => {
                if kind != new.1 && kind != "fuse.revfs" {
                    return Err(old.to_owned());
                }
                if !is_in {
                    all.push_str(line);
                    all.push('\n');
                }
                is_in = true;
            }
            _ => {
                all.push_str(old);
                all.push('\n');
            }
        }
    }
    if !is_in {
        all.push_str(line);
        all.push('\n');
    }
    Ok(all)
}

fn update(file: &Path, line: &str) -> Result<()> {
    let failed = |error: &dyn std::error::Error| {
        Failure::caused(format!("cannot write '{}'; the line is: {line}", file.display()), error)
    };
    let (text, mode, owner) = match fs::metadata(file) {
        Ok(meta) => {
            let text = fs::read_to_string(file).map_err(|error| failed(&error))?;
            (text, meta.permissions().mode() & 0o7777, Some((meta.uid(), meta.gid())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), 0o644, None),
        Err(error) => return Err(failed(&error)),
    };
    let text = with(&text, line).map_err(|other| {
        Failure::conflict(format!("'{}' mounts something else there: {other}", file.display()))
            .hint("choose another directory, or remove that line")
    })?;
    let replace = || {
        let mut new = file.as_os_str().to_owned();
        new.push(".revfs-new");
        let mut writer = File::create(&new)?;
        writer.set_permissions(fs::Permissions::from_mode(mode))?;
        if let Some((user, group)) = owner {
            chown(&new, Some(user), Some(group))?;
        }
        writer.write_all(text.as_bytes())?;
        writer.sync_all()?;
        fs::rename(&new, file)
    };
    replace().map_err(|error: io::Error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "http://a:2379  /mnt/conf  revfs  _netdev,nofail  0 0";

    #[test]
    fn a_line_replaces_the_one_of_its_place_and_nothing_else() {
        let text = "# comment\n/dev/sda1 / ext4 defaults 0 1\nhttp://old:1 /mnt/conf revfs ro 0 0\nlast x y z";
        let expected = format!("# comment\n/dev/sda1 / ext4 defaults 0 1\n{LINE}\nlast x y z\n");
        assert_eq!(with(text, LINE), Ok(expected.clone()));
        assert_eq!(with(&expected, LINE), Ok(expected));
        assert_eq!(with("", LINE), Ok(format!("{LINE}\n")));
        let other = "/dev/sdb1 /mnt/conf ext4 defaults 0 1";
        assert_eq!(with(other, LINE), Err(other.to_owned()));
    }

    #[test]
    fn blanks_do_not_end_a_field() {
        assert_eq!(field("/mnt/my conf#1\\"), "/mnt/my\\040conf\\0431\\134");
    }

    #[test]
    fn a_file_keeps_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("fstab");
        fs::write(&file, "# mine\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        update(&file, LINE).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("# mine\n{LINE}\n"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
