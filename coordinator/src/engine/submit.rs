//! A sweep begins: submitted, or taken up again after an interruption.

use super::{Coordinator, EngineError};
use crate::control::CONTROL;
use crate::db::{JobState, NewEvent, NewSweep, SweepState};
use crate::events::Event;
use crate::garbage::LEASE_MICROS;
use crate::plan::Question;
use flakefarm_shared::{Class, Digest, SweepContext, SweepId, WIRE_VERSION, now_micros};
use std::num::NonZeroU16;
use tracing::info;

/// What somebody asks of the farm.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Submission {
    /// How to run the project, and its snapshot.
    pub context: SweepContext,
    /// What is asked.
    pub question: Question,
    /// Which queue.
    pub class: Class,
    /// Where the project came from: the same source may resume an interrupted sweep.
    pub source: String,
}

/// A submission that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The snapshot was not uploaded.
    #[error("snapshot {0} is not in the blob store: upload it first")]
    NoSnapshot(Digest),
    /// Of another version.
    #[error("submission of version {0}, this coordinator reads version {WIRE_VERSION}")]
    Version(u32),
    /// In the name of the farm's own tests.
    #[error("the project name `{CONTROL}` is the farm's own")]
    Reserved,
    /// More than the operator allows.
    #[error(transparent)]
    Limit(#[from] super::LimitExceeded),
    /// More than the project may have.
    #[error(transparent)]
    Quota(#[from] super::QuotaExceeded),
    /// Ours failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Coordinator {
    /// Records a sweep; it is worked on from now on, by whoever runs the loops.
    pub async fn submit(&self, submission: &Submission) -> Result<SweepId, SubmitError> {
        let id = SweepId::new();
        self.submit_as(id, submission).await?;
        Ok(id)
    }

    /// The same under an id that the caller has derived, so that submitting twice makes one sweep.
    pub async fn submit_as(&self, id: SweepId, submission: &Submission) -> Result<(), SubmitError> {
        if self.db.sweep(id).await.map_err(EngineError::from)?.is_some() {
            return Ok(());
        }
        let context = &submission.context;
        if context.v != WIRE_VERSION {
            return Err(SubmitError::Version(context.v));
        }
        if context.project.name == CONTROL {
            return Err(SubmitError::Reserved);
        }
        self.limits.admit(&submission.question)?;
        self.may_queue(&context.project.name).await.map_err(EngineError::from)??;
        // From here on nobody collects it, until a row refers to it.
        let until = now_micros() + LEASE_MICROS;
        self.db.lease_blob(&context.snapshot, until).await.map_err(EngineError::from)?;
        if !self.blobs.contains(&context.snapshot).await.map_err(EngineError::from)? {
            return Err(SubmitError::NoSnapshot(context.snapshot.clone()));
        }
        self.charge(&context.project.name, &context.snapshot).await??;
        let context_digest = self.blobs.put_json(context).await.map_err(EngineError::from)?;
        let now = now_micros();
        let question = self.for_all_slots(submission.question.clone()).await?;
        let sweep = NewSweep {
            id,
            project: context.project.name.clone(),
            revision: context.revision.clone(),
            question: serde_json::to_string(&question).expect("a question serialises"),
            context: context_digest,
            class: submission.class,
            seed: submission.question.seed,
            source: submission.source.clone(),
            created_at: now,
        };
        self.begin(&sweep).await.map_err(EngineError::from)?;
        Ok(())
    }

    /// A question whose jobs are cut for all slots of the farm, if there are more than whoever asks reckons with.
    pub(super) async fn for_all_slots(&self, question: Question) -> Result<Question, EngineError> {
        let slots = u16::try_from(self.live_slots().await?).unwrap_or(u16::MAX);
        let workers = NonZeroU16::new(slots).map_or(question.workers, |slots| slots.max(question.workers));
        Ok(Question { workers, ..question })
    }

    /// Records a sweep whose context is stored already.
    pub(crate) async fn begin(&self, sweep: &NewSweep) -> Result<(), crate::db::DbError> {
        let id = sweep.id;
        self.take_up(id);
        self.db.create_sweep(sweep).await?;
        info!(sweep.id = %id, project = %sweep.project, "sweep submitted");
        self.wake.notify_one();
        // Others, who may be the ones that work on it, hear of it sooner by this; they look anyway.
        let submitted = NewEvent {
            key: format!("submitted/{id}"),
            at: sweep.created_at,
            project: Some(sweep.project.clone()),
            sweep: Some(id),
            event: Event::Submitted { sweep: id },
        };
        self.db.record_events(&[submitted]).await
    }

    /// Takes up an interrupted sweep where it stopped.
    pub async fn resume(&self, sweep: SweepId) -> Result<(), EngineError> {
        self.take_up(sweep);
        let running = self.db.sweep(sweep).await?.is_some_and(|row| matches!(row.state, SweepState::Running));
        if !running {
            self.db.resume_sweep(sweep).await?;
        }
        // Nobody holds its jobs any more if they were queued in a process that ended.
        let now = now_micros();
        if matches!(self.assignment, super::Assignment::OneSweep(_)) {
            for job in self.db.jobs(sweep).await? {
                if matches!(job.state, JobState::Queued { .. }) {
                    self.db.requeue_job(job.id, now, None).await?;
                }
            }
        }
        self.wake.notify_one();
        self.wake_outbox.notify_one();
        Ok(())
    }
}
