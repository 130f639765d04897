//! The words of members: `member add ID [ROLE] URL,URL [for=ID]`, `member adopt ID [ROLE] URL`,
//! `member remove ID`, `member urls ID URL,URL`, `member role ID ROLE`, `member identify ID INSTANCE
//! [version=N]`, `member publish ID INSTANCE NAME CLIENT-URL [peer=URL] [version=N]`, `member version N`.
//! `members` shows all rows and the cluster's version. `-` is an empty list or text.

use revfs_store::{FIRST_VERSION, Member, MemberChange, MemberRole, MemberRow, ReadView};

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("{word} is not a number"))
}

fn texts(word: &str) -> Vec<String> {
    word.split(',').filter(|text| *text != "-").map(str::to_owned).collect()
}

fn option<'w>(words: &[&'w str], name: &str) -> Option<&'w str> {
    words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

pub(super) fn change(words: &[&str]) -> MemberChange {
    let version = option(words, "version").map_or(FIRST_VERSION, number);
    if words[1] == "version" {
        return MemberChange::RaiseVersion { version: number(words[2]) };
    }
    let id = number(words[2]);
    let role_and_urls = || match MemberRole::of_name(words[3]) {
        Some(role) => (role, texts(words[4])),
        None => (MemberRole::Voter, texts(words[3])),
    };
    match words[1] {
        "add" => {
            let (role, peer_urls) = role_and_urls();
            let replaces = option(words, "for").map(number);
            MemberChange::Add { id, role, replaces, peer_urls }
        }
        "adopt" => {
            let (role, peer_urls) = role_and_urls();
            MemberChange::Adopt { id, role, peer_urls }
        }
        "remove" => MemberChange::Remove { id },
        "remove-by-force" => MemberChange::RemoveByForce { id },
        "urls" => MemberChange::SetUrls { id, peer_urls: texts(words[3]) },
        "role" => MemberChange::SetRole {
            id,
            role: MemberRole::of_name(words[3]).expect("the name of a role"),
        },
        "identify" => MemberChange::Identify { id, instance: number(words[3]), version },
        "publish" => MemberChange::Publish {
            id,
            instance: number(words[3]),
            version,
            name: texts(words[4]).concat(),
            peer_urls: option(words, "peer").map(texts).unwrap_or_default(),
            client_urls: texts(words[5]),
        },
        other => panic!("unknown change of members {other}"),
    }
}

pub(super) fn show(view: &ReadView) -> String {
    let mut text = format!("cluster version {}", view.cluster_version().unwrap());
    for (id, row) in view.member_rows().unwrap() {
        let Some(member) = row.live() else {
            let how = if row == MemberRow::RemovedByForce { " by force" } else { "" };
            text += &format!("\n{id} removed{how}");
            continue;
        };
        assert_eq!(member.id, id);
        let Member {
            role, joined, instance, version, replaces, name, peer_urls, client_urls, ..
        } = member;
        let state = if *joined { "joined" } else { "pending" };
        text += &format!("\n{id} {name:?} {state} {} at {}", role.name(), peer_urls.join(","));
        if !client_urls.is_empty() {
            text += &format!(" clients {}", client_urls.join(","));
        }
        if let Some(instance) = instance {
            text += &format!(" instance {instance} version {version}");
        }
        if let Some(old) = replaces {
            text += &format!(" in place of {old}");
        }
    }
    text
}
