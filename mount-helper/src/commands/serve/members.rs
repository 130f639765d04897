//! What the settings say of other members: where they are, who begins the cluster, and how they believe
//! each other.

use std::path::Path;

use revfs_api::client::{EndpointError, Endpoints};
use revfs_cluster::{Founders, Founding};

use super::encryption::{self, Encryption, PEERS};
use super::layers::Values;
use super::value::{self, ListenUrl, Place, list, word};
use crate::error::{Failure, Result};

/// Where etcd listens for other members, taken once there are any.
const LISTEN_DEFAULT: &str = "http://localhost:2380";

/// Settings that matter to an empty data directory only.
const OF_THE_BEGINNING: [&str; 4] =
    ["initial-cluster", "initial-cluster-state", "initial-cluster-token", "join"];

/// Where etcd's clients find a member.
const CLIENT_PORT: u16 = 2379;

/// See the module.
pub(super) struct MembersPlan {
    /// Nowhere where the node is alone and nothing is said.
    pub(super) listen: Vec<ListenUrl>,
    pub(super) advertised: Vec<String>,
    pub(super) coming: Coming,
    /// Where a URL asks for it.
    pub(super) encryption: Option<Encryption>,
}

/// How a node comes to its cluster.
pub(super) enum Coming {
    /// Its data directory says whose it is. As with etcd, these settings, which tell of the beginning, are
    /// not looked at.
    Back {
        unused: Vec<String>,
    },
    First(Founding),
    /// It was added, and is to learn as whom from the members at these URLs.
    Added {
        others: Vec<String>,
    },
    /// It has a member add it.
    Joining {
        through: Endpoints,
    },
}

impl MembersPlan {
    pub(super) fn new(values: &Values, name: &str, data_dir: &Path) -> Result<Self> {
        let founders = values.parsed("initial-cluster", founders)?;
        let through = values.parsed("join", join)?;
        let listen = match values.text("listen-peer-urls") {
            "" if founders.is_empty() && through.is_none() => Vec::new(),
            "" => value::listen_urls(LISTEN_DEFAULT)
                .map_err(|error| Failure::usage(format!("{LISTEN_DEFAULT}: {error}")))?,
            _ => values.parsed("listen-peer-urls", peer_urls)?,
        };
        let mut advertised =
            values.parsed("initial-advertise-peer-urls", value::advertised_urls)?;
        if advertised.is_empty() {
            advertised = listen.iter().map(|url| url.text.clone()).collect();
        }
        let is_begun = values.parsed("initial-cluster-state", |text| {
            word(text, &[("new", false), ("existing", true)])
        })?;
        let coming = match through {
            _ if revfs_cluster::is_in_use(data_dir) => {
                let said = OF_THE_BEGINNING.into_iter().filter(|name| values.is_said(name));
                Coming::Back { unused: said.map(|name| values.told(name)).collect() }
            }
            Some(through) if founders.is_empty() => Coming::Joining { through },
            Some(_) => {
                return Err(Failure::usage(format!(
                    "{} contradicts {}",
                    values.told("join"),
                    values.told("initial-cluster")
                ))
                .hint("join asks a member; initial-cluster names all that begin, or whom to ask with initial-cluster-state existing"));
            }
            None if is_begun => Coming::Added { others: others(values, founders, &advertised)? },
            None => Coming::First(founding(values, name, founders, &advertised)?),
        };
        let encryption = encryption::of(values, &PEERS, &listen, data_dir)?;
        Ok(Self { listen, advertised, coming, encryption })
    }
}

fn peer_urls(text: &str) -> Result<Vec<ListenUrl>, String> {
    let urls = value::listen_urls(text)?;
    let is_unix = |url: &&ListenUrl| matches!(url.place, Place::Unix(_));
    match urls.iter().find(is_unix) {
        Some(url) => Err(format!(
            "http://IP:PORT or https://IP:PORT: members on other machines cannot reach '{}'",
            url.text
        )),
        None => Ok(urls),
    }
}

