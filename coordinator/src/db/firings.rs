//! Firings of schedules. One and its sweeps are one transaction, so that neither a crash nor a second
//! coordinator makes two of one or none.

use super::raw::clean;
use super::rows::NewSweep;
use super::schedules::ScheduleRow;
use super::{Db, DbError, change, postgres, read};
use flakefarm_shared::{SweepId, UnixMicros};
use uuid::Uuid;

/// How long firings are remembered.
const KEPT_MICROS: i64 = 400 * 86_400_000_000;

/// How far a firing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FiringState {
    /// Its source is to be fetched.
    Fetching,
    /// Its sweep is recorded.
    Fired,
    /// It has no sweep, and gets none.
    Failed,
}

impl FiringState {
    /// Its word, in the database and for clients.
    pub fn word(self) -> &'static str {
        match self {
            FiringState::Fetching => "fetching",
            FiringState::Fired => "fired",
            FiringState::Failed => "failed",
        }
    }
}

/// A firing of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct FiringRow {
    /// The sweep that it makes.
    pub sweep: Uuid,
    /// Whose it is.
    pub schedule: Uuid,
    /// The time that it is for.
    pub due: UnixMicros,
    /// The word of a [`FiringState`].
    pub state: String,
    /// Tries to fetch its source that were in vain.
    pub tries: i64,
    /// When that is tried next.
    pub next_at: Option<UnixMicros>,
    /// When it was fired, or given up.
    pub ended_at: Option<UnixMicros>,
    /// The revision that was fetched.
    pub revision: Option<String>,
    /// Why the last try was in vain.
    pub words: Option<String>,
    /// What was left out of the sources: a list of texts, as JSON.
    pub notes: Option<String>,
    /// The sweep of known tests beside it.
    pub control: Option<Uuid>,
    /// What that said of the farm, as JSON.
    pub trust: Option<String>,
}

impl FiringRow {
    /// One that is to begin at `now` with fetching.
    pub fn fetching(schedule: Uuid, sweep: SweepId, due: UnixMicros, now: UnixMicros) -> Self {
        Self {
            sweep: sweep.0,
            schedule,
            due,
            state: FiringState::Fetching.word().to_owned(),
            tries: 0,
            next_at: Some(now),
            ended_at: None,
            revision: None,
            words: None,
            notes: None,
            control: None,
            trust: None,
        }
    }

    /// The same with its sweep.
    pub fn fired(self, now: UnixMicros, control: Option<SweepId>) -> Self {
        let state = FiringState::Fired.word().to_owned();
        Self { state, next_at: None, ended_at: Some(now), control: control.map(|id| id.0), ..self }
    }

    /// Whether it is in a state.
    pub fn is(&self, state: FiringState) -> bool {
        self.state == state.word()
    }
}

/// Whether a firing took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fired {
    /// It is recorded, with its sweeps.
    Yes,
    /// Somebody else took it, or the schedule was changed meanwhile.
    No,
}

const CLAIM: &str = "UPDATE schedules SET next_at = $3, last_at = $4, last_sweep = COALESCE($5, last_sweep)
                     WHERE id = $1 AND next_at = $2 AND paused_at IS NULL";
const NOTE: &str = "UPDATE schedules SET last_at = $2, last_sweep = COALESCE($3, last_sweep) WHERE id = $1";
const FIRING: &str = "INSERT INTO firings (sweep, schedule, due, state, tries, next_at, ended_at, control)
                      VALUES ($1, $2, $3, $4, 0, $5, $6, $7)";
const FORGET: &str = "DELETE FROM firings WHERE schedule = $1 AND due < $2";
const FETCHED: &str = "UPDATE firings SET state = 'fired', next_at = NULL, words = NULL, ended_at = $2,
                           revision = $3, notes = $4, control = $5
                       WHERE sweep = $1 AND state = 'fetching'";
const LAST: &str = "UPDATE schedules SET last_sweep = $2 WHERE id = $1";
const SWEEP: &str =
    "INSERT INTO sweeps (id, project, revision, question, context, class, seed, source, created_at, state)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'running') ON CONFLICT (id) DO NOTHING";

/// The new sweep's statement, with its values.
macro_rules! insert_sweep {
    ($transaction:expr, $sweep:expr) => {
        sqlx::query(SWEEP)
            .bind($sweep.id.0)
            .bind(clean(&$sweep.project))
            .bind($sweep.revision.as_deref().map(clean))
            .bind(clean(&$sweep.question))
            .bind($sweep.context.as_str())
            .bind($sweep.class.word())
            .bind($sweep.seed.cast_signed())
            .bind(clean(&$sweep.source))
            .bind($sweep.created_at)
            .execute(&mut *$transaction)
            .await
    };
}

/// The body of a transaction of one or the other database: `$work` as statements over `$transaction`, that
/// may give up with `Fired::No`.
macro_rules! transaction {
    ($db:expr, $action:literal, |$transaction:ident| $work:block) => {
        match $db {
            Db::Sqlite(store) => {
                async {
                    let mut $transaction = store.begin().await?;
                    $work
                    $transaction.commit().await?;
                    Ok(Fired::Yes)
                }
                .await
            }
            Db::Postgres(store) => {
                postgres::in_time(async {
                    let mut $transaction = store.begin().await?;
                    $work
                    $transaction.commit().await?;
                    Ok(Fired::Yes)
                })
                .await
            }
        }
        .map_err(|source| DbError::from_driver($action, source))
    };
}

