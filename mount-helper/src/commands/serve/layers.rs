//! The layers of settings, one over the other: command line, environment, file, defaults.
//!
//! Each value is kept with where it was said, so that a refusal names what the user wrote. Names that
//! nothing knows are refused with the nearest that is known; a variable `REVFS_…` that is like none is
//! somebody else's, and left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::arguments::ServeArgs;
use super::settings::{self, CONFIG_FILE, SETTINGS, Setting, VARIABLE_PREFIX, nearest, variable};
use crate::error::{Failure, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    CommandLine,
    Environment,
    File(PathBuf),
}

#[derive(Clone, Debug)]
struct Said {
    text: String,
    source: Source,
}

/// What was said of each setting, by the highest layer that says something.
#[derive(Debug, Default)]
pub(super) struct Values {
    said: BTreeMap<&'static str, Said>,
    config_file: Option<PathBuf>,
}

impl Values {
    /// Reads all layers.
    ///
    /// # Errors
    /// Usage errors: names that are unknown, a file that cannot be read.
    pub(super) fn read(
        args: ServeArgs,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        other_variables: &BTreeSet<String>,
    ) -> Result<Self> {
        let environment = variables(environment, other_variables)?;
        let file = args.config_file.or_else(|| {
            environment.get(CONFIG_FILE).filter(|path| !path.is_empty()).map(PathBuf::from)
        });
        let mut values = Self { config_file: file.clone(), ..Self::default() };
        // From the lowest to the highest.
        if let Some(path) = file {
            for (setting, text) in in_file(&path)? {
                values.say(setting, text, Source::File(path.clone()));
            }
        }
        for (name, text) in environment {
            if let Some(setting) = settings::find(&name) {
                values.say(setting, text, Source::Environment);
            }
        }
        for (setting, text) in args.given {
            values.say(setting, text, Source::CommandLine);
        }
        Ok(values)
    }

    fn say(&mut self, setting: &'static Setting, text: String, source: Source) {
        if !text.is_empty() {
            self.said.insert(setting.name, Said { text, source });
        }
    }

    /// Whether any layer says something.
    pub(super) fn is_said(&self, name: &str) -> bool {
        self.said.contains_key(name)
    }

    /// Whether it is said elsewhere than in a file.
    pub(super) fn is_said_to_process(&self, name: &str) -> bool {
        let source = self.said.get(name).map(|said| &said.source);
        matches!(source, Some(Source::CommandLine | Source::Environment))
    }

    /// The file that was read.
    pub(super) fn config_file(&self) -> Option<&Path> {
        self.config_file.as_deref()
    }

    /// The value, or the default's.
    pub(super) fn text(&self, name: &str) -> &str {
        let default = || settings::find(name).expect("only settings are asked for").default;
        self.said.get(name).map_or_else(default, |said| &said.text)
    }

    /// How the user wrote the name of the setting.
    pub(super) fn told(&self, name: &str) -> String {
        match self.said.get(name).map(|said| &said.source) {
            Some(Source::Environment) => variable(name),
            Some(Source::File(path)) => format!("{name} in '{}'", path.display()),
            Some(Source::CommandLine) | None => format!("--{name}"),
        }
    }

    /// The value as what it means.
    ///
    /// # Errors
    /// `parse` says what the value would have to be.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T> {
        let text = self.text(name);
        parse(text).map_err(|expected| {
            Failure::usage(format!("{} '{text}': it must be {expected}", self.told(name)))
        })
    }
}

/// Values of variables by the names of their settings.
fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    other: &BTreeSet<String>,
) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX)) else {
            continue;
        };
        let setting = name[VARIABLE_PREFIX.len()..].to_lowercase().replace('_', "-");
        if variable(&setting) == name
            && (setting == CONFIG_FILE || settings::find(&setting).is_some())
        {
            let value = value.into_string().map_err(|value| {
                Failure::usage(format!("{name} '{}' is not UTF-8", value.display()))
            })?;
            found.insert(setting, value);
        } else if !other.contains(name)
            && let Some(meant) = nearest(&setting, SETTINGS.iter().map(|setting| setting.name))
        {
            let meant = variable(meant);
            return Err(Failure::usage(format!("the variable {name} is no setting"))
                .hint(format!("it is like {meant}; unset it if it is for something else")));
        }
    }
    Ok(found)
}

