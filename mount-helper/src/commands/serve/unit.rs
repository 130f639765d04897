//! `revfs serve --systemd-unit`: the unit that starts this node with these settings, allowed what it needs.
//!
//! A unit starts somewhere else than the shell that asked for it: paths become absolute, and what the
//! environment said becomes a flag. What a file says stays in the file.
//!
//! A node without a mount has the file system read-only but for what it writes. One with a mount must share
//! its mounts with everybody, so that nothing of systemd that needs a view of its own can be asked for.

use std::path::{Path, PathBuf};

use super::layers::Values;
use super::logging::Target;
use super::plan::Plan;
use super::settings::{CONFIG_FILE, SETTINGS};
use super::value::Place;
use crate::error::{Failure, Result};
use crate::unmount::absolute;

/// Makes what systemd gives to `/tmp` of a private kind unusable.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// The lowest port that needs no privilege.
const PORT_FREE: u16 = 1024;

/// Of every node: nothing is gained by programs that it starts, and it starts only itself.
const ALWAYS: &str = "\
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictRealtime=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
UMask=0077
";

/// What needs a view of the file system of the process's own.
const OWN_VIEW: &str = "\
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
ProtectSystem=strict
ProtectHome=read-only
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
PrivateDevices=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
";

/// A mount: made, asked by users with their modes, and its changes repeated for those who watch.
const WITH_MOUNT: &str = "\
# Its mount is for everybody: nothing below may give it a view of its own.
SystemCallFilter=@system-service @mount
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_CHOWN CAP_FOWNER CAP_FSETID CAP_SYS_PTRACE";

/// The unit.
///
/// # Errors
/// If a path is no text, or this program does not know where it lies.
pub(super) fn text(values: &Values, plan: &Plan, config_file: Option<&Path>) -> Result<String> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::caused("cannot find this program", &error))?;
    let data_dir = word(&text_of(&plan.data_dir)?);
    let command = command(values, plan, config_file)?;
    let mut unit = format!(
        "[Unit]\nDescription=revfs node {}\nDocumentation=man:revfs-serve(1)\n\
        Wants=network-online.target\nAfter=network-online.target\n\
        RequiresMountsFor={data_dir}\n\n[Service]\nType=notify\n\
        ExecStartPre=+/bin/mkdir -p -m 0700 {data_dir}\nExecStart={} {command}\n",
        value(&plan.name),
        word(&text_of(&program)?),
    );
    if config_file.is_some() {
        // Paths in the file are taken from there.
        let here = std::env::current_dir()
            .map_err(|error| Failure::caused("cannot find this directory", &error))?;
        unit.push_str(&format!("WorkingDirectory={}\n", value(&text_of(&here)?)));
    }
    // A member that joins is ready once it has everything; the end stores everything and unmounts.
    unit.push_str("TimeoutStartSec=infinity\nTimeoutStopSec=90\nKillMode=mixed\n");
    // Neither wrong settings nor a member that was removed get better by a restart.
    unit.push_str("Restart=on-failure\nRestartSec=2\nRestartPreventExitStatus=2 6\n\n");
    unit.push_str(ALWAYS);
    let low_port = uses_low_port(plan);
    if plan.view.is_some() {
        unit.push_str(WITH_MOUNT);
        unit.push_str(if low_port { " CAP_NET_BIND_SERVICE\n" } else { "\n" });
    } else {
        let capability = if low_port { "CAP_NET_BIND_SERVICE" } else { "" };
        unit.push_str(&format!("CapabilityBoundingSet={capability}\n"));
        unit.push_str(OWN_VIEW);
        let written = written(plan);
        for path in &written {
            unit.push_str(&format!("ReadWritePaths={}\n", word(&text_of(path)?)));
        }
        let is_temporary = |path: &PathBuf| TEMPORARY.iter().any(|own| path.starts_with(own));
        if !written.iter().any(is_temporary) {
            unit.push_str("PrivateTmp=yes\n");
        }
    }
    unit.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    Ok(unit)
}

/// `serve` with its settings.
fn command(values: &Values, plan: &Plan, config_file: Option<&Path>) -> Result<String> {
    let mut words = vec!["serve".to_owned()];
    if let Some(file) = config_file {
        words.push(format!("--{CONFIG_FILE}={}", text_of(&absolute(file)?)?));
    }
    words.push(format!("--data-dir={}", text_of(&plan.data_dir)?));
    let said = SETTINGS.iter().filter(|setting| setting.name != "data-dir");
    for setting in said.filter(|setting| values.is_said_to_process(setting.name)) {
        let text = values.text(setting.name);
        let text = match setting.value {
            Some("FILE" | "DIR") => text_of(&absolute(Path::new(text))?)?,
            _ => text.to_owned(),
        };
        words.push(format!("--{}={text}", setting.name));
    }
    Ok(words.iter().map(|own| word(own)).collect::<Vec<_>>().join(" "))
}

fn text_of(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        Failure::usage(format!("'{}' is no text: a unit cannot name it", path.display()))
    })
}

/// Directories that a node without a mount writes into.
fn written(plan: &Plan) -> Vec<PathBuf> {
    let sockets = plan.clients.iter().chain(&plan.metrics).filter_map(|url| match &url.place {
        Place::Unix(path) => path.parent(),
        Place::Tcp(_) => None,
    });
    let logs = plan.log.targets.iter().filter_map(|target| match target {
        Target::File(path) => path.parent(),
        Target::Stderr | Target::Stdout => None,
    });
    let mut all: Vec<PathBuf> = sockets.chain(logs).map(Path::to_owned).collect();
    all.push(plan.data_dir.clone());
    all.sort();
    all.dedup();
    all
}

fn uses_low_port(plan: &Plan) -> bool {
    let urls = plan.clients.iter().chain(&plan.metrics).chain(&plan.members.listen);
    urls.into_iter().any(
        |url| matches!(&url.place, Place::Tcp(address) if (1..PORT_FREE).contains(&address.port())),
    )
}

/// A word of a command line: quoted where it must be, with nothing left for systemd to put in.
fn word(text: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/.,:;=@_+-[]".contains(char);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\n' => quoted.push_str("\\n"),
            '%' => quoted.push_str("%%"),
            '$' => quoted.push_str("$$"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// A value that is no command line.
fn value(text: &str) -> String {
    text.replace('%', "%%").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_blanks_and_nothing_is_put_in() {
        assert_eq!(
            word("--listen-client-urls=http://[::1]:2379,unix:///run/x"),
            "--listen-client-urls=http://[::1]:2379,unix:///run/x"
        );
        assert_eq!(word("/srv/my data"), "\"/srv/my data\"");
        assert_eq!(word("50%$x\"\\"), r#""50%%$$x\"\\""#);
        assert_eq!(word(""), "\"\"");
    }
}