/// `NAME=URL,…`; a name that is there more than once has several URLs.
pub(in crate::commands) fn founders(text: &str) -> Result<Vec<(String, Vec<String>)>, String> {
    let mut founders: Vec<(String, Vec<String>)> = Vec::new();
    for part in list(text) {
        let (name, url) = part
            .split_once('=')
            .filter(|(name, url)| !name.is_empty() && !url.is_empty())
            .ok_or_else(|| format!("NAME=URL, separated by commas; '{part}' is not"))?;
        let urls = value::advertised_urls(url)?;
        if founders.iter().any(|(_, known)| known.iter().any(|known| urls.contains(known))) {
            return Err(format!("URLs of one member each: '{url}' is there twice"));
        }
        match founders.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => known.extend(urls),
            None => founders.push((name.to_owned(), urls)),
        }
    }
    Ok(founders)
}

/// `HOST`, `HOST:PORT` or a URL of a member, as clients find it.
fn join(text: &str) -> Result<Option<Endpoints>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let is_host = !text.contains(['/', ',']) && !text.contains(':');
    let text = if is_host { format!("{text}:{CLIENT_PORT}") } else { text.to_owned() };
    let expected = |error| format!("HOST, HOST:PORT or the URL of a member for clients; {error}");
    text.parse().map(Some).map_err(|error: EndpointError| expected(error.to_string()))
}

/// The members that can be asked: all that are named but this node.
fn others(
    values: &Values,
    named: Vec<(String, Vec<String>)>,
    own: &[String],
) -> Result<Vec<String>> {
    let urls = named.into_iter().flat_map(|(_, urls)| urls);
    let others: Vec<String> = urls.filter(|url| !own.contains(url)).collect();
    if others.is_empty() {
        return Err(Failure::usage(format!(
            "{} names no other member to ask, and {} says that the cluster has begun",
            values.told("initial-cluster"),
            values.told("initial-cluster-state"),
        ))
        .hint("name the members that run with initial-cluster, or use join"));
    }
    Ok(others)
}

fn founding(
    values: &Values,
    name: &str,
    founders: Vec<(String, Vec<String>)>,
    advertised: &[String],
) -> Result<Founding> {
    if founders.is_empty() {
        return Ok(Founding::Alone);
    }
    let told = values.told("initial-cluster");
    let Some(own) = founders.iter().position(|(founder, _)| founder == name) else {
        let names: Vec<&str> = founders.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Failure::usage(format!(
            "{told} has no member '{name}'; it has {}",
            names.join(", ")
        ))
        .hint("say with --name which of them this is"));
    };
    let mut listed: Vec<&String> = founders[own].1.iter().collect();
    let mut shown: Vec<&String> = advertised.iter().collect();
    listed.sort();
    shown.sort();
    if listed != shown {
        return Err(Failure::usage(format!(
            "{told} finds '{name}' at {}, but {} says {}",
            founders[own].1.join(","),
            values.told("initial-advertise-peer-urls"),
            advertised.join(",")
        ))
        .hint(
            "the others look for this member at the first: say the same in both, and listen there",
        ));
    }
    let members = founders.into_iter().map(|(_, urls)| urls).collect();
    let token = values.text("initial-cluster-token").to_owned();
    Ok(Founding::Together(Founders { token, members, own }))
}

#[cfg(test)]
mod tests {
    use super::founders;

    #[test]
    fn a_name_may_have_several_urls_and_a_url_one_name() {
        let parsed = founders("a=http://h:1,b=http://h:2,a=http://h:3").unwrap();
        let urls = |of: &str| {
            let found = parsed.iter().find(|(name, _)| name == of);
            found.map(|(_, urls)| urls.join(" ")).unwrap_or_default()
        };
        assert_eq!(urls("a"), "http://h:1 http://h:3");
        assert_eq!(urls("b"), "http://h:2");
        assert!(founders("").unwrap().is_empty());
        for wrong in ["a", "=http://h:1", "a=", "a=h:1", "a=http://h:1,b=http://h:1"] {
            assert!(founders(wrong).is_err(), "{wrong}");
        }
    }
}
