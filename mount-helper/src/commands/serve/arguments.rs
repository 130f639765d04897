//! The command line of `revfs serve`, made from the table of settings.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};

use super::settings::{CONFIG_FILE, SETTINGS, Setting};

/// What was said on the command line; each name once.
#[derive(Debug, Default)]
pub(crate) struct ServeArgs {
    pub(super) given: Vec<(&'static Setting, String)>,
    pub(super) config_file: Option<PathBuf>,
    /// Nothing is served; the unit that would is printed.
    pub(super) systemd_unit: bool,
}

const SYSTEMD_UNIT: &str = "systemd-unit";

const ABOUT: &str = "Serve a key-value store over the network, as etcd does";

const LONG_ABOUT: &str = "\
Serve a key-value store over the network, as etcd does, and mount it here where --mount says so

Every setting may be given here, as an environment variable (--data-dir is REVFS_DATA_DIR) or in a TOML \
file (--config-file). What is said here wins over the environment, and that over the file. An empty \
value says nothing. Ends on Ctrl-C or SIGTERM after everything is answered and stored.";

const EXAMPLES: &str = "Examples:
  revfs serve --data-dir /var/lib/revfs/main
  revfs serve --listen-client-urls http://0.0.0.0:2379,unix:///run/revfs.sock
  revfs serve --join node1 --mount /srv/conf
  revfs serve --data-dir /var/lib/revfs/main --systemd-unit > /etc/systemd/system/revfs.service
  REVFS_LOG_FORMAT=json revfs serve --config-file /etc/revfs.toml

The data directory also holds revfs.sock, for its owner alone: revfs status --endpoint DIR/revfs.sock";

impl clap::Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(CONFIG_FILE)
            .long(CONFIG_FILE)
            .value_name("FILE")
            .value_hint(ValueHint::FilePath)
            .value_parser(clap::value_parser!(PathBuf))
            .help("A TOML file with settings by these names");
        let unit = Arg::new(SYSTEMD_UNIT)
            .long(SYSTEMD_UNIT)
            .action(ArgAction::SetTrue)
            .help("Print the unit by which systemd serves so, and serve nothing");
        let command = command.about(ABOUT).long_about(LONG_ABOUT).after_help(EXAMPLES);
        let command = command.arg(file).arg(unit);
        SETTINGS.iter().fold(command, |command, setting| command.arg(argument(setting)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(setting: &'static Setting) -> Arg {
    let default = match setting.default {
        "" => String::new(),
        default => format!(" [default: {default}]"),
    };
    let argument = Arg::new(setting.name)
        .long(setting.name)
        .action(ArgAction::Set)
        .allow_hyphen_values(true)
        .help_heading(setting.section)
        .help(format!("{}{default}", setting.help));
    match setting.value {
        Some(value) => argument.value_name(value),
        // As Go's flags: --name or --name=false.
        None => argument
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
    }
}

impl clap::FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut this = Self::default();
        this.update_from_arg_matches(matches)?;
        Ok(this)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.systemd_unit = matches.get_flag(SYSTEMD_UNIT);
        self.config_file = matches.get_one(CONFIG_FILE).cloned();
        let said = |setting: &'static Setting| {
            let value: &String = matches.get_one(setting.name)?;
            Some((setting, value.clone()))
        };
        self.given = SETTINGS.iter().filter_map(said).collect();
        Ok(())
    }
}