fn in_file(path: &Path) -> Result<Vec<(&'static Setting, String)>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::caused(format!("cannot read the configuration file '{shown}'"), &error)
    })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        Failure::usage(format!("'{shown}' is no TOML")).because(error.to_string().trim().to_owned())
    })?;
    let mut found = Vec::new();
    for (name, value) in table {
        let Some(setting) = settings::find(&name) else {
            let failure = Failure::usage(format!("'{shown}' has the unknown setting '{name}'"));
            let names = SETTINGS.iter().map(|setting| setting.name);
            return Err(match nearest(&name, names) {
                Some(meant) => failure.hint(format!("did you mean '{meant}'?")),
                None => failure.hint("revfs serve --help names them all"),
            });
        };
        let value = in_words(&value).ok_or_else(|| {
            Failure::usage(format!(
                "'{name}' in '{shown}' is a {}: it must be a string, a number, a boolean, or a list of \
                 these",
                value.type_str()
            ))
        })?;
        found.push((setting, value));
    }
    Ok(found)
}

/// A value as it would be said on the command line.
fn in_words(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(is) => Some(is.to_string()),
        toml::Value::Array(values) => {
            let words: Option<Vec<String>> = values.iter().map(in_words).collect();
            words.map(|words| words.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        given: &[(&str, &str)],
        environment: &[(&str, &str)],
        file: Option<&str>,
    ) -> Result<Values> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revfs.toml");
        let config_file = file.map(|text| {
            std::fs::write(&path, text).unwrap();
            path.clone()
        });
        let given =
            given.iter().map(|&(name, text)| (settings::find(name).unwrap(), text.to_owned()));
        let args = ServeArgs { given: given.collect(), config_file, systemd_unit: false };
        let environment =
            environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Values::read(args, environment, &BTreeSet::from(["REVFS_ENDPOINT".to_owned()]))
    }

    fn refused(environment: &[(&str, &str)], file: Option<&str>) -> String {
        read(&[], environment, file).unwrap_err().render()
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
        let file = "name = \"file\"\nsnapshot-count = 5\nlisten-client-urls = [\"a\", \"b\"]\nlog-level = \"\"";
        let environment = [("REVFS_NAME", "variable"), ("REVFS_LOG_FORMAT", "")];
        let values = read(&[], &environment, Some(file)).unwrap();
        assert_eq!(values.text("name"), "variable");
        assert_eq!(values.told("name"), "REVFS_NAME");
        assert_eq!(values.text("snapshot-count"), "5");
        assert!(values.told("snapshot-count").starts_with("snapshot-count in '/"));
        assert_eq!(values.text("listen-client-urls"), "a,b");
        assert_eq!(values.text("log-level"), "info", "an empty value says nothing");
        assert!(!values.is_said("log-format"));
        let values = read(&[("name", "flag")], &environment, Some(file)).unwrap();
        assert_eq!((values.text("name"), values.told("name")), ("flag", "--name".to_owned()));
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest_that_is_known() {
        let said = refused(&[], Some("data_dir = \"x\""));
        assert!(said.contains("'data_dir'") && said.contains("did you mean 'data-dir'"), "{said}");
        let said = refused(&[], Some("[section]\nx = 1"));
        assert!(said.contains("'section'") && said.contains("--help"), "{said}");
        let said = refused(&[("REVFS_DATADIR", "x")], None);
        assert!(said.contains("REVFS_DATADIR") && said.contains("REVFS_DATA_DIR"), "{said}");
    }

    #[test]
    fn variables_of_others_are_left_alone() {
        let others = [("REVFS_SEED", "1"), ("REVFS_ENDPOINT", "x"), ("PATH", "/bin")];
        assert!(read(&[], &others, None).is_ok());
    }

    #[test]
    fn a_file_that_cannot_be_used_says_why() {
        assert!(refused(&[], Some("name = ")).contains("is no TOML"));
        assert!(refused(&[], Some("name = 2026-11-22")).contains("'name'"));
        assert!(refused(&[("REVFS_CONFIG_FILE", "/nowhere/x")], None).contains("/nowhere/x"));
    }
}
