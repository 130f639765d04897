//! What texts of settings mean. Each parser answers a refusal with what the text would have to be.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A number within bounds.
pub(super) fn number<T>(text: &str, least: T, most: T) -> Result<T, String>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    let number = text.parse().ok().filter(|number| *number >= least && *number <= most);
    number.ok_or_else(|| format!("a whole number from {least} to {most}"))
}

/// One of these words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        match words.split_last() {
            Some((last, others)) if !others.is_empty() => {
                format!("{} or {last}", others.join(", "))
            }
            _ => words.join(""),
        }
    })
}

/// A switch.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    word(text, &[("true", true), ("false", false)])
}

/// The parts of a list that is separated by commas.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A duration as Go writes it: 90s, 1h30m, 1.5h, 100ms, 0.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "a duration such as 20s, 100ms, 1h30m or 0".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanoseconds: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (amount, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(expected)?;
        let part = part(amount, *unit).ok_or_else(expected)?;
        nanoseconds = nanoseconds.checked_add(part).ok_or_else(expected)?;
        rest = after;
    }
    if text.is_empty() { Err(expected()) } else { Ok(Duration::from_nanos(nanoseconds)) }
}

/// `amount` units; digits behind a point count as far as the unit goes.
fn part(amount: &str, unit: u64) -> Option<u64> {
    let (whole, behind) = amount.split_once('.').unwrap_or((amount, ""));
    if whole.is_empty() && behind.is_empty() {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    let mut sum = digits(whole)?.checked_mul(unit)?;
    let mut place = unit;
    for digit in behind.bytes() {
        place /= 10;
        sum = sum.checked_add(u64::from(digit.checked_sub(b'0')?).checked_mul(place)?)?;
    }
    Some(sum)
}

/// Where a URL of `--listen-…-urls` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A URL to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListenUrl {
    pub(super) text: String,
    pub(super) place: Place,
    pub(super) is_encrypted: bool,
}

/// URLs to listen on, each once.
pub(super) fn listen_urls(text: &str) -> Result<Vec<ListenUrl>, String> {
    let urls: Vec<ListenUrl> = list(text).map(listen_url).collect::<Result<_, _>>()?;
    for (at, url) in urls.iter().enumerate() {
        let is_any_port = matches!(&url.place, Place::Tcp(address) if address.port() == 0);
        if !is_any_port && urls[..at].iter().any(|before| before.place == url.place) {
            return Err(format!("a list without repetitions: '{}' is there twice", url.text));
        }
    }
    if urls.is_empty() { Err("at least one URL".to_owned()) } else { Ok(urls) }
}

fn listen_url(text: &str) -> Result<ListenUrl, String> {
    const FORM: &str = "http://IP:PORT, https://IP:PORT or unix:///PATH, separated by commas";
    let expected = |why: &str| format!("{FORM}; '{text}' {why}");
    let (scheme, rest) = text.split_once("://").ok_or_else(|| expected("has no scheme"))?;
    let (is_encrypted, is_unix) = match scheme {
        "http" => (false, false),
        "https" => (true, false),
        "unix" => (false, true),
        "unixs" => (true, true),
        _ => return Err(expected("has another scheme")),
    };
    let place = if is_unix {
        if rest.is_empty() {
            return Err(expected("names no path"));
        }
        Place::Unix(PathBuf::from(rest))
    } else {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| expected("has no port"))?;
        let port: u16 = port.parse().map_err(|_| expected("has no port"))?;
        Place::Tcp(SocketAddr::new(address(host).map_err(|why| expected(&why))?, port))
    };
    Ok(ListenUrl { text: text.to_owned(), place, is_encrypted })
}

/// URLs that are told to others; they may have names.
pub(in crate::commands) fn advertised_urls(text: &str) -> Result<Vec<String>, String> {
    let url = |text: &str| {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let is_known = ["http", "https", "unix", "unixs"].contains(&scheme);
        let is_whole = !rest.is_empty() && (scheme.starts_with("unix") || rest.contains(':'));
        if is_known && is_whole {
            return Ok(text.to_owned());
        }
        Err(format!("http://HOST:PORT or https://HOST:PORT, separated by commas; '{text}' is not"))
    };
    list(text).map(url).collect()
}

