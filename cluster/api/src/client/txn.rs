//! Transactions over the network: in one request where they fit, otherwise in several.
//!
//! Neither is ever sent again: an answer that was lost leaves the outcome unknown.

use prost::Message;

use super::{Connection, Remote, within};
use crate::convert;
use crate::keyspace::{Error, Op, OpAnswer, Origin, Result, Txn, TxnAnswer};
use crate::wire::revfs as wire;
use crate::wire::{LARGE_TXN_BYTES_MAX, REQUEST_BYTES_MAX};

/// A message of several is full from here on, so that no side holds much more than it has to.
const PART_BYTES: usize = 4 * 1024 * 1024;

/// What a list's tag and length, and the fields around it, take at most.
const OVERHEAD_BYTES: usize = 64;

impl Remote {
    pub(super) async fn run_txn(&self, txn: Txn, origin: Origin) -> Result<TxnAnswer> {
        let request = convert::txn_request(txn.clone(), origin);
        let settings = self.client.settings();
        let response = if request.encoded_len() <= REQUEST_BYTES_MAX {
            let send = |at: Connection, limit| {
                let request = within(request.clone(), limit);
                async move { at.revfs().txn(request).await }
            };
            self.client.once(settings.call_timeout, send).await?
        } else {
            let messages = messages(request)?;
            let send = |at: Connection, limit| {
                let stream = futures_util::stream::iter(messages.clone());
                async move { at.revfs().large_txn(within(stream, limit)).await }
            };
            self.client.once(settings.large_txn_timeout, send).await?
        };
        let unknown = |reason: String| Error::OutcomeUnknown {
            reason: format!("{}: {reason}", self.client.names()),
        };
        let answer = convert::txn_answer(response).map_err(|error| unknown(error.to_string()))?;
        if !txn_answer_fits(&txn, &answer) {
            return Err(unknown("the answers are not those of the operations".into()));
        }
        Ok(answer)
    }
}

/// Cuts a request into messages: the operations on success in order, all else in the first.
fn messages(mut request: wire::TxnRequest) -> Result<Vec<wire::LargeTxnRequest>> {
    let all = request.encoded_len();
    too_big("bytes", all, LARGE_TXN_BYTES_MAX)?;
    let success = request.txn.as_mut().map(|txn| std::mem::take(&mut txn.success));
    let mut bytes = request.encoded_len();
    too_big("bytes of compares and failure branch", bytes, REQUEST_BYTES_MAX - OVERHEAD_BYTES)?;
    let mut requests = vec![request];
    for op in success.unwrap_or_default() {
        let more = op.encoded_len() + OVERHEAD_BYTES;
        too_big("bytes of one operation", more, REQUEST_BYTES_MAX - OVERHEAD_BYTES)?;
        if bytes > 0 && bytes + more > PART_BYTES {
            requests.push(wire::TxnRequest {
                txn: Some(wire::Txn::default()),
                ..wire::TxnRequest::default()
            });
            bytes = 0;
        }
        bytes += more;
        let txn = requests.last_mut().and_then(|request| request.txn.as_mut());
        txn.expect("each request was made with a transaction").success.push(op);
    }
    let messages = u32::try_from(requests.len()).unwrap_or(u32::MAX);
    let message = |part| wire::LargeTxnRequest { messages, part: Some(part) };
    Ok(requests.into_iter().map(message).collect())
}

fn too_big(unit: &'static str, count: usize, max: usize) -> Result<()> {
    if count > max { Err(Error::TooBig { unit, count, max }) } else { Ok(()) }
}

/// Whether each operation of the branch that ran got an answer of its kind.
fn txn_answer_fits(txn: &Txn, answer: &TxnAnswer) -> bool {
    let ran = if answer.succeeded { &txn.success } else { &txn.failure };
    ran.len() == answer.answers.len()
        && ran.iter().zip(&answer.answers).all(|(operation, answer)| match (operation, answer) {
            (Op::Txn(inner), OpAnswer::Txn(answer)) => txn_answer_fits(inner, answer),
            (Op::Put { .. }, OpAnswer::Put { .. })
            | (Op::Delete { .. }, OpAnswer::Delete { .. })
            | (Op::Range(_), OpAnswer::Range(_))
            | (Op::Append { .. }, OpAnswer::Append { .. })
            | (Op::Move { .. } | Op::MoveKey { .. } | Op::Exchange { .. }, OpAnswer::Move { .. })
            | (Op::Restore { .. }, OpAnswer::Restore { .. }) => true,
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::messages;
    use crate::convert::{txn_arguments, txn_request};
    use crate::keyspace::{Compare, Error, KeyRange, Op, Origin, Txn, VALUE_BYTES_MAX};
    use crate::wire::REQUEST_BYTES_MAX;

    fn put(number: usize, bytes: usize) -> Op {
        Op::put(format!("/{number}"), Bytes::from(vec![b'x'; bytes]))
    }

    #[test]
    fn messages_put_together_are_the_request() {
        let sizes = [9, 3 << 20, VALUE_BYTES_MAX, 1, 2, 3 << 20, 2 << 20];
        let txn = Txn {
            compares: vec![Compare::absent(KeyRange::prefix(b"/"))],
            success: sizes.into_iter().enumerate().map(|(at, bytes)| put(at, bytes)).collect(),
            failure: vec![Op::delete("/0")],
        };
        let origin = Origin { claimed: "a@b".into(), note: Bytes::from_static(b"note") };
        let cut = messages(txn_request(txn.clone(), origin.clone())).unwrap();
        assert_eq!(cut.len(), 4);
        assert!(cut.iter().all(|message| message.encoded_len() <= REQUEST_BYTES_MAX));
        assert!(cut.iter().all(|message| message.messages == 4));
        let mut parts =
            cut.into_iter().map(|message| txn_arguments(message.part.unwrap()).unwrap());
        let (mut whole, found) = parts.next().unwrap();
        assert_eq!(found, origin);
        for (part, origin) in parts {
            assert!(part.compares.is_empty() && part.failure.is_empty());
            assert_eq!(origin, Origin::default());
            whole.success.extend(part.success);
        }
        assert_eq!(whole, txn);
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        let large =
            Txn { success: vec![put(0, VALUE_BYTES_MAX), put(1, 2 << 20)], ..Txn::default() };
        for txn in [
            Txn { success: vec![Op::Txn(large.clone())], ..Txn::default() },
            Txn { failure: large.success, ..Txn::default() },
            Txn { success: vec![put(0, VALUE_BYTES_MAX); 33], ..Txn::default() },
        ] {
            let error = messages(txn_request(txn, Origin::default())).unwrap_err();
            assert!(matches!(error, Error::TooBig { .. }), "{error}");
        }
    }
}
