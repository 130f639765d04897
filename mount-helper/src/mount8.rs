//! mount(8)'s way of speaking: `mount.revfs SOURCE DIR -o OPTIONS`, and `-o` of `revfs mount`.
//!
//! An option of `-o` is the option of `revfs mount` of that name (`_` may stand for `-`), and `ro` is
//! `--read-only`. So there is one list of options and one place that says what each means: the words are
//! turned into a command line before clap sees them. What mount(8) itself, fstab and systemd want to know is passed over, as is
//! `rw`, which mount(8) says of its own accord: for a real etcd it is not enough.
//!
//! `mount.revfs` is this program under another name (a symlink in /sbin). It returns once the mount
//! answers, with mount(8)'s exit codes.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap::parser::ValueSource;
use nix::sched::{CloneFlags, setns};

use crate::args::Cli;
use crate::error::{Failure, Kind, Result};
use crate::mounting::daemon::DETACHED;

/// The names that mount(8) looks for, for the types `revfs` and `fuse.revfs`.
const HELPERS: [&str; 2] = ["mount.revfs", "mount.fuse.revfs"];

/// What others read in fstab, what holds of every mount of revfs, and what mount(8) always says.
const PASSED_OVER: [&str; 28] = [
    "rw",
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "_netdev",
    "nofail",
    "nosuid",
    "nodev",
    "exec",
    "sync",
    "async",
    "noatime",
    "atime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "diratime",
    "nodiratime",
    "lazytime",
    "nolazytime",
    "loud",
    "silent",
];

/// Options of the command line that make no sense in fstab.
const NOT_OFFERED: [&str; 9] = [
    "foreground",
    "daemon",
    "detached",
    "json",
    "endpoint",
    "help",
    "version",
    "fstab",
    "update-fstab",
];

/// Whether the program was called as a helper of mount(8).
pub(crate) fn is_helper() -> bool {
    std::env::args_os().next().is_some_and(|name| names_a_helper(&name))
}

fn names_a_helper(name: &OsStr) -> bool {
    let name = Path::new(name).file_name();
    name.is_some_and(|name| HELPERS.iter().any(|helper| name == *helper))
}

/// mount(8)'s code for a failure: 1 for what was said wrongly, 32 for a mount that failed.
pub(crate) fn exit_code(kind: Kind) -> ExitCode {
    ExitCode::from(if kind == Kind::Usage { 1 } else { 32 })
}

/// What a helper is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    source: Option<OsString>,
    directory: Option<OsString>,
    options: Vec<OsString>,
    /// `-s`: what is not known is passed over.
    sloppy: bool,
    /// `-f`: nothing is to be mounted.
    fake: bool,
    /// `-N`: the mount namespace to mount in.
    namespace: Option<OsString>,
    detached: bool,
}

/// The command line as clap takes it; `None` if there is nothing to do (`mount -f`).
///
/// # Errors
/// Usage errors, each naming the word.
pub(crate) fn command_line(words: impl Iterator<Item = OsString>) -> Result<Option<Vec<OsString>>> {
    let words: Vec<OsString> = words.collect();
    if !words.first().is_some_and(|name| names_a_helper(name)) {
        return Ok(Some(words));
    }
    let asked = Asked::parse(&words[1..])?;
    let (Some(source), Some(directory)) = (asked.source, asked.directory) else {
        return Err(Failure::usage("mount.revfs wants SOURCE and DIR").hint(
            "mount -t revfs http://node1:2379,http://node2:2379 /mnt/conf -o ro,prefix=/app/",
        ));
    };
    if asked.fake {
        return Ok(None);
    }
    if let Some(namespace) = asked.namespace {
        enter(&namespace)?;
    }
    let mut line: Vec<OsString> = vec!["revfs".into(), "mount".into(), "--daemon".into()];
    if asked.detached {
        line.push(DETACHED.into());
    }
    line.extend(flags(&asked.options, asked.sloppy)?);
    line.extend(["--".into(), source, directory]);
    Ok(Some(line))
}

