//! Schedules: what is due fires, once. One that was missed while no coordinator ran fires once when one
//! does; one whose last sweep still runs lets a firing pass. Sources of a git remote are fetched first
//! (`fetching.rs`); beside each sweep goes its control (`trusting.rs`).

use super::fetching::Fetches;
use super::git_source::GitSource;
use super::proposing::Proposing;
use super::trouble::Step;
use super::{Coordinator, EngineError, Submission};
use crate::db::{Fired, FiringRow, NewSweep, ScheduleRow, SweepState};
use crate::garbage::LEASE_MICROS;
use crate::plan;
use crate::schedule::{Rhythm, RhythmError};
use flakefarm_shared::{SweepContext, SweepId, UnixMicros, now_micros};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

/// How often schedules are polled.
const PAUSE: Duration = Duration::from_secs(1);

/// A schedule that somebody wants.
#[derive(Debug, Clone, Copy)]
pub struct WantedSchedule<'a> {
    /// Its name.
    pub name: &'a str,
    /// The cron expression.
    pub cron: &'a str,
    /// Its time zone.
    pub zone: &'a str,
    /// The sweep of each firing.
    pub submission: &'a Submission,
    /// Where its sources come from; none: the project's last uploaded snapshot.
    pub source: Option<&'a GitSource>,
    /// What opens that.
    pub secret: Option<&'a str>,
    /// Whether repairs are proposed for tests that its sweeps find newly flaky.
    pub proposes: bool,
}

/// How a schedule was fired by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FiredByHand {
    /// Its sweep is recorded.
    Fired(SweepId),
    /// Its source is fetched first; then it is this sweep.
    Fetching(SweepId),
    /// Not at all: its last sweep still runs, or its source is still being fetched.
    StillRuns,
}

/// Fires what is due, until `stop`. One coordinator does.
pub(super) async fn run(coordinator: Coordinator, stop: CancellationToken) {
    let (mut fetches, mut proposing) = (Fetches::new(), Proposing::default());
    loop {
        let fired = coordinator.fire_due(now_micros()).await;
        let begun = match fired {
            Ok(()) => fetches.begin(&coordinator, now_micros()).await,
            Err(error) => Err(error),
        };
        coordinator.note(Step::Scheduling, &begun);
        let proposed = coordinator.propose(&mut proposing).await;
        coordinator.note(Step::Proposing, &proposed);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = coordinator.wake_schedules.notified() => {}
            () = fetches.one_ends() => {}
            () = stop.cancelled() => break,
        }
    }
    fetches.end().await;
}

