//! A sweep ends: answered, cancelled, interrupted or failed. Its report is built, what it found is
//! remembered, and everybody hears of it.

use super::advance::Spent;
use super::memory::{compute, question_of};
use super::trusting::left_out_of;
use super::{Coordinator, EngineError, trace};
use crate::control::CONTROL;
use crate::db::{DbError, NewEvent, SweepRow, SweepState};
use crate::events::Event;
use crate::plan::{History, Ledger, Question, QuestionKind};
use crate::repairs::is_of_repair;
use crate::report::model::Subject;
use crate::report::{self, Report, Stopped, SweepMeta, TestReport};
use flakefarm_shared::blobs::BlobError;
use flakefarm_shared::metrics::catalogue::SWEEPS_ENDED;
use flakefarm_shared::{Digest, Refusal, SweepId, TestId, UnixMicros, now_micros};
use std::collections::HashMap;
use std::time::Duration;
use tracing::{info, warn};

/// How long a cancelled sweep waits for what its workers have made so far.
const LAST_REPORTS: Duration = Duration::from_secs(15);
/// Changes of verdicts that one sweep tells of one by one.
const CHANGES: usize = 1_000;

impl Coordinator {
    /// Ends a sweep early. What is known is reported; an interrupted one may be resumed.
    pub async fn stop_sweep(&self, sweep: SweepId, state: SweepState) -> Result<Report, EngineError> {
        let row = self.row(sweep).await?;
        if !matches!(row.state, SweepState::Running) {
            return self.report(sweep).await;
        }
        match state {
            SweepState::Cancelled => {
                self.cancel(&row).await?;
                self.report(sweep).await
            }
            state => {
                self.tell_workers(sweep).await;
                let question = question_of(&row)?;
                self.finish(&row, &question, state, Spent::Enough).await?;
                self.report(sweep).await
            }
        }
    }

    /// Ends a sweep for good, at once, whatever the planner is doing. Its report follows when workers
    /// have handed in what they made.
    pub async fn cancel(&self, row: &SweepRow) -> Result<(), EngineError> {
        let now = now_micros();
        self.db.finish_sweep(row.id, &SweepState::Cancelled, now, None).await?;
        SWEEPS_ENDED.count(&[SweepState::Cancelled.word()]);
        trace::tell(row, &SweepState::Cancelled, None);
        info!(sweep.id = %row.id, "sweep cancelled");
        self.wake_relay.notify_one();
        self.tell_workers(row.id).await;
        self.db.cancel_waiting_jobs(row.id, now).await?;
        self.wake.notify_one();
        Ok(())
    }

    /// Builds the report of a cancelled sweep once nothing more is to come.
    pub(super) async fn close(&self, row: &SweepRow) -> Result<(), EngineError> {
        let now = now_micros();
        let in_hand = self.db.count_unsettled(row.id).await?;
        let patience = i64::try_from(LAST_REPORTS.as_micros()).unwrap_or(i64::MAX);
        if in_hand > 0 && now - row.finished_at.unwrap_or(now) < patience {
            return Ok(());
        }
        self.db.cancel_jobs(row.id, now).await?;
        let question = question_of(row)?;
        let report = self.build_report(row, &question, &row.state, Spent::Enough).await?;
        self.record_findings(row, &question, &report, row.finished_at.unwrap_or(now)).await?;
        let digest = self.store_report(report).await?;
        self.db.set_report(row.id, &digest).await?;
        self.memories.forget(row.id);
        Ok(())
    }

    /// The report of a sweep: final if it has ended, else of what is known.
    pub async fn report(&self, sweep: SweepId) -> Result<Report, EngineError> {
        let row = self.row(sweep).await?;
        if let Some(digest) = &row.report {
            match self.blobs.get_json(digest, "a report").await {
                Ok(report) => return Ok(report),
                Err(error @ (BlobError::Missing(_) | BlobError::Damaged(_) | BlobError::Content { .. })) => {
                    warn!(sweep.id = %sweep, error = %error, "a final report is built again from what is recorded");
                }
                Err(error) => return Err(error.into()),
            }
        }
        let question = question_of(&row)?;
        self.build_report(&row, &question, &row.state, Spent::Enough).await
    }

    pub(super) async fn row(&self, sweep: SweepId) -> Result<SweepRow, EngineError> {
        let row = self.db.sweep(sweep).await?;
        row.ok_or_else(|| DbError::NotFound(format!("sweep {sweep}")).into())
    }

