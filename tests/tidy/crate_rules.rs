//! Rules over the crates: who may depend on whom, and on what.

/// Crates of the workspace: (from, the ones it may know). Who is not listed here may know none.
const ARROWS: &[(&str, &[&str])] = &[
    ("revfs-fs", &["revfs-api"]),
    ("revfs-cluster", &["revfs-store", "revfs-api"]),
    ("revfs", &["revfs-fs", "revfs-cluster", "revfs-api"]),
    ("revfs-client-tests", &["revfs-cluster"]),
    ("revfs-tests", &["revfs", "revfs-fs", "revfs-cluster", "revfs-api", "revfs-store"]),
];

/// Libraries that only these crates may know, each with the reason.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("heed", &["revfs-store"], "LMDB is the store's"),
    ("openraft", &["revfs-cluster"], "replication is the cluster's"),
    ("fuser", &["revfs-fs", "revfs-tests"], "FUSE is the file system's"),
    ("prost", &["revfs-api", "revfs-cluster"], "wire types stay above the store and below fs"),
    (
        "tonic",
        &["revfs-api", "revfs-cluster", "revfs-tests"],
        "wire types stay above the store and below fs",
    ),
    ("anyhow", &["revfs", "revfs-tests"], "libraries name their errors: thiserror"),
];

/// `arrows`: (crate, dependency), of every kind (ordinary, of tests, of the build).
pub(crate) fn arrows(arrows: &[(String, String)]) -> Vec<String> {
    let mut violations = Vec::new();
    for (from, to) in arrows {
        let own = to == "revfs" || to.starts_with("revfs-");
        let allowed = ARROWS.iter().find(|(name, _)| name == from).map_or(&[][..], |(_, to)| *to);
        if own && !allowed.contains(&to.as_str()) {
            violations.push(format!(
                "{from} -> {to}: not an arrow of docs/ARCHITECTURE.md; allowed: {allowed:?}"
            ));
        }
        for (library, crates, reason) in ONLY_IN {
            let same = to == library || to.starts_with(&format!("{library}-"));
            if same && !crates.contains(&from.as_str()) {
                violations.push(format!("{from} -> {to}: only {crates:?}: {reason}"));
            }
        }
    }
    violations
}

/// Each crate has the lints of the workspace.
pub(crate) fn lints(path: &str, text: &str) -> Vec<String> {
    let mut lines = text.lines().map(str::trim);
    let found = lines.any(|line| line == "[lints]") && lines.next() == Some("workspace = true");
    if found { Vec::new() } else { vec![format!("{path}: no `[lints]` with `workspace = true`")] }
}

#[cfg(test)]
mod tests {
    use super::{arrows, lints};

    fn arrow(from: &str, to: &str) -> usize {
        arrows(&[(from.to_owned(), to.to_owned())]).len()
    }

    #[test]
    fn an_arrow_against_the_picture_is_found() {
        for (from, to) in [
            ("revfs-fs", "revfs-store"),
            ("revfs-fs", "revfs-cluster"),
            ("revfs-store", "revfs-api"),
            ("revfs-api", "revfs-store"),
            ("revfs-cluster", "revfs-fs"),
            ("revfs", "revfs-store"),
            ("revfs-new", "revfs-api"),
            ("revfs-store", "prost"),
            ("revfs-store", "tonic"),
            ("revfs-fs", "tonic-prost"),
            ("revfs-cluster", "heed"),
            ("revfs-store", "openraft"),
            ("revfs-cluster", "fuser"),
            ("revfs-store", "anyhow"),
        ] {
            assert_eq!(arrow(from, to), 1, "{from} -> {to}");
        }
    }

    #[test]
    fn the_arrows_of_the_picture_pass() {
        for (from, to) in [
            ("revfs-fs", "revfs-api"),
            ("revfs-cluster", "revfs-store"),
            ("revfs", "revfs-cluster"),
            ("revfs-tests", "revfs-store"),
            ("revfs-store", "heed"),
            ("revfs-cluster", "openraft"),
            ("revfs-api", "tonic-prost-build"),
            ("revfs", "anyhow"),
        ] {
            assert_eq!(arrow(from, to), 0, "{from} -> {to}");
        }
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        assert_eq!(lints("a/Cargo.toml", "[package]\nname = \"a\"\n").len(), 1);
        assert_eq!(lints("a/Cargo.toml", "[lints]\nrust.unused = \"allow\"\n").len(), 1);
        assert_eq!(lints("a/Cargo.toml", "[lints]\nworkspace = true\n").len(), 0);
    }
}
