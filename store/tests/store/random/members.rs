//! Random changes of members: few numbers, addresses and directories, so that they meet.

use revfs_store::{MemberChange, MemberRole};

use super::Random;

const URLS: [&str; 5] = ["http://a:1", "http://b:1", "http://c:1", "http://d:1", "http://e:1"];

fn urls(r: &mut Random) -> Vec<String> {
    (0..r.index(3)).map(|_| r.pick(&URLS).to_owned()).collect()
}

pub(crate) fn change(r: &mut Random) -> MemberChange {
    // Numbers are used up, so that there must be many in a long run.
    let id = if r.one_in(2) { r.below(200) } else { r.below(8) };
    let role = r.pick(&MemberRole::ALL);
    let instance = u128::from(r.below(6));
    let version = if r.one_in(20) { 2 } else { 1 };
    match r.below(20) {
        0..5 => {
            let replaces = if r.one_in(3) { Some(1 + r.below(8)) } else { None };
            MemberChange::Add { id, role, replaces, peer_urls: urls(r) }
        }
        5..7 => {
            // Replication's own members have addresses of their own.
            MemberChange::Adopt { id, role, peer_urls: Vec::new() }
        }
        7 => MemberChange::Remove { id },
        8 => MemberChange::RemoveByForce { id },
        9 => MemberChange::SetUrls { id, peer_urls: urls(r) },
        10..13 => MemberChange::SetRole { id, role },
        13..15 => MemberChange::Identify { id, instance, version },
        15..19 => MemberChange::Publish {
            id,
            instance,
            version,
            name: format!("member {id}"),
            peer_urls: urls(r),
            client_urls: urls(r),
        },
        _ => MemberChange::RaiseVersion { version: 1 + u32::from(r.one_in(3)) },
    }
}
