//! Words of a server that errors keep for good, in a process of its own: they fill a table of the
//! process.

use std::collections::BTreeSet;

use revfs_api::keyspace::Error;
use revfs_api::status::{from_status, to_status};

#[test]
fn words_that_a_server_invents_do_not_fill_the_memory() {
    let mut kept = BTreeSet::new();
    for number in 0..1_000 {
        let invented: &'static str = format!("operation {number}").leak();
        let Some(Error::Unsupported(word)) = from_status(&to_status(&Error::Unsupported(invented)))
        else {
            panic!("not Unsupported")
        };
        kept.insert(word);
    }
    assert!(kept.len() <= 65, "{}", kept.len());
    assert!(kept.contains("(what the server names)"));
}
