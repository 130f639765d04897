//! How a cluster is reached besides where it is: whom to believe, as whom to come.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ValueHint;
use revfs_api::client::{Credentials, Settings, Tls};

use crate::error::{Failure, Result};
use crate::password;

const HEADING: &str = "Connection";

#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ConnectionArgs {
    /// PEM file of the authorities that https servers are believed by; else those of the system
    #[arg(long, global = true, env = "REVFS_CACERT", value_name = "FILE")]
    #[arg(value_hint = ValueHint::FilePath, help_heading = HEADING)]
    pub(crate) cacert: Option<PathBuf>,

    /// PEM file of the client's certificate, for servers that ask for one; with --client-key
    #[arg(long, global = true, env = "REVFS_CLIENT_CERT", value_name = "FILE")]
    #[arg(value_hint = ValueHint::FilePath, help_heading = HEADING)]
    pub(crate) client_cert: Option<PathBuf>,

    /// PEM file of the key of --client-cert
    #[arg(long, global = true, env = "REVFS_CLIENT_KEY", value_name = "FILE")]
    #[arg(value_hint = ValueHint::FilePath, help_heading = HEADING)]
    pub(crate) client_key: Option<PathBuf>,

    /// The name that the server's certificate must have; else the host of the endpoint
    #[arg(long, global = true, env = "REVFS_SERVER_NAME", value_name = "NAME")]
    #[arg(help_heading = HEADING)]
    pub(crate) server_name: Option<String>,

    /// Log in as this user; the password comes from --password-file, REVFS_PASSWORD or the terminal,
    /// or after a colon (then all who may list processes see it)
    #[arg(long, global = true, env = "REVFS_USER", value_name = "NAME[:PASSWORD]")]
    #[arg(hide_env_values = true, help_heading = HEADING)]
    pub(crate) user: Option<String>,

    /// File whose first line is the password of --user
    #[arg(long, global = true, env = "REVFS_PASSWORD_FILE", value_name = "FILE")]
    #[arg(value_hint = ValueHint::FilePath, help_heading = HEADING)]
    pub(crate) password_file: Option<PathBuf>,
}

impl ConnectionArgs {
    /// The client's settings; reads the files.
    ///
    /// # Errors
    /// If a file cannot be read, or one of two that belong together is missing.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let (certificate, key) = (self.client_cert.as_deref(), self.client_key.as_deref());
        let name = self.server_name.clone();
        let tls = Tls::from_files(self.cacert.as_deref(), certificate, key, name);
        let tls = tls.map_err(|error| {
            Failure::caused("cannot use the certificates", &error)
                .hint("--cacert, and --client-cert with --client-key, name files of PEM")
                .of_kind(crate::error::Kind::Usage)
        })?;
        Ok(Settings { tls, login: self.login()?, ..Settings::default() })
    }

    fn login(&self) -> Result<Option<Credentials>> {
        let Some(user) = &self.user else {
            return match &self.password_file {
                Some(_) => Err(Failure::usage("--password-file without --user NAME")),
                None => Ok(None),
            };
        };
        let (user, password) = match (user.split_once(':'), &self.password_file) {
            (Some(_), Some(_)) => {
                return Err(Failure::usage("--user holds a password, and so does --password-file")
                    .hint("write --user NAME without a colon"));
            }
            (Some((user, password)), None) => (user.to_owned(), password.to_owned()),
            (None, Some(file)) => (user.clone(), password::first_line("--password-file", file)?),
            (None, None) => (user.clone(), Self::password_of(user)?),
        };
        Ok(Some(Credentials { user, password }))
    }

    /// From the variable, or asked for.
    fn password_of(user: &str) -> Result<String> {
        if let Ok(password) = std::env::var("REVFS_PASSWORD") {
            return Ok(password);
        }
        let asked = password::ask(&format!("Password of {user}"))?;
        asked.ok_or_else(|| {
            Failure::usage(format!("--user {user} comes without a password"))
                .hint("--password-file FILE, or the variable REVFS_PASSWORD")
        })
    }

    /// The same for another process of this program, whatever its current directory.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let path = |path: &Option<PathBuf>| {
            let absolute = path.as_ref().map(std::path::absolute);
            absolute.and_then(std::io::Result::ok).map(PathBuf::into_os_string)
        };
        let text = |text: &Option<String>| text.as_ref().map(OsString::from);
        let all = [
            ("REVFS_CACERT", path(&self.cacert)),
            ("REVFS_CLIENT_CERT", path(&self.client_cert)),
            ("REVFS_CLIENT_KEY", path(&self.client_key)),
            ("REVFS_SERVER_NAME", text(&self.server_name)),
            ("REVFS_USER", text(&self.user)),
            ("REVFS_PASSWORD_FILE", path(&self.password_file)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_password_comes_from_one_place() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        std::fs::write(&file, "secret\nsecond line\n").unwrap();
        let login = |user: Option<&str>, file: Option<&Path>| {
            let (user, password_file) = (user.map(str::to_owned), file.map(Path::to_owned));
            let args = ConnectionArgs { user, password_file, ..ConnectionArgs::default() };
            args.login().map(|login| login.map(|login| (login.user, login.password)))
        };
        let root = |password: &str| Some(("root".to_owned(), password.to_owned()));
        assert_eq!(login(None, None).unwrap(), None);
        assert_eq!(login(Some("root:a:b"), None).unwrap(), root("a:b"));
        assert_eq!(login(Some("root"), Some(&file)).unwrap(), root("secret"));
        assert!(login(Some("root:x"), Some(&file)).is_err());
        assert!(login(None, Some(&file)).is_err());
        assert!(login(Some("root"), Some(Path::new("/nowhere"))).is_err());
    }

    #[test]
    fn a_process_elsewhere_is_told_whole_paths() {
        let cacert = Some(PathBuf::from("ca.pem"));
        let args = ConnectionArgs { cacert, ..ConnectionArgs::default() };
        let environment = args.environment();
        let [(name, path)] = environment.as_slice() else { panic!("{environment:?}") };
        assert_eq!(*name, "REVFS_CACERT");
        assert!(Path::new(path).is_absolute() && Path::new(path).ends_with("ca.pem"));
    }
}