/// Names are not looked up: what they lead to may change, and a listener does not follow.
fn address(host: &str) -> Result<IpAddr, String> {
    if host == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().map_err(|_| {
        format!("names no address of this machine: use its IP, or 0.0.0.0 for all ('{host}')")
    })
}

/// How much history is kept by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retention {
    All,
    For(Duration),
    Revisions(u64),
}

/// `auto-compaction-retention` by time: a bare number counts hours.
pub(super) fn retention_by_time(text: &str) -> Result<Retention, String> {
    let hours = text.parse::<u64>().ok().and_then(|hours| hours.checked_mul(3_600));
    let time = match hours {
        Some(seconds) => Duration::from_secs(seconds),
        None => duration(text).map_err(|_| "hours (12) or a duration (90m)".to_owned())?,
    };
    Ok(if time.is_zero() { Retention::All } else { Retention::For(time) })
}

pub(super) fn retention_by_revision(text: &str) -> Result<Retention, String> {
    let count = number(text, 0, u64::MAX)
        .map_err(|_| "a number of revisions, since auto-compaction-mode is revision".to_owned())?;
    Ok(if count == 0 { Retention::All } else { Retention::Revisions(count) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_go() {
        let seconds = |text: &str| duration(text).unwrap().as_secs_f64();
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("20s"), 20.0);
        assert_eq!(seconds("1h30m"), 5_400.0);
        assert_eq!(seconds("1.5h"), 5_400.0);
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        for wrong in ["", "5", "s", "-1s", "1d", "1.s.", "99999999999h", ".s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn urls_name_addresses_of_this_machine() {
        let urls =
            listen_urls("http://127.0.0.1:2379, unix:///run/x.sock,https://[::1]:1").unwrap();
        assert_eq!(urls[0].place, Place::Tcp("127.0.0.1:2379".parse().unwrap()));
        assert_eq!(urls[1].place, Place::Unix("/run/x.sock".into()));
        assert_eq!(urls[2].place, Place::Tcp("[::1]:1".parse().unwrap()));
        assert_eq!([false, false, true], [0, 1, 2].map(|at: usize| urls[at].is_encrypted));
        assert!(listen_urls("http://localhost:0,http://localhost:0").is_ok(), "any two ports");
        for (wrong, why) in [
            ("", "at least one"),
            ("localhost:1", "no scheme"),
            ("ftp://localhost:1", "another scheme"),
            ("http://localhost", "no port"),
            ("http://localhost:99999", "no port"),
            ("http://example.com:1", "0.0.0.0"),
            ("unix://", "no path"),
            ("http://localhost:1,http://127.0.0.1:1", "twice"),
        ] {
            let refused = listen_urls(wrong).unwrap_err();
            assert!(refused.contains(why), "{wrong}: {refused}");
        }
    }

    #[test]
    fn urls_that_are_told_may_have_names() {
        let told = advertised_urls("http://node-1.example:2379,https://10.0.0.1:1");
        assert_eq!(told.unwrap().len(), 2);
        assert_eq!(advertised_urls(""), Ok(Vec::new()));
        for wrong in ["node-1:2379", "http://node-1", "http://", "ftp://x:1"] {
            assert!(advertised_urls(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn history_is_kept_by_hours_by_durations_or_by_number() {
        assert_eq!(retention_by_time("0"), Ok(Retention::All));
        assert_eq!(retention_by_time("2"), Ok(Retention::For(Duration::from_secs(7_200))));
        assert_eq!(retention_by_time("90s"), Ok(Retention::For(Duration::from_secs(90))));
        assert!(retention_by_time("5d").is_err());
        assert_eq!(retention_by_revision("1000"), Ok(Retention::Revisions(1_000)));
        assert!(retention_by_revision("1h").is_err());
    }

    #[test]
    fn what_is_expected_is_said() {
        assert_eq!(number("x", 1, 9), Err("a whole number from 1 to 9".to_owned()));
        assert_eq!(number("10", 1, 9).unwrap_err(), "a whole number from 1 to 9");
        let words = [("a", 1), ("b", 2), ("c", 3)];
        assert_eq!(word("b", &words), Ok(2));
        assert_eq!(word("x", &words), Err("a, b or c".to_owned()));
    }
}
