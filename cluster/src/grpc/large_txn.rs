//! A transaction that comes in several messages, put together again.
//!
//! Nothing happens before the last message is here. What is held meanwhile is bounded: by
//! [`LARGE_TXNS`], the bytes of one, and the time that a client may be silent.

use std::time::Duration;

use prost::Message;
use revfs_api::convert;
use revfs_api::keyspace::{Error, Origin, Txn};
use revfs_api::status::to_status;
use revfs_api::wire::LARGE_TXN_BYTES_MAX;
use revfs_api::wire::revfs as wire;
use tonic::{Status, Streaming};

/// Received at once; others wait for their turn.
pub(super) const LARGE_TXNS: usize = 2;

/// A client that sends nothing for so long has given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);

fn invalid(reason: String) -> Status {
    to_status(&Error::Invalid(format!("LargeTxn: {reason}")))
}

/// Receives all of a transaction.
pub(super) async fn receive(
    mut stream: Streaming<wire::LargeTxnRequest>,
) -> Result<(Txn, Origin), Status> {
    let mut received = Received::default();
    loop {
        let message = tokio::time::timeout(SILENCE_MAX, stream.message()).await;
        match message.map_err(|_| to_status(&Error::Timeout(SILENCE_MAX)))?? {
            Some(message) => received.add(message)?,
            None => return received.whole(),
        }
    }
}

#[derive(Default)]
struct Received {
    whole: Option<(Txn, Origin)>,
    /// Announced, and here.
    announced: u32,
    messages: u32,
    bytes: usize,
}

impl Received {
    fn add(&mut self, message: wire::LargeTxnRequest) -> Result<(), Status> {
        self.bytes += message.encoded_len();
        let (unit, count, max) = ("bytes", self.bytes, LARGE_TXN_BYTES_MAX);
        if count > max {
            return Err(to_status(&Error::TooBig { unit, count, max }));
        }
        let wire::LargeTxnRequest { messages, part } = message;
        let part = part.ok_or_else(|| invalid("part is missing".to_owned()))?;
        let (part, origin) =
            convert::txn_arguments(part).map_err(|error| to_status(&Error::from(error)))?;
        self.messages += 1;
        let Some((whole, _)) = &mut self.whole else {
            self.announced = messages;
            self.whole = Some((part, origin));
            return Ok(());
        };
        let is_first = !part.compares.is_empty()
            || !part.failure.is_empty()
            || !origin.claimed.is_empty()
            || !origin.note.is_empty();
        if is_first || messages != self.announced || self.messages > messages {
            let number = self.messages;
            return Err(invalid(format!("message {number} does not follow from the first")));
        }
        whole.success.extend(part.success);
        Ok(())
    }

    fn whole(self) -> Result<(Txn, Origin), Status> {
        let Self { whole, announced, messages, .. } = self;
        match whole {
            Some(whole) if messages == announced => Ok(whole),
            _ => Err(invalid(format!("it ended after {messages} messages of {announced}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use revfs_api::convert::txn_request;
    use revfs_api::keyspace::{Op, Origin, Txn};
    use revfs_api::wire::revfs as wire;

    use super::Received;

    fn message(messages: u32, txn: Txn) -> wire::LargeTxnRequest {
        wire::LargeTxnRequest { messages, part: Some(txn_request(txn, Origin::default())) }
    }

    fn puts(keys: &[&'static str]) -> Txn {
        let success = keys.iter().map(|key| Op::put(*key, "1")).collect();
        Txn { success, ..Txn::default() }
    }

    #[test]
    fn messages_are_put_together_in_their_order() {
        let mut received = Received::default();
        let first = Txn { failure: vec![Op::delete("f")], ..puts(&["a", "b"]) };
        received.add(message(2, first.clone())).unwrap();
        received.add(message(2, puts(&["c"]))).unwrap();
        let (whole, _) = received.whole().unwrap();
        assert_eq!(whole.success, puts(&["a", "b", "c"]).success);
        assert_eq!(whole.failure, first.failure);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let said = |messages: Vec<wire::LargeTxnRequest>| {
            let mut received = Received::default();
            let added = messages.into_iter().try_for_each(|message| received.add(message));
            added.and_then(|()| received.whole().map(drop)).unwrap_err().message().to_owned()
        };
        let part = || message(2, puts(&["a"]));
        assert!(said(vec![]).contains("ended after 0 messages of 0"));
        assert!(said(vec![part()]).contains("ended after 1 messages of 2"));
        assert!(said(vec![part(), part(), part()]).contains("message 3 does not follow"));
        assert!(said(vec![part(), message(3, puts(&[]))]).contains("message 2 does not follow"));
        let other = Txn { failure: vec![Op::delete("f")], ..Txn::default() };
        assert!(said(vec![part(), message(2, other)]).contains("message 2 does not follow"));
        let empty = wire::LargeTxnRequest { messages: 1, part: None };
        assert!(said(vec![empty]).contains("part is missing"));
    }
}
