//! A report becomes part of a run: read in a thread of its own, recorded in batches, in flat memory.
//! Everything is recorded under names that follow from the report's content, so that sending it again, or
//! after a crash in the middle, changes nothing. What is wrong with a report is said; its good part counts.

use super::case::{Case, Reading};
use super::ci::CiJob;
use super::counts::{self, Counts};
use super::names::Names;
use super::{ctrf, junit};
use crate::db::{Db, DbError, FailureRow, RunRow, RunSpan, SeenTest};
use flakefarm_shared::samples::{Chunk, Point, PointOutcome, RunTag, SampleError, SampleStore, codec};
use flakefarm_shared::{JobId, RunOrigin, TestId, TestParts, TreatmentClass, UnixMicros, now_micros};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tokio::sync::{OnceCell, mpsc};
use uuid::Uuid;

/// Cases recorded together.
const BATCH: usize = 500;
/// Batches that wait to be recorded.
const WAITING: usize = 4;
/// Cases of one report; what comes after them is not read.
pub const MOST_CASES: u64 = 2_000_000;
/// Days before today that are summed up again without a word, since attempts end after midnight.
pub const SUMMED_ANYWAY: i64 = 2;
/// Tests that are looked at for flips after one report.
const MOST_CANDIDATES: u32 = 2_000;
/// The names of runs of CI.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f5c_0f0a_6a1e_4f8e_9a53_1d0c_76f1_22b7);

/// A report that somebody sent.
#[derive(Debug, Clone)]
pub struct SentReport {
    /// The project's name.
    pub project: String,
    /// The job it comes from.
    pub ci: CiJob,
    /// What told this run from others of the job (`os=linux`), if anything.
    pub variant: Option<String>,
    /// Its name, for people.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// What came of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingested {
    /// Its name.
    pub name: String,
    /// The run it is part of.
    pub run: Uuid,
    /// Whether it counts from now on, or did before.
    pub news: News,
    /// What was in it.
    pub counts: Counts,
    /// What was wrong with it.
    pub reading: Reading,
    /// Tests that passed and failed on one revision and variant, this report's part in it.
    pub suspected: Vec<TestId>,
    /// Why the whole run counts for nothing, if so.
    pub incident: Option<String>,
}

/// Whether a report is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// It is.
    New,
    /// The same bytes were sent before for the same run.
    Known,
}

/// A report could not be recorded. Sending it again is safe.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// It cannot be read.
    #[error("failed to read report {name}")]
    Io {
        /// Its name.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// The database.
    #[error("the database failed")]
    Db(#[from] DbError),
    /// The sample store.
    #[error("the sample store failed")]
    Samples(#[from] SampleError),
}

/// Reads a report and records it.
pub async fn ingest(
    db: &Db,
    samples: &dyn SampleStore,
    report: &SentReport,
    now: UnixMicros,
) -> Result<Ingested, IngestError> {
    let io = |source| IngestError::Io { name: report.name.clone(), source };
    let digest = digest(report.path.clone()).await.map_err(io)?;
    let run = run_of(report, &digest);
    db.record_run(&run_row(report, run, now)).await?;
    let upload = db.begin_upload(run, &digest, &report.name, now).await?;
    if let Some(known) =
        upload.summary.as_deref().and_then(|text| serde_json::from_str::<Ingested>(text).ok())
    {
        return Ok(Ingested { news: News::Known, name: report.name.clone(), ..known });
    }
    let recorder = Recorder {
        db,
        samples,
        project: &report.project,
        run,
        digest: &digest,
        received_at: upload.received_at,
        names: OnceCell::new(),
    };
    let (mut ingested, touched) = recorder.record(report).await.map_err(|error| error.of(report))?;
    let summary = serde_json::to_string(&ingested).expect("counts and texts serialise");
    db.finish_upload(run, &digest, &summary, ingested.counts.ran, ingested.counts.broken).await?;
    db.widen_run(run, touched.from, touched.to).await?;
    let (ran, failed) = db.run_totals(run).await?;
    ingested.incident = counts::incident(ran, failed);
    db.set_incident(run, ingested.incident.as_deref()).await?;
    if ingested.incident.is_none() {
        ingested.suspected = flips(db, samples, report, run, touched.to.min(now)).await?;
    }
    Ok(ingested)
}

/// The run that a report is part of: one per job and attempt at it. Without a word of where it comes from
/// every report is a run of its own.
fn run_of(report: &SentReport, digest: &str) -> Uuid {
    let says_nothing = report.ci == CiJob::default();
    let identity =
        serde_json::json!([report.project, report.ci, report.variant, says_nothing.then_some(digest)]);
    Uuid::new_v5(&NAMESPACE, identity.to_string().as_bytes())
}

fn run_row(report: &SentReport, run: Uuid, now: UnixMicros) -> RunRow {
    RunRow {
        id: run,
        project: report.project.clone(),
        origin: RunOrigin::Ci,
        class: TreatmentClass::Ci,
        level: None,
        revision: report.ci.revision.clone(),
        branch: report.ci.branch.clone(),
        environment: None,
        variant: Some(report.variant.clone().unwrap_or_default()),
        ci: Some(serde_json::to_string(&report.ci).expect("texts serialise")),
        attempt: report.ci.attempt,
        started_at: now,
        finished_at: None,
    }
}

async fn digest(path: PathBuf) -> std::io::Result<String> {
    let read = move || {
        let mut file = std::fs::File::open(&path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hex::encode(hasher.finalize())),
                length => hasher.update(&buffer[..length]),
            }
        }
    };
    tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?
}