impl Coordinator {
    /// Fires all schedules that are due at `now`. The loop does so by the clock, while this coordinator leads.
    pub async fn fire_due(&self, now: UnixMicros) -> Result<(), EngineError> {
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
            let firing = FiringRow::fetching(schedule.id, id, due, now);
            let fired = if schedule.source.is_some() {
                self.give_up_open(&schedule, "the next firing came before it could be fetched", now).await?;
                self.db.fire_schedule(&firing, Some(next), &[], now).await?
            } else {
                let sweeps = match self.sweeps_of(&schedule, id, now).await? {
                    Ok(sweeps) => sweeps,
                    Err(error) => {
                        warn!(
                            schedule.name = schedule.name,
                            error, "a schedule cannot be submitted and is paused"
                        );
                        self.db.pause_schedule(schedule.id, Some(now), None).await?;
                        continue;
                    }
                };
                let control = sweeps.get(1).map(|control| control.id);
                self.db.fire_schedule(&firing.fired(now, control), Some(next), &sweeps, now).await?
            };
            if fired == Fired::Yes {
                info!(sweep.id = %id, schedule.name = schedule.name, "schedule fired");
                self.wake.notify_one();
            }
        }
        Ok(())
    }

    /// Fires a schedule now, whatever its rhythm.
    pub async fn run_schedule(&self, schedule: &ScheduleRow) -> Result<FiredByHand, EngineError> {
        let open = self.db.open_firings().await?;
        if self.is_running(schedule.last_sweep).await? || open.iter().any(|one| one.schedule == schedule.id) {
            return Ok(FiredByHand::StillRuns);
        }
        let now = now_micros();
        let id = SweepId::new();
        let firing = FiringRow::fetching(schedule.id, id, now, now);
        if schedule.source.is_some() {
            self.db.fire_schedule(&firing, None, &[], now).await?;
            self.wake_schedules.notify_one();
            return Ok(FiredByHand::Fetching(id));
        }
        let sweeps = match self.sweeps_of(schedule, id, now).await? {
            Ok(sweeps) => sweeps,
            Err(error) => {
                return Err(EngineError::unusable("the schedule cannot be read".to_owned(), &error));
            }
        };
        let control = sweeps.get(1).map(|control| control.id);
        self.db.fire_schedule(&firing.fired(now, control), None, &sweeps, now).await?;
        self.wake.notify_one();
        Ok(FiredByHand::Fired(id))
    }

    /// Adds a schedule, or replaces the one of its project and name.
    pub async fn put_schedule(
        &self,
        wanted: WantedSchedule<'_>,
    ) -> Result<Result<(), RhythmError>, EngineError> {
        let now = now_micros();
        let next = match Rhythm::parse(wanted.cron, wanted.zone) {
            Ok(rhythm) => match rhythm.next_after(now) {
                Some(next) => next,
                None => return Ok(Err(RhythmError::Never(wanted.cron.to_owned()))),
            },
            Err(error) => return Ok(Err(error)),
        };
        let source = wanted.source.map(|source| serde_json::to_string(source).expect("a source serialises"));
        let schedule = ScheduleRow {
            id: Uuid::now_v7(),
            project: wanted.submission.context.project.name.clone(),
            name: wanted.name.to_owned(),
            cron: wanted.cron.to_owned(),
            zone: wanted.zone.to_owned(),
            submission: serde_json::to_string(wanted.submission).expect("a submission serialises"),
            created_at: now,
            next_at: Some(next),
            paused_at: None,
            last_at: None,
            last_sweep: None,
            skipped_at: None,
            source,
            secret: wanted.secret.map(str::to_owned),
            proposes: wanted.proposes,
        };
        self.db.put_schedule(&schedule).await?;
        Ok(Ok(()))
    }

    /// What of a schedule is still to be fetched gets no sweep any more.
    async fn give_up_open(
        &self,
        schedule: &ScheduleRow,
        why: &str,
        now: UnixMicros,
    ) -> Result<(), EngineError> {
        for open in self.db.open_firings().await? {
            if open.schedule == schedule.id {
                let words =
                    open.words.as_ref().map_or_else(|| why.to_owned(), |last| format!("{why}; {last}"));
                self.give_up(schedule, &open, &words, now).await?;
            }
        }
        Ok(())
    }

    async fn is_running(&self, sweep: Option<Uuid>) -> Result<bool, EngineError> {
        let Some(sweep) = sweep else { return Ok(false) };
        let row = self.db.sweep(SweepId(sweep)).await?;
        Ok(row.is_some_and(|row| matches!(row.state, SweepState::Running)))
    }

    /// The sweep of one firing, of the project's last uploaded snapshot, and its control.
    async fn sweeps_of(
        &self,
        schedule: &ScheduleRow,
        id: SweepId,
        now: UnixMicros,
    ) -> Result<Result<Vec<NewSweep>, String>, EngineError> {
        let mut submission: Submission = match serde_json::from_str(&schedule.submission) {
            Ok(submission) => submission,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if let Some(latest) = self.db.latest_sweep(&schedule.project).await?
            && latest.created_at > schedule.created_at
        {
            let latest = self.context(&latest).await?;
            submission.context.snapshot = latest.snapshot;
            submission.context.revision = latest.revision;
        }
        Ok(Ok(self.sweeps_with_control(schedule, submission, id, now).await?))
    }

    /// The sweep of a submission with a seed of its own, and its control.
    pub(super) async fn sweeps_with_control(
        &self,
        schedule: &ScheduleRow,
        submission: Submission,
        id: SweepId,
        now: UnixMicros,
    ) -> Result<Vec<NewSweep>, EngineError> {
        let Submission { context, mut question, class, source } = submission;
        question.seed = id.0.as_u64_pair().0 ^ id.0.as_u64_pair().1;
        plan::turn(&mut question.panel, now);
        let question = self.for_all_slots(question).await?;
        let sweep = NewSweep {
            id,
            project: schedule.project.clone(),
            revision: context.revision.clone(),
            question: serde_json::to_string(&question).expect("a question serialises"),
            context: self.kept(&context, now).await?,
            class,
            seed: question.seed,
            source,
            created_at: now,
        };
        let control = self.control_of(&sweep, &context, &question, now).await?;
        Ok(std::iter::once(sweep).chain(control).collect())
    }

    /// Stores a context; nobody collects it or its snapshot until a row refers to them.
    pub(super) async fn kept(
        &self,
        context: &SweepContext,
        now: UnixMicros,
    ) -> Result<flakefarm_shared::Digest, EngineError> {
        self.db.lease_blob(&context.snapshot, now_micros().max(now) + LEASE_MICROS).await?;
        Ok(self.blobs.put_json(context).await?)
    }
}
