//! Sources of schedules that a git remote keeps. Fetching takes time and fails for reasons of others: it
//! goes on beside everything else, few at once, is tried again a few times, and what it cannot do costs
//! its own firing alone.

use super::beside::Beside;
use super::git_source::GitSource;
use super::{Coordinator, EngineError, Submission};
use crate::db::{FiringRow, NewEvent, ScheduleRow};
use crate::events::Event;
use flakefarm_project::fetch::{self, Credentials, FetchError, Fetched};
use flakefarm_shared::{Digest, SweepId, UnixMicros, now_micros};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tracing::{info, warn};
use uuid::Uuid;

/// Fetched at the same time.
const AT_ONCE: usize = 2;
/// Tries of one firing.
const TRIES: i64 = 6;
/// Before the second try; twice as long before each one after.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// What asking a remote may take while somebody waits.
const ASKING: Duration = Duration::from_secs(20);

/// What is being fetched, by its firing's sweep.
#[derive(Debug)]
pub(super) struct Fetches {
    under_way: Beside<Uuid>,
    stop: Arc<AtomicBool>,
}

impl Fetches {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { under_way: Beside::new("fetching"), stop: Arc::default() }
    }

    /// Begins what is due at `now`, as far as there is room.
    pub(super) async fn begin(
        &mut self,
        coordinator: &Coordinator,
        now: UnixMicros,
    ) -> Result<(), EngineError> {
        for firing in coordinator.db.open_firings().await? {
            let is_due = firing.next_at.is_some_and(|at| at <= now);
            if !is_due || !self.has_room_for(firing.sweep) {
                continue;
            }
            let (coordinator, stop, sweep) = (coordinator.clone(), self.stop.clone(), firing.sweep);
            self.under_way.begin(sweep, async move {
                if let Err(error) = coordinator.fetch_firing(&firing, stop).await {
                    // It stays open, and is tried again.
                    warn!(sweep.id = %firing.sweep, error = flakefarm_shared::chain(&error), "a firing could not go on");
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
            });
        }
        Ok(())
    }

    fn has_room_for(&mut self, wanted: Uuid) -> bool {
        let mut others = self.under_way.each();
        others.len() < AT_ONCE && others.all(|sweep| *sweep != wanted)
    }

    /// Waits until one of them ends; for ever if there is none.
    pub(super) async fn one_ends(&mut self) {
        self.under_way.one_ends().await;
    }

    /// Leaves what is under way, which somebody else takes up.
    pub(super) async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.under_way.all_end().await;
    }
}

impl Coordinator {
    /// Fetches the source of a firing, and records its sweeps.
    pub(super) async fn fetch_firing(
        &self,
        firing: &FiringRow,
        stop: Arc<AtomicBool>,
    ) -> Result<(), EngineError> {
        let Some(schedule) = self.db.schedule(firing.schedule).await? else { return Ok(()) };
        let source = schedule.source.as_deref().map(serde_json::from_str::<GitSource>);
        let submission = serde_json::from_str::<Submission>(&schedule.submission);
        let (source, submission) = match (source, submission) {
            (Some(Ok(source)), Ok(submission)) => (source, submission),
            _ => return self.give_up(&schedule, firing, "the schedule cannot be read", now_micros()).await,
        };
        let limits = self.fetching.limits;
        let secret = schedule.secret.clone();
        let remote = source.remote.clone();
        let work = move || {
            let credentials = credentials(secret.as_deref());
            fetch::fetch(&remote, credentials.as_ref(), limits, &stop)
        };
        let fetched = match self.fetching.allows(&source) {
            true => tokio::task::spawn_blocking(work).await.map_err(|_| EngineError::Stopping)?,
            false => return self.give_up(&schedule, firing, &not_allowed(&source), now_micros()).await,
        };
        match fetched {
            Ok(fetched) => self.take_fetched(&schedule, &source, firing, submission, fetched).await,
            // Nothing was wrong with it.
            Err(FetchError::Stopped) => Ok(()),
            Err(error) => self.in_vain(&schedule, firing, &error).await,
        }
    }