impl Db {
    /// Records a firing of a schedule with its sweeps, the first of which is the schedule's. One of its
    /// own times moves it on to `next`; none records a firing beside its rhythm.
    pub async fn fire_schedule(
        &self,
        firing: &FiringRow,
        next: Option<Option<UnixMicros>>,
        sweeps: &[NewSweep],
        now: UnixMicros,
    ) -> Result<Fired, DbError> {
        let schedule = firing.schedule;
        let last = sweeps.first().map(|sweep| sweep.id.0);
        transaction!(self, "fire a schedule", |transaction| {
            let claimed = match next {
                Some(next) => {
                    let claim = sqlx::query(CLAIM).bind(schedule).bind(firing.due).bind(next).bind(now);
                    claim.bind(last).execute(&mut *transaction).await?.rows_affected()
                }
                None => {
                    let note = sqlx::query(NOTE).bind(schedule).bind(now).bind(last);
                    note.execute(&mut *transaction).await?.rows_affected()
                }
            };
            if claimed == 0 {
                return Ok(Fired::No);
            }
            let insert = sqlx::query(FIRING).bind(firing.sweep).bind(schedule).bind(firing.due);
            let insert = insert.bind(&firing.state).bind(firing.next_at).bind(firing.ended_at);
            insert.bind(firing.control).execute(&mut *transaction).await?;
            for sweep in sweeps {
                insert_sweep!(transaction, sweep)?;
            }
            let forget = sqlx::query(FORGET).bind(schedule).bind(now - KEPT_MICROS);
            forget.execute(&mut *transaction).await?;
        })
    }

    /// Records that a firing's source was fetched, with its sweeps.
    pub async fn firing_fetched(
        &self,
        firing: &FiringRow,
        notes: &[String],
        sweeps: &[NewSweep],
        now: UnixMicros,
    ) -> Result<Fired, DbError> {
        let revision = sweeps.first().and_then(|sweep| sweep.revision.clone());
        let notes = (!notes.is_empty())
            .then(|| clean(&serde_json::to_string(notes).expect("a list of texts serialises")));
        transaction!(self, "record what was fetched", |transaction| {
            let fetched = sqlx::query(FETCHED).bind(firing.sweep).bind(now).bind(&revision);
            let fetched = fetched.bind(&notes).bind(firing.control);
            if fetched.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(Fired::No);
            }
            let last = sqlx::query(LAST).bind(firing.schedule).bind(firing.sweep);
            last.execute(&mut *transaction).await?;
            for sweep in sweeps {
                insert_sweep!(transaction, sweep)?;
            }
        })
    }

    /// Records that fetching was in vain; it is tried again at `next`, or never.
    pub async fn firing_in_vain(
        &self,
        sweep: Uuid,
        words: &str,
        next: Option<UnixMicros>,
        now: UnixMicros,
    ) -> Result<(), DbError> {
        let query = "UPDATE firings SET tries = tries + 1, words = $2, next_at = $3,
                         state = CASE WHEN $4 = 0 THEN 'failed' ELSE state END,
                         ended_at = CASE WHEN $4 = 0 THEN $5 ELSE ended_at END
                     WHERE sweep = $1 AND state = 'fetching'";
        let again = i64::from(next.is_some());
        change!(
            self,
            "record what was not fetched",
            sqlx::query(query).bind(sweep).bind(clean(words)).bind(next).bind(again).bind(now)
        )?;
        Ok(())
    }

    /// Records what a firing's control said of the farm.
    pub async fn set_trust(&self, sweep: SweepId, trust: &str) -> Result<(), DbError> {
        let query = "UPDATE firings SET trust = $2 WHERE sweep = $1";
        change!(
            self,
            "record whether a farm is trusted",
            sqlx::query(query).bind(sweep.0).bind(clean(trust))
        )?;
        Ok(())
    }

    /// Firings whose source is still to be fetched, the longest due first.
    pub async fn open_firings(&self) -> Result<Vec<FiringRow>, DbError> {
        let query = "SELECT * FROM firings WHERE state = 'fetching' ORDER BY next_at, sweep";
        read!(self, "read open firings", fetch_all, sqlx::query_as(query))
    }

    /// The firing that made a sweep.
    pub async fn firing(&self, sweep: SweepId) -> Result<Option<FiringRow>, DbError> {
        let query = "SELECT * FROM firings WHERE sweep = $1";
        read!(self, "read a firing", fetch_optional, sqlx::query_as(query).bind(sweep.0))
    }

    /// A schedule's firings, the latest first.
    pub async fn firings(&self, schedule: Uuid, limit: u32) -> Result<Vec<FiringRow>, DbError> {
        let query = "SELECT * FROM firings WHERE schedule = $1 ORDER BY due DESC LIMIT $2";
        read!(self, "read firings", fetch_all, sqlx::query_as(query).bind(schedule).bind(i64::from(limit)))
    }

    /// The schedule that a sweep was made by, if one was.
    pub async fn schedule_of(&self, sweep: SweepId) -> Result<Option<ScheduleRow>, DbError> {
        let query = "SELECT schedules.* FROM schedules JOIN firings ON firings.schedule = schedules.id
                     WHERE firings.sweep = $1";
        read!(self, "read whose a sweep is", fetch_optional, sqlx::query_as(query).bind(sweep.0))
    }
}
