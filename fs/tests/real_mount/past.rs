//! `@rev`, `@time`, `@history`, `@status` and `@keys`, as the shell sees them.

use std::time::Duration;

use revfs_api::keyspace::{Op, Revision};
use revfs_fs::attributes::{Attributes, Kind, record_key};

use super::live::Live;

#[test]
fn every_revision_is_a_tree() {
    let live = Live::new();
    let blue = live.put("/app/color", "blue\n");
    live.memory.advance(Duration::from_secs(60));
    let red = live.put("/app/color", "red\n");
    live.memory.advance(Duration::from_secs(60));
    let sized = live.put("/app/size", "9\n");
    live.put("/other", "untouched\n");
    live.memory.advance(Duration::from_secs(60));
    let gone = live.delete("/app/color");

    assert_eq!(live.sh(&format!("cat app/@rev/{blue}/color @rev/{red}/app/color")), "blue\nred\n");
    assert_eq!(live.sh(&format!("ls app/@rev/{sized}; ls app")), "color\nsize\nsize\n");
    assert_eq!(live.sh("ls -t app/@rev"), format!("{gone}\n{sized}\n{red}\n{blue}\n"));
    assert_eq!(
        live.sh(&format!("find app/@rev/{red} | sort")),
        format!("app/@rev/{red}\napp/@rev/{red}/color\n")
    );
    let numbers = format!("stat -c %i app/@rev/{red}/color @rev/{sized}/app/color");
    assert_eq!(live.sh(&format!("{numbers} | uniq | wc -l")), "1\n", "equal content is one inode");
    assert!(live.sh_fails(&format!("echo x > app/@rev/{red}/color")).contains("Read-only"));
    assert!(live.sh_fails(&format!("mkdir app/@rev/{red}/new")).contains("Read-only"));
    assert!(live.sh_fails("ls @rev/999").contains("No such file"));
    assert!(live.sh_fails(&format!("ls app/@rev/{red}/@rev")).contains("No such file"));
}

#[test]
fn a_compacted_revision_is_stale() {
    let live = Live::new();
    let old = live.put("/app/color", "blue\n");
    live.put("/app/color", "red\n");
    let kept = live.put("/app/size", "9\n");
    assert_eq!(live.sh(&format!("cat app/@rev/{old}/color @rev/{old}/app/color")), "blue\nblue\n");
    live.runtime.block_on(revfs_api::KeySpace::compact(live.memory.as_ref(), kept, true)).unwrap();
    for gone in [format!("app/@rev/{old}/color"), format!("@rev/{old}/app/nothing")] {
        assert!(live.sh_fails(&format!("cat {gone}")).contains("Stale"), "{gone}");
    }
    // Content older than the compaction is still there in what is kept.
    assert_eq!(live.sh(&format!("cat app/@rev/{kept}/color")), "red\n");
    let newest = live.put("/app/size", "10\n");
    assert_eq!(live.sh("ls app/@rev | sort -n | tail -1"), format!("{newest}\n"));
}

#[test]
fn a_time_is_a_link_to_a_revision() {
    let live = Live::new();
    let blue = live.put("/app/color", "blue\n");
    live.memory.advance(Duration::from_secs(24 * 3600));
    live.put("/app/color", "red\n");
    // The clock of the key space in memory stands at the beginning of 2026.
    assert_eq!(live.sh("readlink app/@time/2026-01-01T12:00:00Z"), format!("../@rev/{blue}\n"));
    assert_eq!(live.sh("cat app/@time/2026-01-01T12:00:00Z/color"), "blue\n");
    assert_eq!(live.sh("cat app/@time/now/color"), "red\n");
    assert!(live.sh_fails("ls app/@time/2999-01-01/").contains("No such file"));
    assert!(live.sh_fails("ls app/@time/yesterday/").contains("No such file"));
    assert!(live.sh_fails("ls app/@time/1999-01-01/").contains("Stale"));
}

