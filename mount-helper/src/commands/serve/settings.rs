//! Every setting of `revfs serve`, in one table.
//!
//! Flags, environment variables (`REVFS_` and the name in capitals), keys of the configuration file, the
//! help and the documentation are all made from it or checked against it. Names and, unless the help says
//! otherwise, defaults are etcd's.

use revfs_fs::local_names::LOCAL_NAMES;

/// One setting. Its value is text in every layer; [`super::plan`] gives it a meaning.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    /// What stands for the value in the help; `None` = a switch, whose value is true or false.
    pub(crate) value: Option<&'static str>,
    /// Holds where nothing is said.
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
    pub(crate) section: &'static str,
}

const MEMBER: &str = "Member";
const CLUSTER: &str = "Cluster";
const CLIENTS: &str = "Clients";
const MOUNT: &str = "Mount";
const TLS: &str = "Encryption";
const USERS: &str = "Users";
const LIMITS: &str = "Limits";
const LOGGING: &str = "Logging";

/// Names another layer: no setting of the node itself.
pub(crate) const CONFIG_FILE: &str = "config-file";

const fn setting(
    section: &'static str,
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { name, value: Some(value), default, help, section }
}

const fn switch(section: &'static str, name: &'static str, help: &'static str) -> Setting {
    Setting { name, value: None, default: "false", help, section }
}