    async fn take_fetched(
        &self,
        schedule: &ScheduleRow,
        source: &GitSource,
        firing: &FiringRow,
        mut submission: Submission,
        fetched: Fetched,
    ) -> Result<(), EngineError> {
        let now = now_micros();
        let mut notes = fetched.archive.warnings;
        let configuration = fetched.configuration.as_deref().map(|text| Digest::of(text).to_string());
        if configuration != source.configuration {
            notes.push(format!(
                "flakefarm.toml is another than when the schedule was added, and this sweep runs as it said \
                 then: `flakefarm schedule add {}` takes it over",
                schedule.name
            ));
        }
        submission.context.snapshot = self.blobs.put(fetched.archive.bytes).await?;
        submission.context.revision = Some(fetched.commit.clone());
        if let Err(exceeded) = self.charge(&schedule.project, &submission.context.snapshot).await? {
            let words = format!("{exceeded} ({})", exceeded.hint());
            return self.give_up(schedule, firing, &words, now).await;
        }
        let id = SweepId(firing.sweep);
        let sweeps = self.sweeps_with_control(schedule, submission, id, now).await?;
        let firing = FiringRow { control: sweeps.get(1).map(|control| control.id.0), ..firing.clone() };
        self.db.firing_fetched(&firing, &notes, &sweeps, now).await?;
        info!(sweep.id = %id, schedule.name = schedule.name, revision = fetched.commit, "fetched");
        self.wake.notify_one();
        Ok(())
    }

    async fn in_vain(
        &self,
        schedule: &ScheduleRow,
        firing: &FiringRow,
        error: &FetchError,
    ) -> Result<(), EngineError> {
        let now = now_micros();
        let words = format!("{error} ({})", error.hint());
        if !error.may_pass() || firing.tries + 1 >= TRIES {
            return self.give_up(schedule, firing, &words, now).await;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << firing.tries.clamp(0, 10));
        let next = now + i64::try_from(pause.as_micros()).unwrap_or(i64::MAX / 2);
        warn!(
            schedule.name = schedule.name,
            tries = firing.tries + 1,
            error = words,
            "not fetched, and tried again"
        );
        Ok(self.db.firing_in_vain(firing.sweep, &words, Some(next), now).await?)
    }

    /// Ends a firing without a sweep, and says so.
    pub(super) async fn give_up(
        &self,
        schedule: &ScheduleRow,
        firing: &FiringRow,
        words: &str,
        now: UnixMicros,
    ) -> Result<(), EngineError> {
        warn!(schedule.name = schedule.name, error = words, "a firing has no sweep");
        // Told first: it is told once, and then given up.
        let event = NewEvent {
            key: format!("firing/{}", firing.sweep),
            at: now,
            project: Some(schedule.project.clone()),
            sweep: None,
            event: Event::FiringFailed { schedule: schedule.name.clone(), why: words.to_owned() },
        };
        self.db.record_events(&[event]).await?;
        self.db.firing_in_vain(firing.sweep, words, None, now).await?;
        self.wake_relay.notify_one();
        Ok(())
    }

    /// Asks a remote whether it has what a schedule is to fetch; what is wrong, and what to do about it.
    pub async fn ask_source(
        &self,
        source: &GitSource,
        secret: Option<&str>,
    ) -> Result<Result<(), (String, String)>, EngineError> {
        if let Err(error) = source.remote.checked() {
            return Ok(Err((error.to_string(), error.hint().to_owned())));
        }
        if !self.fetching.allows(source) {
            let hint = "the coordinator's --git-hosts names those that are".to_owned();
            return Ok(Err((not_allowed(source), hint)));
        }
        if let Some(Err(error)) = secret.map(Credentials::parse) {
            return Ok(Err((error.to_string(), error.hint().to_owned())));
        }
        let (remote, secret) = (source.remote.clone(), secret.map(str::to_owned));
        let mut limits = self.fetching.limits;
        limits.time = limits.time.min(ASKING);
        let asked = tokio::task::spawn_blocking(move || {
            fetch::ask(&remote, credentials(secret.as_deref()).as_ref(), limits, &AtomicBool::new(false))
        });
        let asked = asked.await.map_err(|_| EngineError::Stopping)?;
        Ok(asked.map(|_| ()).map_err(|error| (error.to_string(), error.hint().to_owned())))
    }
}

/// They were read when the schedule was added.
fn credentials(secret: Option<&str>) -> Option<Credentials> {
    secret.and_then(|secret| Credentials::parse(secret).ok())
}

fn not_allowed(source: &GitSource) -> String {
    format!("nothing is fetched from {} here", source.remote.host().unwrap_or_default())
}
