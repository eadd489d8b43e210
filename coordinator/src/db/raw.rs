//! Rows as the drivers read them, and their way to and from the types of [`super::rows`].

use super::error::DbError;
use super::rows::{
    HistoryRow, JobRow, JobState, ParkedRow, ProjectRow, RunRow, Settlement, SweepRow, SweepState, TestRow,
    TokenRow, VerdictRow, WorkerRow,
};
use crate::plan::PastRun;
use flakefarm_shared::{Class, JobId, RunOrigin, SweepId, TestId, TreatmentClass, WorkerId};
use sha2::{Digest as _, Sha256};
use std::fmt::Display;
use std::str::FromStr;
use uuid::Uuid;

/// A test to be noted, as both databases write it.
pub(super) struct Noted {
    pub(super) subject: Vec<u8>,
    pub(super) test: String,
    pub(super) parts: Option<String>,
}

/// Text as both databases can hold it.
pub(super) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The name of a test of a project in the index.
pub(super) fn subject(project: &str, test: &str) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update((project.len() as u64).to_be_bytes());
    hash.update(project);
    hash.update(test);
    hash.finalize().to_vec()
}

/// As JSON, in which control characters are escaped.
pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("wire types serialise")
}

fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, DbError> {
    serde_json::from_str(text).map_err(|error| DbError::Damaged(format!("{what}: {error}")))
}

fn parsed<T: FromStr<Err: Display>>(what: &str, text: &str) -> Result<T, DbError> {
    text.parse().map_err(|error| DbError::Damaged(format!("{what}: {error}")))
}

fn count<T: TryFrom<i64>>(what: &str, number: i64) -> Result<T, DbError> {
    T::try_from(number).map_err(|_| DbError::Damaged(format!("{what}: {number} is out of range")))
}

fn class(word: &str) -> Result<Class, DbError> {
    let known = Class::ALL.into_iter().find(|class| class.word() == word);
    known.ok_or_else(|| DbError::Damaged(format!("class: `{word}`")))
}

fn treatment_class(word: &str) -> Result<TreatmentClass, DbError> {
    TreatmentClass::of_word(word).ok_or_else(|| DbError::Damaged(format!("treatment class: `{word}`")))
}

fn present<T>(what: &str, value: Option<T>) -> Result<T, DbError> {
    value.ok_or_else(|| DbError::Damaged(format!("{what} is missing")))
}

#[derive(sqlx::FromRow)]
pub(super) struct RawSweep {
    id: Uuid,
    project: String,
    revision: Option<String>,
    question: String,
    context: String,
    class: String,
    seed: i64,
    source: String,
    created_at: i64,
    state: String,
    refusal: Option<String>,
    listing: Option<String>,
    report: Option<String>,
    finished_at: Option<i64>,
}

impl TryFrom<RawSweep> for SweepRow {
    type Error = DbError;

