//! Any number of questions, answered from one view: that of one revision.

use super::Etcd;
use super::list::{Listing, found};
use super::plain::{current, interval, range_answer, range_request, revision};
use crate::client::within;
use crate::keyspace::{
    Answer, DirectoryAnswer, Error, KeyRange, RangeRead, Read, ReadAnswer, Result, Revision,
};
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::request_op::Request as WireOp;
use crate::wire::etcdserverpb::response_op::Response as WireAnswer;

/// Ranges of one request: etcd takes 128 operations in a transaction unless it is told otherwise.
const RANGES_MAX: usize = 100;

/// How often the present is read anew because it was compacted while it was read.
const ATTEMPTS_MAX: u32 = 3;

/// A question on its way.
enum Asked {
    Range { read: RangeRead, answer: Option<Answer> },
    Directory { range: KeyRange, answer: Option<Answer> },
    List { listing: Box<Listing>, answer: Option<Answer> },
}

impl Asked {
    fn new(read: Read) -> Self {
        match read {
            Read::Range(read) => Self::Range { read, answer: None },
            Read::Directory(prefix) => {
                Self::Directory { range: KeyRange::prefix(&prefix), answer: None }
            }
            Read::List(read) => Self::List { listing: Box::new(Listing::new(read)), answer: None },
        }
    }

    /// What is to be asked next, at `at`; nothing if it is answered.
    fn request(&self, at: Revision) -> Option<pb::RangeRequest> {
        match self {
            Self::Range { read, answer: None } => Some(range_request(read, at)),
            Self::Directory { range, answer: None } => {
                let (key, range_end) = interval(range);
                Some(pb::RangeRequest {
                    key,
                    range_end,
                    limit: 2,
                    revision: super::plain::number(at),
                    keys_only: true,
                    ..pb::RangeRequest::default()
                })
            }
            Self::List { listing, answer: None } => Some(listing.request(at)),
            _ => None,
        }
    }

    fn take(&mut self, response: pb::RangeResponse) {
        match self {
            Self::Range { read, answer } => {
                *answer = Some(Answer::Range(range_answer(response, read.keys_only)));
            }
            Self::Directory { answer, .. } => {
                let names = u64::try_from(response.kvs.len()).unwrap_or(u64::MAX);
                let directory = if names == 0 { DirectoryAnswer::default() } else { found(names) };
                *answer = Some(Answer::Directory(directory));
            }
            Self::List { listing, answer } => *answer = listing.take(response).map(Answer::List),
        }
    }

    fn answer(self) -> Option<Answer> {
        match self {
            Self::Range { answer, .. }
            | Self::Directory { answer, .. }
            | Self::List { answer, .. } => answer,
        }
    }
}

impl Etcd {
    pub(super) async fn answer(&self, at: Revision, reads: Vec<Read>) -> Result<ReadAnswer> {
        for _ in 1..ATTEMPTS_MAX {
            match self.answer_once(at, reads.clone()).await {
                Err(Error::Compacted { .. }) if at == Revision::NONE => {}
                other => return other,
            }
        }
        self.answer_once(at, reads).await
    }

    async fn answer_once(&self, at: Revision, reads: Vec<Read>) -> Result<ReadAnswer> {
        let mut asked: Vec<Asked> = reads.into_iter().map(Asked::new).collect();
        let mut view = at;
        let mut newest = Revision::NONE;
        loop {
            let open = asked.iter_mut().filter_map(|own| own.request(view).map(|new| (own, new)));
            let (questions, requests): (Vec<&mut Asked>, Vec<_>) = open.take(RANGES_MAX).unzip();
            if requests.is_empty() && newest != Revision::NONE {
                break;
            }
            let (now, responses) = self.ranges(requests, view).await?;
            newest = newest.max(now);
            if view == Revision::NONE {
                view = now;
            }
            for (question, response) in questions.into_iter().zip(responses) {
                question.take(response);
            }
        }
        let answers = asked.into_iter().filter_map(Asked::answer).collect();
        Ok(ReadAnswer { revision: view, current: newest, answers })
    }

    /// Several ranges of one view, and the revision that is current in it.
    async fn ranges(
        &self,
        mut requests: Vec<pb::RangeRequest>,
        at: Revision,
    ) -> Result<(Revision, Vec<pb::RangeResponse>)> {
        if requests.is_empty() && at == Revision::NONE {
            return Ok((self.current().await?, vec![pb::RangeResponse::default()]));
        }
        if requests.len() <= 1 {
            let nothing = super::nothing_at(super::plain::number(at));
            let request = requests.pop().unwrap_or(nothing);
            let response = self.range(request).await?;
            return Ok((current(response.header.as_ref()), vec![response]));
        }
        let count = requests.len();
        let requested =
            requests.iter().map(|request| revision(request.revision)).max().unwrap_or_default();
        let success = requests
            .into_iter()
            .map(|request| pb::RequestOp { request: Some(WireOp::RequestRange(request)) });
        let txn = pb::TxnRequest { success: success.collect(), ..pb::TxnRequest::default() };
        let sent = self.client.repeat(|at, limit| {
            let request = within(txn.clone(), limit);
            async move { at.kv().txn(request).await }
        });
        let response = match sent.await {
            Ok(response) => response,
            Err(error) => return Err(self.explain(error, requested).await),
        };
        let now = self.see(response.header.as_ref());
        let ranges: Vec<pb::RangeResponse> = response
            .responses
            .into_iter()
            .filter_map(|answer| match answer.response {
                Some(WireAnswer::ResponseRange(range)) => Some(range),
                _ => None,
            })
            .collect();
        if ranges.len() != count {
            let reason = format!("{count} ranges were asked for, {} answered", ranges.len());
            return Err(Error::Unavailable { reason });
        }
        Ok((now, ranges))
    }
}