/// The namespace of a process, or a file that stands for one.
fn enter(namespace: &OsStr) -> Result<()> {
    let is_number = namespace.as_bytes().iter().all(u8::is_ascii_digit);
    let path = match is_number {
        true => Path::new("/proc").join(namespace).join("ns/mnt"),
        false => namespace.into(),
    };
    let failed = |error: &dyn std::error::Error| {
        Failure::caused(format!("cannot enter the namespace '{}' of -N", path.display()), error)
    };
    let file = File::open(&path).map_err(|error| failed(&error))?;
    setns(file, CloneFlags::CLONE_NEWNS).map_err(|error| failed(&error))
}

impl Asked {
    fn parse(words: &[OsString]) -> Result<Self> {
        let mut asked = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                let value = words.next().cloned();
                value.ok_or_else(|| {
                    Failure::usage(format!("a value belongs after {}", word.display()))
                })
            };
            match word.to_str() {
                Some("-o") => asked.options.push(value()?),
                Some("-N") => asked.namespace = Some(value()?),
                // The type, which is known.
                Some("-t") => drop(value()?),
                Some(DETACHED) => asked.detached = true,
                Some(letters) if letters.len() > 1 && letters.starts_with('-') => {
                    for letter in letters[1..].chars() {
                        match letter {
                            's' => asked.sloppy = true,
                            'f' => asked.fake = true,
                            // There is no table to write, and nothing to tell.
                            'n' | 'v' => {}
                            _ => {
                                return Err(Failure::usage(format!(
                                    "mount.revfs knows no -{letter}"
                                ))
                                .hint("it takes SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS]"));
                            }
                        }
                    }
                }
                _ if asked.source.is_none() => asked.source = Some(word.clone()),
                _ if asked.directory.is_none() => asked.directory = Some(word.clone()),
                _ => return Err(Failure::usage(format!("too many words: '{}'", word.display()))),
            }
        }
        Ok(asked)
    }
}

/// The options of `revfs mount` that `-o` stands for.
///
/// # Errors
/// If one is unknown, or has a value and takes none, or the other way round.
pub(crate) fn flags(options: &[OsString], sloppy: bool) -> Result<Vec<OsString>> {
    let offered = offered();
    let mut flags = Vec::new();
    for word in options.iter().flat_map(|words| split(words.as_bytes())) {
        let (name, value) = match word.iter().position(|&byte| byte == b'=') {
            Some(at) => (&word[..at], Some(OsStr::from_bytes(&word[at + 1..]))),
            None => (&word[..], None),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let is_for_others = name.starts_with("x-") || name.starts_with("X-") || name == "comment";
        if is_for_others || (value.is_none() && PASSED_OVER.contains(&name.as_str())) {
            continue;
        }
        let long = if name == "ro" { "read-only".to_owned() } else { name.replace('_', "-") };
        let Some(option) = offered.iter().find(|option| option.long == long) else {
            if sloppy {
                continue;
            }
            return Err(unknown(&name, &offered));
        };
        match (option.takes_value, value) {
            // One word, so that a value may begin with a dash.
            (true, Some(value)) => {
                let mut flag = OsString::from(format!("--{long}="));
                flag.push(value);
                flags.push(flag);
            }
            (false, None) => flags.push(format!("--{long}").into()),
            (true, None) => {
                return Err(Failure::usage(format!("-o {name} wants a value: {name}=…")));
            }
            (false, Some(value)) => {
                return Err(Failure::usage(format!(
                    "-o {name} takes no value, not '{}'",
                    value.display()
                )));
            }
        }
    }
    Ok(flags)
}

/// At commas; `\,` is one that belongs to a value.
fn split(words: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut bytes = words.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let last = all.last_mut().expect("there is always one");
        match (byte, bytes.peek()) {
            (b'\\', Some(b',' | b'\\')) => last.extend(bytes.next()),
            (b',', _) => all.push(Vec::new()),
            _ => last.push(byte),
        }
    }
    all.retain(|word| !word.is_empty());
    all
}

/// An option of `revfs mount` that `-o` may name.
struct Offered {
    id: String,
    long: String,
    takes_value: bool,
}

fn offered() -> Vec<Offered> {
    let mut cli = Cli::command();
    cli.build();
    let mount = cli.find_subcommand("mount").expect("it is a command");
    let of = mount.get_arguments().filter_map(|argument| {
        let takes_value = argument.get_action().takes_values();
        let (id, long) = (argument.get_id().to_string(), argument.get_long()?.to_owned());
        Some(Offered { id, long, takes_value })
    });
    of.filter(|option| !NOT_OFFERED.contains(&option.long.as_str())).collect()
}

