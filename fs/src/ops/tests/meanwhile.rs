//! What happens while a commit is on its way, or behind this mount's back: nothing that was answered
//! is lost, and nothing of others.

use fuser::Errno;
use revfs_api::keyspace::Error;

use super::{Mount, put};
use crate::memory::FailureMoment;

const APPEND: i32 = libc::O_WRONLY | libc::O_APPEND;

fn unknown() -> Error {
    Error::OutcomeUnknown { reason: "the leader is gone".to_owned() }
}

#[tokio::test]
async fn a_write_in_the_middle_during_an_append_does_not_delete_what_others_wrote() {
    let mount = Mount::empty();
    put(&mount.memory, "/f", "base\n").await;
    let appender = mount.open("f", APPEND).await.unwrap();
    let changer = mount.open("f", libc::O_RDWR).await.unwrap();
    appender.write(0, "x\n").await.unwrap();
    put(&mount.memory, "/f", "base\nforeign\n").await;
    let answer = mount.memory.hold_next_answer();
    let meanwhile = async {
        changer.write(0, "B").await.unwrap();
        drop(answer);
    };
    let (flushed, ()) = tokio::join!(biased; appender.flush(), meanwhile);
    assert_eq!(flushed, Ok(()));
    assert_eq!(changer.close().await, Err(Errno::ESTALE));
    assert_eq!(mount.stored("/f").await.unwrap(), "base\nforeign\nx\n");
    assert_eq!(mount.fs.writing.refused.list(b"/f").len(), 1);
}

#[tokio::test]
async fn foreign_bytes_of_the_same_length_are_seen_by_who_has_the_file_open() {
    for is_answer_lost in [false, true] {
        let mount = Mount::empty();
        put(&mount.memory, "/f", "aaa\n").await;
        let reader = mount.open("f", libc::O_RDONLY).await.unwrap();
        assert_eq!(reader.read().await.unwrap(), "aaa\n");
        let appender = mount.open("f", APPEND).await.unwrap();
        appender.write(0, "x\n").await.unwrap();
        put(&mount.memory, "/f", "bbb\n").await;
        if is_answer_lost {
            mount.memory.fail_next_txn(FailureMoment::After, unknown());
            assert_eq!(appender.flush().await, Err(Errno::EIO));
        }
        appender.close().await.unwrap();
        assert_eq!(mount.stored("/f").await.unwrap(), "bbb\nx\n");
        assert_eq!(reader.read().await.unwrap(), "bbb\nx\n", "lost: {is_answer_lost}");
        let changer = mount.open("f", libc::O_WRONLY).await.unwrap();
        changer.write(5, "Z").await.unwrap();
        changer.close().await.unwrap();
        assert_eq!(mount.stored("/f").await.unwrap(), "bbb\nxZ");
    }
}