pub(crate) const SETTINGS: &[Setting] = &[
    setting(MEMBER, "name", "NAME", "default", "What this member is called"),
    setting(
        MEMBER,
        "data-dir",
        "DIR",
        "",
        "Where the data is kept; NAME.revfs in the current directory if it is not said",
    ),
    setting(
        MEMBER,
        "snapshot-count",
        "N",
        "10000",
        "Entries between two snapshots: behind one the log is purged",
    ),
    setting(
        MEMBER,
        "snapshot-catchup-entries",
        "N",
        "5000",
        "Entries that stay in the log behind a snapshot, for members that lag a little",
    ),
    setting(
        MEMBER,
        "copy-bytes-per-second",
        "N",
        "104857600",
        "Pace of a copy of the store for a member that lags behind the log",
    ),
    setting(MEMBER, "heartbeat-interval", "MS", "100", "How often a leader shows itself"),
    setting(
        MEMBER,
        "election-timeout",
        "MS",
        "1000",
        "Within so long a lost leader is replaced; at least 5 heartbeats, at most 50000",
    ),
    setting(
        CLUSTER,
        "listen-peer-urls",
        "URLS",
        "",
        "Where other members are answered: http://IP:PORT or https://IP:PORT; nowhere if the node is alone, else http://localhost:2380",
    ),
    setting(
        CLUSTER,
        "initial-advertise-peer-urls",
        "URLS",
        "",
        "Where other members are told to find this one; where it listens if it is not said",
    ),
    setting(
        CLUSTER,
        "initial-cluster",
        "NAME=URL,…",
        "",
        "All members that begin the cluster, the same for each of them; the node alone if it is not said",
    ),
    setting(
        CLUSTER,
        "initial-cluster-token",
        "TOKEN",
        "etcd-cluster",
        "Another for each cluster that is begun at the same addresses",
    ),
    setting(
        CLUSTER,
        "initial-cluster-state",
        "STATE",
        "new",
        "new: the members begin a cluster; existing: it has begun, and this member was added to it. It matters, as what is said of the beginning, to an empty data directory only",
    ),
    setting(
        CLUSTER,
        "join",
        "HOST",
        "",
        "Have the member at this client address add this node to its cluster, if its data directory is empty",
    ),
    setting(
        CLUSTER,
        "max-learners",
        "N",
        "1",
        "So many members may be learners that wait for their promotion",
    ),
    setting(
        CLUSTER,
        "standby-after",
        "DURATION",
        "5m",
        "A voter that is gone for so long is stood in for by a standby, if there is one; at least 1s. The leader's counts",
    ),
    switch(
        CLUSTER,
        "force-new-cluster",
        "Most members are lost for good: this one goes on alone from its data, as a new cluster",
    ),
    setting(
        CLUSTER,
        "corrupt-check-time",
        "DURATION",
        "0s",
        "Between two comparisons of what the members hold, besides those at each compaction; 0 = none",
    ),
    switch(
        CLUSTER,
        "experimental-initial-corrupt-check",
        "Compare this member with the others before it serves clients, and do not start if it holds other data than a majority",
    ),
    setting(
        CLIENTS,
        "listen-client-urls",
        "URLS",
        "http://localhost:2379",
        "Where clients are served: http://IP:PORT, https://IP:PORT or unix:///PATH, separated by commas",
    ),
    setting(
        CLIENTS,
        "advertise-client-urls",
        "URLS",
        "",
        "Where clients are told to find this member; where it listens if it is not said",
    ),
    setting(
        CLIENTS,
        "listen-metrics-urls",
        "URLS",
        "",
        "Where /metrics, /health, /livez, /readyz and /version are served besides, and nothing else",
    ),
    setting(
        CLIENTS,
        "cors",
        "ORIGINS",
        "",
        "Pages that may use the JSON gateway, as https://a.example, separated by commas; * = all (etcd's default)",
    ),
    setting(
        CLIENTS,
        "host-whitelist",
        "NAMES",
        "*",
        "Names by which HTTP without encryption may call this node, separated by commas; * = all",
    ),
    setting(
        MOUNT,
        "mount",
        "DIR",
        "",
        "Mount the member's own store at this directory: empty, or one that does not exist yet; not etcd's",
    ),
    setting(MOUNT, "mount-prefix", "PREFIX", "/", "Mount only the keys below it; ends in a slash"),
    switch(MOUNT, "mount-read-only", "Refuse all changes through the mount"),
    switch(
        MOUNT,
        "mount-allow-other",
        "Let other users into the mount, as far as modes allow; for root always true",
    ),
    setting(
        MOUNT,
        "mount-consistency",
        "HOW",
        "watch",
        "watch: the mount shows nothing older than it has shown; linear: each time all that was acknowledged anywhere",
    ),
    setting(
        MOUNT,
        "mount-commit",
        "WHEN",
        "close",
        "close: a file is a revision when its writer closes or syncs it; write: each write is one",
    ),
    switch(
        MOUNT,
        "mount-cas",
        "Refuse (ESTALE) to rewrite a file from empty that has changed elsewhere since it was opened",
    ),
    setting(
        MOUNT,
        "mount-local",
        "PATTERNS",
        LOCAL_NAMES,
        "Names of files that stay in the mount until they are renamed, colons between them; empty: none",
    ),
    setting(TLS, "cert-file", "FILE", "", "The certificate shown to clients (PEM, its chain too)"),
    setting(TLS, "key-file", "FILE", "", "Its private key (PEM)"),
    switch(
        TLS,
        "client-cert-auth",
        "The common name in a client's certificate is its user; needs trusted-ca-file",
    ),
    setting(
        TLS,
        "trusted-ca-file",
        "FILE",
        "",
        "Only clients with a certificate of these authorities are let in (PEM)",
    ),
    setting(
        TLS,
        "client-crl-file",
        "FILE",
        "",
        "Certificates of clients that are revoked (PEM or DER)",
    ),
    setting(
        TLS,
        "peer-cert-file",
        "FILE",
        "",
        "The certificate shown to other members (PEM, its chain too)",
    ),
    setting(TLS, "peer-key-file", "FILE", "", "Its private key (PEM)"),
    switch(
        TLS,
        "peer-client-cert-auth",
        "Other members must show a certificate, too; needs peer-trusted-ca-file",
    ),
    setting(
        TLS,
        "peer-trusted-ca-file",
        "FILE",
        "",
        "The authorities whose certificates make a member (PEM)",
    ),
    setting(
        TLS,
        "peer-crl-file",
        "FILE",
        "",
        "Certificates of members that are revoked (PEM or DER)",
    ),
    switch(
        TLS,
        "auto-tls",
        "Encrypt with a certificate that the node signs itself, kept in the data directory",
    ),
    setting(TLS, "self-signed-cert-validity", "YEARS", "1", "How long that certificate is valid"),
    setting(TLS, "tls-min-version", "VERSION", "TLS1.2", "TLS1.2 or TLS1.3"),
    setting(
        TLS,
        "cipher-suites",
        "LIST",
        "",
        "Suites of TLS 1.2, separated by commas; all that are safe if it is not said",
    ),
    setting(
        USERS,
        "auth-token",
        "KIND",
        "simple",
        "What users are given when they log in: simple, or jwt,pub-key=FILE,priv-key=FILE,sign-method=ES256,ttl=5m",
    ),
    setting(USERS, "auth-token-ttl", "SECONDS", "300", "How long a simple token lasts unused"),
    setting(
        USERS,
        "bcrypt-cost",
        "N",
        "10",
        "What guessing a password costs: one more is twice as much; 4 to 31",
    ),
    setting(
        LIMITS,
        "quota-backend-bytes",
        "BYTES",
        "0",
        "Refuse to store more when so much of the store is in use; 0 = 2 GiB, below 0 = never",
    ),
    setting(LIMITS, "max-txn-ops", "N", "128", "Operations in one transaction of etcd's API"),
    setting(
        LIMITS,
        "max-request-bytes",
        "BYTES",
        "1572864",
        "Largest request of etcd's API that changes something",
    ),
    setting(
        LIMITS,
        "max-concurrent-streams",
        "N",
        "10000",
        "Requests and streams of one connection at a time (etcd: no bound)",
    ),
    setting(
        LIMITS,
        "grpc-keepalive-interval",
        "DURATION",
        "2h",
        "A client that is silent for so long is asked for a sign of life; 0 = never",
    ),
    setting(
        LIMITS,
        "grpc-keepalive-timeout",
        "DURATION",
        "20s",
        "A client that gives none within so long is cut off",
    ),
    setting(
        LIMITS,
        "watch-progress-notify-interval",
        "DURATION",
        "10m",
        "Between two marks of progress for watches that asked for them; at least 100ms",
    ),
    setting(
        LIMITS,
        "auto-compaction-mode",
        "MODE",
        "periodic",
        "What auto-compaction-retention counts: periodic (time) or revision",
    ),
    setting(
        LIMITS,
        "auto-compaction-retention",
        "AMOUNT",
        "0",
        "How much history is kept: 12 (hours), 90m, or a number of revisions; 0 = all",
    ),
    setting(LOGGING, "log-level", "LEVEL", "info", "debug, info, warn or error"),
    setting(LOGGING, "log-format", "FORMAT", "console", "console (text) or json (etcd: json)"),
    setting(
        LOGGING,
        "log-outputs",
        "LIST",
        "default",
        "Where to: stderr (default), stdout, or paths of files, separated by commas",
    ),
];