/// Reads a report of either format; batches go to `batches` until nobody takes them.
fn read(path: &Path, batches: &mpsc::Sender<Vec<Case>>) -> std::io::Result<Reading> {
    let mut input = BufReader::with_capacity(64 << 10, std::fs::File::open(path)?);
    let format = Format::of(std::io::BufRead::fill_buf(&mut input)?);
    let mut batch = Vec::with_capacity(BATCH);
    let mut cases = 0u64;
    let mut sink = |case: Case| {
        batch.push(case);
        cases += 1;
        if batch.len() == BATCH && batches.blocking_send(std::mem::take(&mut batch)).is_err()
            || cases == MOST_CASES
        {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let mut reading = match format {
        Format::Junit => junit::read(input, &mut sink),
        Format::Ctrf => ctrf::read(input, &mut sink),
    };
    if !batch.is_empty() {
        // Nobody takes it only where recording failed, which is told there.
        drop(batches.blocking_send(batch));
    }
    if cases == MOST_CASES {
        reading.note(1, format!("more than {MOST_CASES} cases: what follows is not read"));
    }
    Ok(reading)
}

enum Format {
    Junit,
    Ctrf,
}

impl Format {
    /// By the first byte that is no white space.
    fn of(start: &[u8]) -> Self {
        let marks: [&[u8]; 3] = [&[0xef, 0xbb, 0xbf], &[0xff, 0xfe], &[0xfe, 0xff]];
        let start = marks.iter().find_map(|mark| start.strip_prefix(*mark)).unwrap_or(start);
        // In UTF-16 every other byte of these is zero.
        match start.iter().find(|byte| !byte.is_ascii_whitespace() && **byte != 0) {
            Some(b'{' | b'[') => Format::Ctrf,
            _ => Format::Junit,
        }
    }
}

enum RecordError {
    Io(std::io::Error),
    Db(DbError),
    Samples(SampleError),
}

impl RecordError {
    fn of(self, report: &SentReport) -> IngestError {
        match self {
            RecordError::Io(source) => IngestError::Io { name: report.name.clone(), source },
            RecordError::Db(error) => error.into(),
            RecordError::Samples(error) => error.into(),
        }
    }
}

/// Failures of one test in a batch that look alike.
struct SeenFailure {
    count: u32,
    at: UnixMicros,
    message: String,
    /// Whether one of them was a last attempt.
    broke: bool,
}

/// When a report's cases ran.
#[derive(Debug, Clone, Copy)]
struct Touched {
    from: UnixMicros,
    to: UnixMicros,
}

/// How far the time of a report was read.
#[derive(Debug, Default)]
struct Clock {
    touched: Option<Touched>,
    /// When the suite began that is being read.
    suite_began: UnixMicros,
    /// When its last case ended.
    end: UnixMicros,
    /// The line of the first case whose time is yet to come.
    future: Option<u64>,
}

impl Touched {
    /// With one moment more.
    fn and(touched: Option<Self>, at: UnixMicros) -> Option<Self> {
        let known = touched.unwrap_or(Touched { from: at, to: at });
        Some(Touched { from: known.from.min(at), to: known.to.max(at) })
    }
}

struct Recorder<'a> {
    db: &'a Db,
    samples: &'a dyn SampleStore,
    project: &'a str,
    run: Uuid,
    digest: &'a str,
    received_at: UnixMicros,
    names: OnceCell<Names>,
}

impl Recorder<'_> {
    /// The project's tests, read once there is a case: what is refused costs nothing.
    async fn names(&self) -> Result<&Names, DbError> {
        let read = || async {
            let known = self.db.tests(self.project).await?.into_iter().filter_map(|row| {
                let parts: TestParts = serde_json::from_str(row.parts.as_deref()?).ok()?;
                Some((row.test, parts))
            });
            Ok(Names::new(known))
        };
        self.names.get_or_try_init(read).await
    }

    async fn record(&self, report: &SentReport) -> Result<(Ingested, Touched), RecordError> {
        let (sender, mut batches) = mpsc::channel(WAITING);
        let path = report.path.clone();
        let reading = tokio::task::spawn_blocking(move || read(&path, &sender));
        let mut counts = Counts::default();
        let mut clock = Clock::default();
        let mut number = 0u64;
        while let Some(batch) = batches.recv().await {
            self.batch(number, &batch, &mut counts, &mut clock).await?;
            number += 1;
        }
        let read = reading.await.map_err(|error| RecordError::Io(std::io::Error::other(error)))?;
        let mut reading = read.map_err(RecordError::Io)?;
        if let Some(line) = clock.future {
            reading.note(line, "its time lies in the future, so it is taken for now");
        }
        let ingested = Ingested {
            name: report.name.clone(),
            run: self.run,
            news: News::New,
            counts,
            reading,
            suspected: Vec::new(),
            incident: None,
        };
        // An empty report was made when it came.
        Ok((ingested, clock.touched.unwrap_or(Touched { from: self.received_at, to: self.received_at })))
    }

    async fn batch(
        &self,
        number: u64,
        cases: &[Case],
        counts: &mut Counts,
        Clock { touched, suite_began, end, future }: &mut Clock,
    ) -> Result<(), RecordError> {
        let names = self.names().await.map_err(RecordError::Db)?;
        let mut of_batch = None;
        let mut late: BTreeSet<i64> = BTreeSet::new();
        let name = Uuid::new_v5(&self.run, format!("{} {number}", self.digest).as_bytes());
        let mut points: HashMap<TestId, Vec<(TreatmentClass, Point)>> = HashMap::new();
        let mut seen: HashMap<TestId, SeenTest> = HashMap::new();
        let mut failures: HashMap<(TestId, u64), SeenFailure> = HashMap::new();
        for case in cases {
            counts.add(case);
            let known_from_the_future = counts.from_the_future;
            let at = counts::moment(case, self.received_at, counts);
            if counts.from_the_future > known_from_the_future {
                future.get_or_insert(case.line);
            }
            of_batch = Touched::and(of_batch, at);
            late.insert(codec::day_of(at));
            // Reports say when a suite began: its cases came one after the other.
            let micros: u64 = case.attempts.iter().filter_map(|attempt| attempt.wall_us).sum();
            let before = if *suite_began == at { *end } else { at };
            (*suite_began, *end) = (at, before.saturating_add_unsigned(micros).min(self.received_at.max(at)));
            *touched = Touched::and(*touched, *end);
            let (test, parts) = names.resolve(case);
            for (attempt, left) in case.attempts.iter().zip((0..case.attempts.len()).rev()) {
                let of_test = points.entry(test.clone()).or_default();
                let point = counts::point(at, of_test.len(), attempt);
                if let (Some(signature), super::case::CaseOutcome::Fail { message, .. }) =
                    (point.signature, &attempt.outcome)
                {
                    let failure = failures.entry((test.clone(), signature)).or_insert_with(|| SeenFailure {
                        count: 0,
                        at,
                        message: super::case::cut(message, 500).to_owned(),
                        broke: false,
                    });
                    failure.count += 1;
                    failure.at = failure.at.max(at);
                    failure.broke |= left == 0;
                }
                of_test.push((TreatmentClass::Ci, point));
            }
            let parts = Some(serde_json::to_string(&parts).expect("parts of a test id serialise"));
            seen.entry(test.clone()).or_insert(SeenTest { test, parts });
        }
        let chunks: Vec<Chunk> = points
            .iter()
            .flat_map(|(test, points)| codec::chunks(self.project, test, self.run, JobId(name), points))
            .collect();
        self.samples.append(&chunks).await.map_err(RecordError::Samples)?;
        let seen: Vec<SeenTest> = seen.into_values().collect();
        let Some(of_batch) = of_batch else { return Ok(()) };
        for at in [of_batch.from, of_batch.to] {
            *touched = Touched::and(*touched, at);
        }
        let over = codec::day_of(self.received_at) - SUMMED_ANYWAY;
        let late: Vec<i64> = late.into_iter().filter(|day| *day < over).collect();
        self.db.note_late(self.project, &late, now_micros()).await.map_err(RecordError::Db)?;
        // When they ran, not when the report came: what is older is summed up with its own day.
        self.db.note_tests(self.project, &seen, of_batch.from).await.map_err(RecordError::Db)?;
        if codec::day_of(of_batch.to) > codec::day_of(of_batch.from) {
            self.db.note_tests(self.project, &seen, of_batch.to).await.map_err(RecordError::Db)?;
        }
        if failures.is_empty() {
            return Ok(());
        }
        let failed: BTreeSet<&TestId> = failures.keys().map(|(test, _)| test).collect();
        let failed: Vec<TestId> = failed.into_iter().cloned().collect();
        let numbers = self.db.test_numbers(self.project, &failed).await.map_err(RecordError::Db)?;
        let mut rows: Vec<FailureRow> = failures
            .into_iter()
            .filter_map(|((test, signature), SeenFailure { count, at, message, broke })| {
                Some(FailureRow {
                    test: *numbers.get(&test)?,
                    batch: name,
                    signature,
                    count,
                    at,
                    message,
                    class: None,
                    broke: Some(broke),
                })
            })
            .collect();
        rows.sort_by_key(|row| (row.test, row.signature));
        self.db.record_failures(self.run, &rows).await.map_err(RecordError::Db)
    }
}