    fn try_from(raw: RawSweep) -> Result<Self, DbError> {
        let state = match raw.state.as_str() {
            "running" => SweepState::Running,
            "answered" => SweepState::Answered,
            "interrupted" => SweepState::Interrupted,
            "cancelled" => SweepState::Cancelled,
            "failed" => {
                SweepState::Failed(from_json("refusal", &present("refusal of a failed sweep", raw.refusal)?)?)
            }
            other => return Err(DbError::Damaged(format!("state of a sweep: `{other}`"))),
        };
        Ok(Self {
            id: SweepId(raw.id),
            project: raw.project,
            revision: raw.revision,
            question: raw.question,
            context: parsed("context", &raw.context)?,
            class: class(&raw.class)?,
            seed: raw.seed.cast_unsigned(),
            source: raw.source,
            created_at: raw.created_at,
            state,
            listing: raw.listing.map(|text| parsed("listing", &text)).transpose()?,
            report: raw.report.map(|text| parsed("report", &text)).transpose()?,
            finished_at: raw.finished_at,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct RawJob {
    id: Uuid,
    sweep: Uuid,
    job_key: String,
    class: String,
    spec: String,
    attempts: i64,
    created_at: i64,
    state: String,
    available_at: i64,
    publications: i64,
    infra_failures: i64,
    last_error: Option<String>,
    queued_at: Option<i64>,
    worker: Option<String>,
    last_news: Option<i64>,
    settlement: Option<String>,
    settled_at: Option<i64>,
    begun: i64,
    lost_leases: i64,
    made: Option<String>,
    again: i64,
    taken: i64,
}

impl TryFrom<RawJob> for JobRow {
    type Error = DbError;

    fn try_from(raw: RawJob) -> Result<Self, DbError> {
        let publications = count("publications", raw.publications)?;
        let begun: u32 = count("publications begun", raw.begun)?;
        let state = match raw.state.as_str() {
            "pending" => JobState::Pending { available_at: raw.available_at },
            "queued" => JobState::Queued {
                publication: publications,
                since: present("time of publication", raw.queued_at)?,
                worker: raw.worker.map(WorkerId),
                last_news: present("time of the last news", raw.last_news)?,
            },
            "settled" => {
                let settlement: Settlement =
                    from_json("settlement", &present("settlement of a settled job", raw.settlement)?)?;
                JobState::Settled { settlement, at: present("time of settlement", raw.settled_at)? }
            }
            other => return Err(DbError::Damaged(format!("state of a job: `{other}`"))),
        };
        Ok(Self {
            id: JobId(raw.id),
            sweep: SweepId(raw.sweep),
            key: raw.job_key,
            class: class(&raw.class)?,
            spec: parsed("spec", &raw.spec)?,
            attempts: count("attempts", raw.attempts)?,
            created_at: raw.created_at,
            state,
            publications,
            infra_failures: count("infrastructure failures", raw.infra_failures)?,
            last_error: raw.last_error,
            begun: begun.max(publications),
            lost_leases: count("lost leases", raw.lost_leases)?,
            made: raw.made.map(|text| parsed("what was made", &text)).transpose()?,
            again: count("times made again", raw.again)?,
            taken: count("deliveries that a worker had", raw.taken)?,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct RawVerdict {
    sweep: Uuid,
    revision: Option<String>,
    run_class: Option<String>,
    project: String,
    test: String,
    verdict: String,
    attempts: i64,
    failures: i64,
    estimate: f64,
    lower: f64,
    upper: f64,
    score: f64,
    p50_ms: f64,
    finished_at: i64,
    fingerprint: Option<String>,
}

impl TryFrom<RawVerdict> for HistoryRow {
    type Error = DbError;

    fn try_from(raw: RawVerdict) -> Result<Self, DbError> {
        Ok(Self {
            sweep: SweepId(raw.sweep),
            revision: raw.revision,
            class: raw.run_class.map_or(Ok(TreatmentClass::Unknown), |word| treatment_class(&word))?,
            verdict: VerdictRow {
                project: raw.project,
                test: TestId(raw.test),
                verdict: raw.verdict,
                attempts: count("attempts", raw.attempts)?,
                failures: count("failures", raw.failures)?,
                estimate: raw.estimate,
                lower: raw.lower,
                upper: raw.upper,
                score: raw.score,
                p50_ms: raw.p50_ms,
                finished_at: raw.finished_at,
                fingerprint: raw.fingerprint.map(|text| parsed("fingerprint", &text)).transpose()?,
            },
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct RawRun {
    test: String,
    fingerprint: Option<String>,
    attempts: i64,
    failures: i64,
    p50_ms: f64,
    finished_at: i64,
}

impl TryFrom<RawRun> for PastRun {
    type Error = DbError;

    fn try_from(raw: RawRun) -> Result<Self, DbError> {
        Ok(Self {
            test: TestId(raw.test),
            fingerprint: raw.fingerprint.map(|text| parsed("fingerprint", &text)).transpose()?,
            attempts: count("attempts", raw.attempts)?,
            failures: count("failures", raw.failures)?,
            seconds: raw.p50_ms / 1e3,
            finished_at: raw.finished_at,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct RawProject {
    name: String,
    settings: String,
    created_at: i64,
}

impl From<RawProject> for ProjectRow {
    fn from(raw: RawProject) -> Self {
        Self { name: raw.name, settings: raw.settings, created_at: raw.created_at }
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct RawOccasion {
    id: Uuid,
    name: String,
    origin: String,
    class: String,
    level: Option<String>,
    revision: Option<String>,
    branch: Option<String>,
    environment: Option<String>,
    variant: Option<String>,
    ci: Option<String>,
    attempt: Option<i64>,
    started_at: i64,
    finished_at: Option<i64>,
}

impl TryFrom<RawOccasion> for RunRow {
    type Error = DbError;

    fn try_from(raw: RawOccasion) -> Result<Self, DbError> {
        let origin = RunOrigin::of_word(&raw.origin)
            .ok_or_else(|| DbError::Damaged(format!("origin of a run: `{}`", raw.origin)))?;
        Ok(Self {
            id: raw.id,
            project: raw.name,
            origin,
            class: treatment_class(&raw.class)?,
            level: raw.level,
            revision: raw.revision,
            branch: raw.branch,
            environment: raw.environment,
            variant: raw.variant,
            ci: raw.ci,
            attempt: raw.attempt.map(|attempt| count("attempt at a run", attempt)).transpose()?,
            started_at: raw.started_at,
            finished_at: raw.finished_at,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct RawTest {
    number: i64,
    test: String,
    parts: Option<String>,
    first_seen: i64,
    last_seen: i64,
}

impl From<RawTest> for TestRow {
    fn from(raw: RawTest) -> Self {
        Self {
            number: raw.number,
            test: TestId(raw.test),
            parts: raw.parts,
            first_seen: raw.first_seen,
            last_seen: raw.last_seen,
        }
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct RawWorker {
    id: String,
    version: String,
    slots: i64,
    seen_at: i64,
    draining: i64,
    jobs: i64,
    trouble: Option<String>,
}

impl TryFrom<RawWorker> for WorkerRow {
    type Error = DbError;

    fn try_from(raw: RawWorker) -> Result<Self, DbError> {
        Ok(Self {
            id: WorkerId(raw.id),
            version: raw.version,
            slots: count("slots", raw.slots)?,
            seen_at: raw.seen_at,
            draining: raw.draining != 0,
            jobs: count("jobs", raw.jobs)?,
            trouble: raw.trouble,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct RawParked {
    id: Uuid,
    came_at: i64,
    origin: Option<String>,
    reason: String,
    body: Vec<u8>,
}

impl From<RawParked> for ParkedRow {
    fn from(raw: RawParked) -> Self {
        let RawParked { id, came_at, origin, reason, body } = raw;
        Self { id, came_at, origin, reason, body }
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct RawToken {
    id: String,
    kind: String,
    hash: String,
    label: String,
    created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    last_used: Option<i64>,
    scopes: Option<String>,
    projects: Option<String>,
}

impl TryFrom<RawToken> for TokenRow {
    type Error = DbError;

    fn try_from(raw: RawToken) -> Result<Self, DbError> {
        let list = |what, text: Option<String>| text.map(|text| from_json(what, &text)).transpose();
        Ok(Self {
            id: raw.id,
            kind: raw.kind,
            hash: raw.hash,
            label: raw.label,
            created_at: raw.created_at,
            expires_at: raw.expires_at,
            revoked_at: raw.revoked_at,
            last_used: raw.last_used,
            scopes: list("scopes of a token", raw.scopes)?,
            projects: list("projects of a token", raw.projects)?,
        })
    }
}