    async fn build_report(
        &self,
        row: &SweepRow,
        question: &Question,
        state: &SweepState,
        spent: Spent,
    ) -> Result<Report, EngineError> {
        let listing = self.listing(row).await?;
        let context = self.context(row).await?;
        let of_listing = listing.as_ref().map(report::of_listing).unwrap_or_default();
        let of_workers = self.notes_on_workers(row.id).await?;
        let firing = self.db.firing(row.id).await?;
        let left_out = firing.as_ref().map(left_out_of).unwrap_or_default();
        let trust = match &firing {
            Some(firing) => Some(self.trust(firing).await?),
            None => None,
        };
        let mut meta = SweepMeta {
            id: row.id.to_string(),
            project: row.project.clone(),
            revision: row.revision.clone(),
            started_at: row.created_at,
            finished_at: match state {
                SweepState::Running => None,
                _ => Some(row.finished_at.unwrap_or_else(now_micros)),
            },
            stopped: stopped(state, spent),
            framework: listing.as_ref().map(|listing| listing.framework_version.clone()),
            image: listing.as_ref().map(|listing| listing.image.clone()),
            command: listing.as_ref().map(|listing| listing.command.clone()),
            sandbox: Some(question.sandbox.word().to_owned()),
            trust,
            typed: context.typed,
            under: context.under,
            notes: left_out.into_iter().chain(of_listing).chain(of_workers).collect(),
            collection_errors: listing
                .map(|listing| listing.collection_errors)
                .unwrap_or_default()
                .into_iter()
                .map(|error| report::model::CollectionError { path: error.path, message: error.message })
                .collect(),
        };
        let held = self.fold(row, question).await?;
        let question = question.clone();
        let (_held, report) = compute(held, "building the report", move |memory| match memory {
            Some(memory) => {
                meta.notes.extend(memory.left_out.iter().cloned());
                report::build(meta, &memory.question, &memory.ledger, &memory.history)
            }
            None => report::build(meta, &question, &Ledger::new(Vec::new()), &History::default()),
        })
        .await?;
        Ok(report)
    }

    async fn store_report(&self, report: Report) -> Result<Digest, EngineError> {
        let packed = tokio::task::spawn_blocking(move || flakefarm_shared::blobs::encode(&report)).await;
        Ok(self.blobs.put(packed.map_err(|_| EngineError::Stopping)?).await?)
    }

    pub(super) async fn finish(
        &self,
        row: &SweepRow,
        question: &Question,
        state: SweepState,
        spent: Spent,
    ) -> Result<(), EngineError> {
        let report = self.build_report(row, question, &state, spent).await?;
        let finished_at = now_micros();
        self.record_findings(row, question, &report, finished_at).await?;
        if let Some(trust) = &report.sweep.trust {
            self.remember_trust(row, trust, finished_at).await?;
        }
        trace::tell(row, &state, Some(&report));
        // An interrupted sweep has no final report: it may go on.
        let digest = match &state {
            SweepState::Interrupted | SweepState::Running => None,
            SweepState::Answered | SweepState::Cancelled | SweepState::Failed(_) => {
                Some(self.store_report(report).await?)
            }
        };
        self.db.finish_sweep(row.id, &state, finished_at, digest.as_ref()).await?;
        if digest.is_some() {
            self.memories.forget(row.id);
        }
        SWEEPS_ENDED.count(&[state.word()]);
        info!(sweep.id = %row.id, sweep.state = state.word(), "sweep ended");
        self.wake_relay.notify_one();
        Ok(())
    }

    /// Ends a sweep that cannot go on, with a report if one can be built.
    pub(super) async fn fail(&self, sweep: SweepId, refusal: Refusal) -> Result<(), EngineError> {
        self.memories.forget(sweep);
        let state = SweepState::Failed(refusal);
        self.db.finish_sweep(sweep, &state, now_micros(), None).await?;
        SWEEPS_ENDED.count(&[state.word()]);
        if let Some(row) = self.db.sweep(sweep).await? {
            trace::tell(&row, &state, None);
        }
        self.db.cancel_jobs(sweep, now_micros()).await?;
        self.wake_relay.notify_one();
        self.tell_workers(sweep).await;
        Ok(())
    }

    /// Records what a sweep found, for those who ask later, and tells what is new of it.
    async fn record_findings(
        &self,
        row: &SweepRow,
        question: &Question,
        report: &Report,
        finished_at: UnixMicros,
    ) -> Result<(), EngineError> {
        // What is known already is nobody's history, and neither is what trees do that nobody has.
        if row.project == CONTROL || is_of_repair(&row.source) {
            return Ok(());
        }
        let Some(listing) = self.listing(row).await? else { return Ok(()) };
        let before = match question.kind {
            QuestionKind::Detect => self.db.last_verdicts(&row.project, row.id).await?,
            QuestionKind::Diagnose { .. } | QuestionKind::Bisect(_) | QuestionKind::Validate(_) => {
                HashMap::new()
            }
        };
        self.remember(row, &listing, report, finished_at).await?;
        self.quarantine_after(row, question, report, finished_at).await?;
        let changed = |test: &TestReport| {
            let id = TestId(test.id.clone());
            let (before, now) = (before.get(&id)?, test.verdict.word());
            (before != now).then(|| NewEvent {
                key: format!("verdict/{}/{}", row.id, Digest::of(test.id.as_bytes())),
                at: finished_at,
                project: Some(row.project.clone()),
                sweep: Some(row.id),
                event: Event::VerdictChanged {
                    sweep: row.id,
                    test: id,
                    before: before.clone(),
                    now: now.to_owned(),
                },
            })
        };
        let tests = report.tests.iter().filter(|test| test.subject == Subject::Test);
        let changes: Vec<NewEvent> = tests.filter_map(changed).take(CHANGES).collect();
        Ok(self.db.record_events(&changes).await?)
    }
}

fn stopped(state: &SweepState, spent: Spent) -> Option<Stopped> {
    match state {
        SweepState::Running => None,
        SweepState::Answered if spent == Spent::Everything => Some(Stopped::Budget),
        SweepState::Answered | SweepState::Failed(_) => Some(Stopped::Answered),
        SweepState::Interrupted | SweepState::Cancelled => Some(Stopped::Cancelled),
    }
}