/// Tests that passed and failed on the run's revision and variant, this and earlier runs together. Rests on
/// points: what has expired or was lost is not invented.
async fn flips(
    db: &Db,
    samples: &dyn SampleStore,
    report: &SentReport,
    run: Uuid,
    at: UnixMicros,
) -> Result<Vec<TestId>, IngestError> {
    let revision = report.ci.revision.clone().unwrap_or_else(|| run.to_string());
    let variant = report.variant.clone().unwrap_or_default();
    let (runs, candidates) = if report.ci.revision.is_some() {
        let candidates = db.failed_at(&report.project, &revision, &variant, MOST_CANDIDATES).await?;
        (db.runs_at(&report.project, &revision, &variant).await?, candidates)
    } else {
        (db.run_span(run).await?.into_iter().collect(), db.failed_in(run, MOST_CANDIDATES).await?)
    };
    let tags: HashSet<RunTag> = runs.iter().map(|span| codec::run_tag(span.run)).collect();
    let mut passed = HashSet::new();
    let mut failed = HashSet::new();
    for day in days(&runs) {
        let tests: Vec<TestId> = candidates.iter().map(|(_, test)| test.clone()).collect();
        let points = samples.points_of_day(&report.project, &tests, day).await?;
        for ((number, _), points) in candidates.iter().zip(points) {
            for stored in points.iter().filter(|stored| stored.run.is_some_and(|run| tags.contains(&run))) {
                match stored.point.outcome {
                    PointOutcome::Pass => drop(passed.insert(*number)),
                    PointOutcome::Fail => drop(failed.insert(*number)),
                    PointOutcome::Skip => {}
                }
            }
        }
    }
    let flipped: Vec<&(i64, TestId)> =
        candidates.iter().filter(|(number, _)| passed.contains(number) && failed.contains(number)).collect();
    let numbers: Vec<i64> = flipped.iter().map(|(number, _)| *number).collect();
    db.record_flips(run, &revision, &variant, report.ci.branch.as_deref(), &numbers, at).await?;
    let mut suspected: Vec<TestId> = flipped.into_iter().map(|(_, test)| test.clone()).collect();
    suspected.sort();
    Ok(suspected)
}

/// The days of runs, each once, the last fifteen.
fn days(runs: &[RunSpan]) -> Vec<i64> {
    let of = |span: &RunSpan| codec::days(span.started_at, span.finished_at.saturating_add(1));
    let days: BTreeSet<i64> = runs.iter().flat_map(|span| of(span).rev().take(15)).collect();
    days.into_iter().rev().take(15).collect()
}