/// The environment variable of a setting.
pub(crate) fn variable(name: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", name.replace('-', "_").to_uppercase())
}

pub(crate) const VARIABLE_PREFIX: &str = "REVFS_";

/// The setting of this name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The candidate that is most like `text`, if any is like it at all.
pub(crate) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    /// Below this two names share letters by chance.
    const ALIKE: f64 = 0.6;
    let score = |candidate: &'a str| (strsim::normalized_levenshtein(text, candidate), candidate);
    let scored = candidates.into_iter().map(score).filter(|(score, _)| *score >= ALIKE);
    scored.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_become_variables() {
        let names: std::collections::BTreeSet<&str> =
            SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(names.len(), SETTINGS.len());
        assert_eq!(variable(find("data-dir").unwrap().name), "REVFS_DATA_DIR");
        assert!(find("data_dir").is_none());
    }

    #[test]
    fn a_typing_error_finds_what_was_meant_and_a_stranger_nothing() {
        let names = || SETTINGS.iter().map(|setting| setting.name);
        assert_eq!(nearest("datadir", names()), Some("data-dir"));
        assert_eq!(nearest("listen-client-url", names()), Some("listen-client-urls"));
        assert_eq!(nearest("colour", names()), None);
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATIONS.md");
        let document = std::fs::read_to_string(path).unwrap();
        let rows: Vec<String> = SETTINGS.iter().map(row).collect();
        let table = rows.join("\n");
        assert!(document.contains(&table), "docs/OPERATIONS.md must have these rows:\n{table}");
    }

    fn row(setting: &Setting) -> String {
        let default = match setting.default {
            "" => String::new(),
            default => format!("`{default}` "),
        };
        format!("| `{}` | {default}| {} |", setting.name, setting.help)
    }
}
