//! Schedules: what is due fires, once. One that was missed while no coordinator ran fires once when one
//! does; one whose last sweep still runs lets a firing pass.

use super::trouble::Step;
use super::{Coordinator, EngineError, Submission};
use crate::db::{Fired, NewSweep, ScheduleRow, SweepState};
use crate::plan;
use crate::schedule::{Rhythm, RhythmError};
use flakefarm_shared::{SweepId, UnixMicros, now_micros};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

/// How often schedules are polled.
const PAUSE: Duration = Duration::from_secs(1);

/// Fires what is due, until `stop`. One coordinator does.
pub(super) async fn run(coordinator: Coordinator, stop: CancellationToken) {
    loop {
        let fired = coordinator.fire_due(now_micros()).await;
        coordinator.note(Step::Scheduling, &fired);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return,
        }
    }
}

impl Coordinator {
    /// Fires all schedules that are due at `now`.
    pub(super) async fn fire_due(&self, now: UnixMicros) -> Result<(), EngineError> {
        for schedule in self.db.due_schedules(now).await? {
            let Some(due) = schedule.next_at else { continue };
            let next = match Rhythm::parse(&schedule.cron, &schedule.zone) {
                // From now on: what was missed several times is made up for once.
                Ok(rhythm) => rhythm.next_after(now.max(due)),
                Err(error) => {
                    // Another version of this program, or of the zones, could read it.
                    warn!(schedule.name = schedule.name, error = %error, "a schedule cannot be read and is paused");
                    self.db.pause_schedule(schedule.id, Some(now), None).await?;
                    continue;
                }
            };
            if self.is_running(schedule.last_sweep).await? {
                info!(
                    schedule.name = schedule.name,
                    "the schedule's last sweep still runs: this firing passes"
                );
                self.db.skip_schedule(schedule.id, due, next, now).await?;
                continue;
            }
            // Derived, so that firing the same time twice makes one sweep.
            let id = SweepId(Uuid::new_v5(&schedule.id, &due.to_be_bytes()));
            let sweep = match self.sweep_of(&schedule, id, now).await? {
                Ok(sweep) => sweep,
                Err(error) => {
                    warn!(
                        schedule.name = schedule.name,
                        error, "a schedule cannot be submitted and is paused"
                    );
                    self.db.pause_schedule(schedule.id, Some(now), None).await?;
                    continue;
                }
            };
            if self.db.fire_schedule(schedule.id, due, next, &sweep).await? == Fired::Yes {
                info!(sweep.id = %id, schedule.name = schedule.name, "schedule fired");
                self.wake.notify_one();
            }
        }
        Ok(())
    }

    /// Fires a schedule now, whatever its rhythm; none if its last sweep still runs.
    pub async fn run_schedule(&self, schedule: &ScheduleRow) -> Result<Option<SweepId>, EngineError> {
        if self.is_running(schedule.last_sweep).await? {
            return Ok(None);
        }
        let now = now_micros();
        let id = SweepId::new();
        let sweep = match self.sweep_of(schedule, id, now).await? {
            Ok(sweep) => sweep,
            Err(error) => {
                return Err(EngineError::unusable("the schedule cannot be read".to_owned(), &error));
            }
        };
        self.db.create_sweep(&sweep).await?;
        self.db.note_firing(schedule.id, id, now).await?;
        self.wake.notify_one();
        Ok(Some(id))
    }

    /// Adds a schedule, or replaces the one of its project and name.
    pub async fn put_schedule(
        &self,
        name: &str,
        cron: &str,
        zone: &str,
        submission: &Submission,
    ) -> Result<Result<(), RhythmError>, EngineError> {
        let now = now_micros();
        let next = match Rhythm::parse(cron, zone) {
            Ok(rhythm) => match rhythm.next_after(now) {
                Some(next) => next,
                None => return Ok(Err(RhythmError::Never(cron.to_owned()))),
            },
            Err(error) => return Ok(Err(error)),
        };
        let schedule = ScheduleRow {
            id: Uuid::now_v7(),
            project: submission.context.project.name.clone(),
            name: name.to_owned(),
            cron: cron.to_owned(),
            zone: zone.to_owned(),
            submission: serde_json::to_string(submission).expect("a submission serialises"),
            created_at: now,
            next_at: Some(next),
            paused_at: None,
            last_at: None,
            last_sweep: None,
            skipped_at: None,
        };
        self.db.put_schedule(&schedule).await?;
        Ok(Ok(()))
    }

    async fn is_running(&self, sweep: Option<Uuid>) -> Result<bool, EngineError> {
        let Some(sweep) = sweep else { return Ok(false) };
        let row = self.db.sweep(SweepId(sweep)).await?;
        Ok(row.is_some_and(|row| matches!(row.state, SweepState::Running)))
    }

    /// The sweep of one firing: of the project's last uploaded snapshot, with a seed of its own.
    async fn sweep_of(
        &self,
        schedule: &ScheduleRow,
        id: SweepId,
        now: UnixMicros,
    ) -> Result<Result<NewSweep, String>, EngineError> {
        let submission: Submission = match serde_json::from_str(&schedule.submission) {
            Ok(submission) => submission,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let Submission { mut context, mut question, class, source } = submission;
        if let Some(latest) = self.db.latest_sweep(&schedule.project).await?
            && latest.created_at > schedule.created_at
        {
            let latest = self.context(&latest).await?;
            context.snapshot = latest.snapshot;
            context.revision = latest.revision;
        }
        question.seed = id.0.as_u64_pair().0 ^ id.0.as_u64_pair().1;
        plan::turn(&mut question.panel, now);
        Ok(Ok(NewSweep {
            id,
            project: schedule.project.clone(),
            revision: context.revision.clone(),
            question: serde_json::to_string(&question).expect("a question serialises"),
            context: self.blobs.put_json(&context).await?,
            class,
            seed: question.seed,
            source,
            created_at: now,
        }))
    }
}
