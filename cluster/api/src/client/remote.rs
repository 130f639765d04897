//! [`Remote`]: a key space over the network, by the service revfs.v1.

use async_trait::async_trait;

use super::connection::leader_or_not;
use super::{Client, backup, resuming, watch, within};
use crate::backup::Backup;
use crate::convert;
use crate::keyspace::{
    Answer, Capabilities, ChangesAnswer, ChangesRequest, HistoryRequest, KeyRange, KeySpace,
    LeaseId, LeaseState, Origin, Read, ReadAnswer, Result, Revision, Stamp, Status, Time, Txn,
    TxnAnswer, Version, Watch,
};
use crate::wire::revfs as wire;

/// See the module.
#[derive(Clone, Debug)]
pub struct Remote {
    pub(super) client: Client,
    capabilities: Capabilities,
}

impl Remote {
    pub(super) fn new(client: Client, capabilities: Capabilities) -> Self {
        Self { client, capabilities }
    }
}

/// Whether each question got an answer of its kind.
fn answers_fit(reads: &[wire::Question], answers: &[Answer]) -> bool {
    use wire::question::Question;
    reads.len() == answers.len()
        && reads.iter().zip(answers).all(|(read, answer)| {
            matches!(
                (&read.question, answer),
                (Some(Question::Range(_)), Answer::Range(_))
                    | (Some(Question::List(_)), Answer::List(_))
                    | (Some(Question::Directory(_)), Answer::Directory(_))
            )
        })
}

#[async_trait]
impl KeySpace for Remote {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn read(&self, revision: Revision, reads: Vec<Read>) -> Result<ReadAnswer> {
        let request = convert::read_request(revision, reads);
        let response = self
            .client
            .repeat(|at, limit| {
                let request = within(request.clone(), limit);
                async move { at.revfs().read(request).await }
            })
            .await?;
        let answer = ReadAnswer::try_from(response).and_then(|answer| {
            if answers_fit(&request.questions, &answer.answers) {
                return Ok(answer);
            }
            let reason = "the answers are not those of the questions".into();
            Err(convert::Malformed { message: "ReadResponse", reason })
        });
        self.client.understood(answer)
    }

    async fn history(&self, request: HistoryRequest) -> Result<Vec<Version>> {
        let request = wire::HistoryRequest::from(request);
        let response = self
            .client
            .repeat(|at, limit| {
                let request = within(request.clone(), limit);
                async move { at.revfs().history(request).await }
            })
            .await?;
        self.client.understood(convert::history_answer(response))
    }

    async fn changes(&self, request: ChangesRequest) -> Result<ChangesAnswer> {
        let request = wire::ChangesRequest::from(request);
        let response = self
            .client
            .repeat(|at, limit| {
                let request = within(request.clone(), limit);
                async move { at.revfs().changes(request).await }
            })
            .await?;
        self.client.understood(response.try_into())
    }

    async fn revision_at(&self, time: Time) -> Result<Revision> {
        let response = self
            .client
            .repeat(|at, limit| async move {
                at.revfs()
                    .revision_at(within(wire::RevisionAtRequest { time: time.0 }, limit))
                    .await
            })
            .await?;
        Ok(Revision(response.revision))
    }

    async fn stamp(&self, revision: Revision) -> Result<Stamp> {
        let response = self
            .client
            .repeat(|at, limit| async move {
                let request = wire::StampRequest { revision: revision.0 };
                at.revfs().stamp(within(request, limit)).await
            })
            .await?;
        self.client.understood(convert::stamp_answer(response))
    }

    async fn txn(&self, txn: Txn, origin: Origin) -> Result<TxnAnswer> {
        self.run_txn(txn, origin).await
    }

    async fn watch(&self, ranges: Vec<KeyRange>, from: Revision) -> Result<Box<dyn Watch>> {
        let watched = watch::Watched { client: self.client.clone(), ranges };
        let settings = self.client.settings().clone();
        Ok(Box::new(resuming::ResumingWatch::open(watched, settings, from).await?))
    }

    async fn compact(&self, revision: Revision, physical: bool) -> Result<()> {
        let settings = self.client.settings();
        let timeout =
            if physical { settings.physical_compaction_timeout } else { settings.call_timeout };
        let request = wire::CompactRequest { revision: revision.0, physical };
        self.client
            .once(
                timeout,
                |at, limit| async move { at.revfs().compact(within(request, limit)).await },
            )
            .await?;
        Ok(())
    }

    async fn status(&self) -> Result<Status> {
        let response = self
            .client
            .repeat(|at, limit| async move {
                at.revfs().status(leader_or_not(within(wire::StatusRequest {}, limit))).await
            })
            .await?;
        let (status, _) = self.client.understood(convert::status_answer(response))?;
        // What the node says of itself is for those on its machine.
        Ok(Status { endpoint: self.client.names(), ..status })
    }

    async fn lease_grant(&self, id: LeaseId, ttl_seconds: i64) -> Result<(LeaseId, i64)> {
        self.client.grant(id, ttl_seconds).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Option<i64>> {
        self.client.keep_alive(id).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<()> {
        self.client.revoke(id).await
    }

    async fn lease_time_to_live(&self, id: LeaseId, with_keys: bool) -> Result<Option<LeaseState>> {
        self.client.time_to_live(id, with_keys).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>> {
        self.client.list_leases().await
    }

    async fn backup(&self) -> Result<Box<dyn Backup>> {
        Ok(Box::new(backup::RemoteBackup::open(&self.client).await?))
    }
}