/// The names that `-o` takes.
#[cfg(test)]
pub(crate) fn names() -> Vec<String> {
    offered().into_iter().map(|option| option.long).collect()
}

/// The options that this process's command line says, as `-o` says them.
///
/// # Errors
/// If a value is no text.
pub(crate) fn said() -> Result<Vec<(String, Option<String>)>> {
    let matches = Cli::command().get_matches_from(std::env::args_os());
    let Some((_, mount)) = matches.subcommand() else { return Ok(Vec::new()) };
    let mut said = Vec::new();
    for Offered { id, long, takes_value } in offered() {
        if mount.value_source(&id) != Some(ValueSource::CommandLine) {
            continue;
        }
        if !takes_value {
            said.push((long, None));
            continue;
        }
        for value in mount.get_raw(&id).into_iter().flatten() {
            let text = value.to_str().ok_or_else(|| {
                Failure::usage(format!("--{long} '{}' is no text", value.display()))
            })?;
            said.push((long.clone(), Some(text.to_owned())));
        }
    }
    for words in mount.get_raw("options").into_iter().flatten() {
        for word in split(words.as_bytes()) {
            let word = String::from_utf8_lossy(&word).into_owned();
            said.push(match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word, None),
            });
        }
    }
    Ok(said)
}

fn unknown(name: &str, offered: &[Offered]) -> Failure {
    let nearest = offered.iter().map(|option| &option.long);
    let nearest = nearest
        .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    let failure = Failure::usage(format!("-o {name} is no option of revfs mount"));
    match nearest {
        Some(nearest) => failure.hint(format!("did you mean {nearest}? all: revfs mount --help")),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> std::result::Result<Option<Vec<String>>, String> {
        let line =
            command_line(words.iter().map(OsString::from)).map_err(|failure| failure.render())?;
        let text = |word: OsString| word.into_string().unwrap();
        Ok(line.map(|line| line.into_iter().map(text).collect()))
    }

    #[test]
    fn a_helpers_words_become_a_command_line() {
        let words = ["/sbin/mount.revfs", "http://a,http://b", "/mnt", "-sv", "-o"];
        let given = "rw,_netdev,x-systemd.automount,ro,prefix=/app/,lock_lease=5,time=-2h,bogus";
        let words = words.into_iter().chain([given]).collect::<Vec<_>>();
        let expected = [
            "revfs",
            "mount",
            "--daemon",
            "--read-only",
            "--prefix=/app/",
            "--lock-lease=5",
            "--time=-2h",
            "--",
            "http://a,http://b",
            "/mnt",
        ];
        assert_eq!(line(&words), Ok(Some(expected.map(str::to_owned).to_vec())));
    }

    #[test]
    fn whatever_else_is_called_keeps_its_words() {
        let words = ["revfs", "mount", "a", "b", "-o", "ro"];
        assert_eq!(line(&words), Ok(Some(words.map(str::to_owned).to_vec())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |words: &[&str]| line(words).unwrap_err();
        assert!(refused(&["mount.revfs", "a"]).contains("SOURCE and DIR"));
        assert!(refused(&["mount.revfs", "a", "b", "c"]).contains("'c'"));
        assert!(refused(&["mount.revfs", "a", "b", "-x"]).contains("-x"));
        assert!(refused(&["mount.revfs", "a", "b", "-o"]).contains("after -o"));
        let option = |words: &str| refused(&["mount.revfs", "a", "b", "-o", words]);
        assert!(option("ro,prefx=/a/").contains("did you mean prefix?"));
        assert!(option("prefix").contains("prefix=…"));
        assert!(option("ro=1").contains("takes no value"));
        assert!(option("daemon").contains("no option"));
        assert_eq!(line(&["mount.revfs", "a", "b", "-f"]), Ok(None));
    }

    #[test]
    fn a_comma_of_a_value_is_escaped() {
        let flags = flags(&["password_file=/a\\,b,user=root".into()], false).unwrap();
        assert_eq!(flags, ["--password-file=/a,b", "--user=root"]);
    }
}