#[test]
fn a_file_has_its_versions() {
    let live = Live::new();
    let blue = live.put("/app/color", "blue\n");
    live.memory.advance(Duration::from_secs(1));
    let gone = live.delete("/app/color");
    live.memory.advance(Duration::from_secs(1));
    let red = live.put("/app/color", "red\n");
    assert_eq!(live.sh("ls app/@history"), "color\n");
    assert_eq!(live.sh("ls -t app/@history/color"), format!("{red}\n{gone}.deleted\n{blue}\n"));
    assert_eq!(live.sh(&format!("cat app/@history/color/{blue}")), "blue\n");
    assert_eq!(live.sh(&format!("cat app/@history/color/{gone}.deleted")), "");
    assert!(live.sh_fails(&format!("cat app/@history/color/{gone}")).contains("No such file"));
    assert!(live.sh_fails("ls app/@history/nothing").contains("No such file"));
    assert!(live.sh_fails(&format!("rm app/@history/color/{blue}")).contains("Read-only"));
    live.delete("/app/color");
    assert_eq!(
        live.sh("ls app/@history 2>&1 | wc -l; cat @history/../@history/../readme 2>&1 | wc -l"),
        "1\n1\n"
    );
}

#[test]
fn what_is_private_now_was_always_private() {
    let live = Live::new();
    let open = live.put("/secret", "old\n");
    assert_eq!(live.sh(&format!("stat -c '%a %u' @rev/{open}/secret")), "644 0\n");
    let private = Attributes::new(Kind::File, 0o600);
    live.apply(vec![Op::put(record_key(b"/secret"), private.encode())]);
    live.wait_for("[ $(stat -c %a secret) = 600 ]");
    live.wait_for(&format!("[ $(stat -c %a @rev/{open}/secret) = 600 ]"));
    live.wait_for(&format!("[ $(stat -c %a @history/secret/{open}) = 600 ]"));
    live.delete("/secret");
    live.wait_for(&format!("[ $(stat -c %a @rev/{open}/secret) = 600 ]"));
}

#[test]
fn status_names_the_mount_and_the_backend() {
    let live = Live::new();
    let revision = live.put("/a", "1");
    let status: serde_json::Value = serde_json::from_str(&live.sh("cat @status")).unwrap();
    assert_eq!(status["revision"], revision.0);
    assert_eq!(status["mount"]["watching"], true);
    assert_eq!(status["mount"]["staged_files"], 0);
    assert!(status.get("endpoint").is_some());
    assert!(live.sh_fails("cat a/@status").contains("Not a directory"));
    assert!(live.sh_fails("echo x > @status").contains("Read-only"));
}

#[test]
fn every_key_has_a_flat_name() {
    let live = Live::new();
    live.put("/app/color", "blue\n");
    live.put("outside", "not below the root\n");
    live.put_bytes(b"/app/\xff\0", b"odd\n");
    assert_eq!(live.sh("ls @keys"), "%2Fapp%2F%FF%00\n%2Fapp%2Fcolor\noutside\n");
    assert_eq!(live.sh("cat @keys/outside @keys/%2Fapp%2Fcolor"), "not below the root\nblue\n");
    let numbers = live.sh("stat -c %i app/color @keys/%2Fapp%2Fcolor | uniq | wc -l");
    assert_eq!(numbers, "1\n", "a key and its ordinary name are one inode");
    assert_eq!(live.sh("stat -c '%a %u' @keys"), "700 0\n");
    assert!(live.sh_fails("ls app/@keys").contains("No such file"));
    let many = (0..2_500).map(|number| Op::put(format!("/many/{number:04}"), ""));
    live.apply(many.collect());
    assert_eq!(live.sh("ls @keys | wc -l"), "2503\n", "the listing has pages");
    assert_eq!(live.sh("ls @keys | sort -u | wc -l"), "2503\n");
}

#[test]
fn a_long_past_is_listed_in_parts() {
    let live = Live::new();
    for number in 0..250 {
        live.put("/busy/counter", &number.to_string());
    }
    let first = Revision(2);
    assert_eq!(live.sh("ls busy/@rev | wc -l"), "101\n");
    assert_eq!(live.sh("ls -U busy/@rev | tail -1"), "older-than-152\n");
    assert_eq!(live.sh("ls -U busy/@rev/older-than-152 | head -1"), "151\n");
    assert_eq!(live.sh("ls -U busy/@rev/older-than-152/ | tail -1"), "older-than-52\n");
    assert_eq!(live.sh(&format!("cat busy/@rev/older-than-152/{first}/counter")), "0");
}
