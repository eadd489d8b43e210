//! One job from its spec to its report: environment and attempts. What was made by earlier publications
//! is not made again, and what has been made survives a stop; [`crate::delivery`] brings it home.

use crate::attempt::{self, AttemptSetting, Planned, Unwatched, Watched};
use crate::ceilings::Ceilings;
use crate::environment::{Environments, PrepareError};
use crate::frameworks;
use crate::listing;
use crate::machine;
use crate::sandbox::{Sandbox, ToCome};
use flakefarm_shared::blobs::{BlobError, Blobs};
use flakefarm_shared::fault;
use flakefarm_shared::metrics::catalogue::{ATTEMPTS, INFRASTRUCTURE_ERRORS, PHASE};
use flakefarm_shared::samples::Samples;
use flakefarm_shared::samples::filing::Filing;
use flakefarm_shared::{
    AttemptEnd, AttemptId, AttemptRecord, AttemptSpec, Class, Digest, ImageSource, InfraError, InfraStage,
    JobId, JobMessage, JobReport, JobSpec, Listing, NothingRan, Refusal, SandboxLevel, Source, SweepContext,
    TestDetail, WIRE_VERSION, Work, WorkerId, World, chain, now_micros,
};
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// After so many infrastructure errors in a row the job is handed back: this worker is not well.
const INFRASTRUCTURE_ERRORS_IN_A_ROW: u32 = 3;

/// What jobs of one worker share.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) worker: WorkerId,
    pub(crate) blobs: Blobs,
    pub(crate) samples: Samples,
    pub(crate) environments: Environments,
    pub(crate) sandbox: Sandbox,
    pub(crate) ceilings: Ceilings,
    /// Attempts that may run at once.
    pub(crate) slots: NonZeroU16,
    /// By its digest.
    pub(crate) last_context: Mutex<Option<(Digest, Arc<SweepContext>)>>,
    /// Attempts running now, over all jobs.
    pub(crate) running: AtomicU16,
}

/// How far a job has come, for the worker's signs of life.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) done: AtomicU32,
    pub(crate) total: AtomicU32,
    pub(crate) doing: Mutex<String>,
}

impl Progress {
    pub(crate) fn say(&self, doing: impl Into<String>) {
        *self.doing.lock().expect("no panic while holding the lock") = doing.into();
    }
}

/// Why a job stopped short of a report.
enum Stop {
    Asked,
    Infrastructure(InfraError),
    Refused(Refusal),
}

impl From<BlobError> for Stop {
    fn from(error: BlobError) -> Self {
        Stop::Infrastructure(InfraError { stage: InfraStage::Blobs, message: chain(&error) })
    }
}

impl From<Unwatched> for Stop {
    fn from(error: Unwatched) -> Self {
        match error {
            Unwatched::Stopped => Stop::Asked,
            Unwatched::Infrastructure(error) => Stop::Infrastructure(error),
        }
    }
}

/// What came of working on a job.
#[derive(Debug)]
pub(crate) enum Worked {
    /// All of it.
    Done {
        /// What its samples are filed under.
        filing: Filing,
        report: JobReport,
    },
    /// Some of it: the rest is for whoever takes it next.
    Left {
        filing: Filing,
        /// None if no attempt has ended.
        made: Option<JobReport>,
        /// None if it was told to stop.
        because: Option<InfraError>,
    },
    /// It cannot work.
    Refused(Refusal),
}

/// How a job is told to end.
#[derive(Debug, Clone)]
pub(crate) struct Until {
    /// Begin no more attempts.
    pub(crate) drain: CancellationToken,
    /// Stop the attempt that is running.
    pub(crate) stop: CancellationToken,
}

/// Awaited between two attempts: somebody may be in a hurry.
pub(crate) type Aside<'a> = &'a (dyn Fn() -> BoxFuture<'a, ()> + Send + Sync);

/// What has been made so far; it outlives the work when that is dropped.
#[derive(Debug, Default)]
struct Made {
    filing: Filing,
    report: Option<JobReport>,
}

/// Works on a job until it ends or is told to.
pub(crate) async fn work(
    bench: &Bench,
    message: &JobMessage,
    progress: &Progress,
    until: &Until,
    aside: Aside<'_>,
) -> Worked {
    let made = Mutex::new(Made::default());
    let outcome = tokio::select! {
        outcome = attempt_all(bench, message, progress, until, aside, &made) => outcome,
        // Not everything watches for a stop by itself.
        () = stopped_for_long(&until.stop) => Err(Stop::Asked),
    };
    let Made { filing, report } = made.into_inner().expect("no panic while holding the lock");
    let because = match outcome {
        Ok(()) => {
            let report = report.expect("a job that was worked on to its end has a report");
            return Worked::Done { filing, report };
        }
        Err(Stop::Refused(refusal)) => return Worked::Refused(refusal),
        Err(Stop::Asked) => None,
        Err(Stop::Infrastructure(error)) => {
            let of_an_attempt = report.iter().flat_map(|report| report.attempts.last());
            // That one was counted with its attempt.
            if !of_an_attempt.into_iter().any(|attempt| attempt::is_infrastructure(&attempt.end)) {
                INFRASTRUCTURE_ERRORS.count(&[error.stage.word()]);
            }
            Some(error)
        }
    };
    let made = report.and_then(|mut report| {
        // What was lost to infrastructure is to be tried again.
        report.attempts.retain(|attempt| !attempt::is_infrastructure(&attempt.end));
        (!report.attempts.is_empty()).then_some(report)
    });
    Worked::Left { filing, made, because }
}

async fn stopped_for_long(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
}

async fn attempt_all(
    bench: &Bench,
    message: &JobMessage,
    progress: &Progress,
    until: &Until,
    aside: Aside<'_>,
    made: &Mutex<Made>,
) -> Result<(), Stop> {
    let spec: JobSpec = bench.blobs.unpack(&message.spec, "a job spec").await?;
    if spec.v != WIRE_VERSION {
        return Err(Stop::Refused(Refusal {
            message: format!(
                "job {} is of version {}, this worker reads version {WIRE_VERSION}",
                spec.id, spec.v
            ),
            log: String::new(),
            hint: Some("run coordinator and workers of the same version".to_owned()),
        }));
    }
    let context = context(bench, &spec.context).await?;
    let ceiling = bench.ceilings.of(&context.project.name, spec.class);
    ceiling.check(&context.project).map_err(Stop::Refused)?;
    let earlier = earlier(bench, message, spec.id).await?;
    let known: BTreeSet<u32> = earlier.attempts.iter().map(|attempt| attempt.index).collect();
    *made.lock().expect("no panic while holding the lock") =
        Made { filing: Filing::of(&spec, &context).again(message.again), report: Some(earlier) };
    progress.say("preparing the environment");
    let preparing = Instant::now();
    let images = tokio::select! {
        (images, ()) = async {
            tokio::join!(images(bench, &context, &spec.work, progress), furnish_ahead(bench, &context))
        } => images?,
        () = until.drain.cancelled() => return Err(Stop::Asked),
    };
    PHASE.observe(&["environment"], preparing.elapsed());
    let sandbox = bench.sandbox.open_job();
    let of_source = |source: &Source| AttemptSetting {
        sandbox: &sandbox,
        image: &images[source],
        project: &context.project,
        sweep: spec.sweep,
        worker: &bench.worker,
        under: context.under,
        ceiling: &ceiling,
        forked: in_level(&spec.work, SandboxLevel::Forked),
    };
    let settings: BTreeMap<&Source, AttemptSetting<'_>> =
        images.keys().map(|source| (source, of_source(source))).collect();
    let levels = levels(&spec.work, sandbox.own_level());
    if let Some(level) = levels.iter().find(|level| !bench.sandbox.offers(**level)) {
        return Err(Stop::Refused(not_offered(*level)));
    }
    if levels.contains(&SandboxLevel::Container) {
        // Those of the first image: a job is of one arm, so it has one.
        if let Some(image) = images.values().next() {
            sandbox.keep_ready(image, &context.project.limits, bench.slots, to_come(&spec, bench.slots));
        }
    }
    let note = |change: &mut dyn FnMut(&mut JobReport)| {
        let mut made = made.lock().expect("no panic while holding the lock");
        change(made.report.as_mut().expect("it was set above"));
    };
    match &spec.work {
        Work::List => {
            progress.say("listing the tests");
            let setting = &settings[&Source::Submitted];
            let mut listing = Some(list(bench, setting, &spec, &until.stop).await?);
            note(&mut |report| report.listing = listing.take());
        }
        Work::Run { attempts } => {
            progress.total.store(u32::try_from(attempts.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
            progress.done.store(u32::try_from(known.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
            progress.say("running");
            let mut errors_in_a_row = 0;
            let mut planned: Option<Planned<'_>> = None;
            let left: Vec<&AttemptSpec> =
                attempts.iter().filter(|attempt| !known.contains(&attempt.index)).collect();
            let shares = |attempt: &&AttemptSpec| attempt.level != SandboxLevel::Container;
            if let Some(place @ 1..) = left.iter().position(shares) {
                let setting = &settings[&left[place].treatment.source];
                attempt::open_ahead(setting, &attempt::plan_run(setting, spec.id, left[place]));
            }
            for (place, attempt) in left.iter().copied().enumerate() {
                if until.drain.is_cancelled() || until.stop.is_cancelled() {
                    return Err(Stop::Asked);
                }
                if place > 0 {
                    aside().await;
                }
                let setting = |attempt: &AttemptSpec| &settings[&attempt.treatment.source];
                let plan = |attempt| attempt::plan_run(setting(attempt), spec.id, attempt);
                let this = planned.take().unwrap_or_else(|| plan(attempt));
                planned = left.get(place + 1).copied().map(plan);
                let (own, next) = (setting(attempt), planned.as_ref());
                let record = run(bench, own, &spec, (attempt, this), next, &until.stop).await?;
                count(&record);
                fault::point("worker.attempted");
                errors_in_a_row =
                    if attempt::is_infrastructure(&record.end) { errors_in_a_row + 1 } else { 0 };
                if let (AttemptEnd::Infrastructure(error), INFRASTRUCTURE_ERRORS_IN_A_ROW) =
                    (&record.end, errors_in_a_row)
                {
                    return Err(Stop::Infrastructure(error.clone()));
                }
                let mut record = Some(record);
                note(&mut |report| report.attempts.extend(record.take()));
                progress.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    sandbox.close().await;
    Ok(())
}

/// Counts an attempt that has ended.
fn count(record: &AttemptRecord) {
    let outcome = match &record.end {
        AttemptEnd::Completed => "completed",
        AttemptEnd::Interrupted { .. } => "interrupted",
        AttemptEnd::NothingRan { .. } => "nothing_ran",
        AttemptEnd::Infrastructure(error) => {
            INFRASTRUCTURE_ERRORS.count(&[error.stage.word()]);
            "infrastructure"
        }
    };
    ATTEMPTS.count(&[outcome, record.level.word()]);
}

/// What earlier publications of the job have made; an empty report if nothing.
async fn earlier(bench: &Bench, message: &JobMessage, job: JobId) -> Result<JobReport, Stop> {
    let empty = JobReport { v: WIRE_VERSION, job, listing: None, attempts: Vec::new() };
    let Some(made) = &message.made else { return Ok(empty) };
    let report: JobReport = bench.blobs.unpack(made, "what was made of a job").await?;
    // Of another job or version it is of no use: the attempts are made again.
    Ok(if report.v == WIRE_VERSION && report.job == job { report } else { empty })
}

/// What every image of the project's attempts needs, while the image itself is looked for.
async fn furnish_ahead(bench: &Bench, context: &SweepContext) {
    match &context.project.environment.image {
        ImageSource::Reference(image) => bench.sandbox.furnish_ahead(image, &context.project.limits).await,
        ImageSource::Dockerfile(_) => {}
    }
}

/// The image of each source that the job's attempts test, prepared. The listing is of the submitted one.
async fn images(
    bench: &Bench,
    context: &SweepContext,
    work: &Work,
    progress: &Progress,
) -> Result<BTreeMap<Source, String>, Stop> {
    let sources: BTreeSet<Source> = match work {
        Work::List => BTreeSet::from([Source::Submitted]),
        Work::Run { attempts } => attempts.iter().map(|attempt| attempt.treatment.source.clone()).collect(),
    };
    let files = frameworks::of(context.project.framework).files();
    let mut images = BTreeMap::new();
    for source in sources {
        let snapshot = match &source {
            Source::Submitted => &context.snapshot,
            Source::Snapshot(snapshot) => snapshot,
        };
        let prepared = bench.environments.prepare(context, snapshot, &files, |step| progress.say(step)).await;
        let image = prepared.map_err(|error| match error {
            PrepareError::Refused(refusal) => Stop::Refused(refusal),
            PrepareError::Infra(error) => Stop::Infrastructure(error),
        })?;
        images.insert(source, image.image_id);
    }
    Ok(images)
}

/// What a sweep's jobs share; of the last sweep it is at hand.
async fn context(bench: &Bench, digest: &Digest) -> Result<Arc<SweepContext>, Stop> {
    let last = bench.last_context.lock().expect("no panic while holding the lock").clone();
    if let Some((_, context)) = last.filter(|(known, _)| known == digest) {
        return Ok(context);
    }
    let context: Arc<SweepContext> = Arc::new(bench.blobs.get_json(digest, "a sweep context").await?);
    let last = Some((digest.clone(), context.clone()));
    *bench.last_context.lock().expect("no panic while holding the lock") = last;
    Ok(context)
}

/// The levels that a job asks for.
fn levels(work: &Work, own: SandboxLevel) -> BTreeSet<SandboxLevel> {
    match work {
        Work::List => BTreeSet::from([own]),
        Work::Run { attempts } => attempts.iter().map(|attempt| attempt.level).collect(),
    }
}

/// Attempts that a job asks for at one level.
fn in_level(work: &Work, level: SandboxLevel) -> usize {
    match work {
        Work::List => 0,
        Work::Run { attempts } => attempts.iter().filter(|attempt| attempt.level == level).count(),
    }
}

/// Attempts in containers that are to come with a job. Where somebody waits they are few, and what is made
/// for nobody is in their way.
fn to_come(spec: &JobSpec, slots: NonZeroU16) -> ToCome {
    match (&spec.work, spec.class) {
        // Itself; the next jobs begin with one each.
        (Work::List, _) => ToCome::These(1 + usize::from(slots.get())),
        (Work::Run { .. }, Class::Interactive) => {
            // Of the first one the listing has told.
            ToCome::These(in_level(&spec.work, SandboxLevel::Container).saturating_sub(1))
        }
        (Work::Run { .. }, Class::Bulk) => ToCome::Many,
    }
}

fn not_offered(level: SandboxLevel) -> Refusal {
    Refusal {
        message: format!("the worker does not offer the sandbox level `{level}`"),
        log: String::new(),
        hint: Some(match level {
            SandboxLevel::Container | SandboxLevel::Nested | SandboxLevel::Forked => {
                "it runs without a container engine: ask for the level it was started with".to_owned()
            }
            SandboxLevel::Host | SandboxLevel::Process => {
                "on a farm attempts run in containers: ask for `container`, `nested`, `forked` or `auto`"
                    .to_owned()
            }
        }),
    }
}

async fn list(
    bench: &Bench,
    setting: &AttemptSetting<'_>,
    spec: &JobSpec,
    stop: &CancellationToken,
) -> Result<Listing, Stop> {
    let attempt = AttemptId { job: spec.id, index: 0 };
    let _counted = Running::enter(&bench.running);
    listing::list(setting, attempt, stop).await.map_err(|error| match error {
        listing::NotListed::Unwatched(error) => error.into(),
        listing::NotListed::Refused(refusal) => Stop::Refused(refusal),
    })
}

async fn run(
    bench: &Bench,
    setting: &AttemptSetting<'_>,
    spec: &JobSpec,
    (attempt, planned): (&AttemptSpec, Planned<'_>),
    next: Option<&Planned<'_>>,
    stop: &CancellationToken,
) -> Result<AttemptRecord, Stop> {
    let counted = Running::enter(&bench.running);
    let started_at = now_micros();
    let begun = Instant::now();
    let stolen_before = machine::stolen_us();
    let watched = attempt::run(setting, planned, next, stop).await;
    let mut record = AttemptRecord {
        started_at,
        wall_us: micros(begun.elapsed()),
        concurrency: counted.peak,
        stolen_us: machine::stolen_us().saturating_sub(stolen_before),
        ..AttemptRecord::completed(attempt, bench.worker.clone())
    };
    drop(counted);
    let Watched { reading, stray_output, level, instead } = match watched {
        Ok(watched) => watched,
        Err(Unwatched::Stopped) => return Err(Stop::Asked),
        // A machine without that network cannot give this world; it runs all others.
        Err(Unwatched::Infrastructure(error))
            if attempt.treatment.world == World::NetworkOn && error.stage == InfraStage::Sandbox =>
        {
            record.end = AttemptEnd::NothingRan { reason: error.to_string(), why: NothingRan::Unavailable };
            return Ok(record);
        }
        Err(Unwatched::Infrastructure(error)) => {
            warn!(job.id = %spec.id, attempt.index = attempt.index, error = %error, "attempt lost to infrastructure");
            record.end = AttemptEnd::Infrastructure(error);
            return Ok(record);
        }
    };
    record.level = level;
    record.instead = instead;
    record.end = reading.end;
    record.collection_errors = reading.collection_errors;
    record.skipped_files = reading.skipped_files;
    record.remarks = reading.remarks;
    for read in reading.samples {
        let mut sample = read.sample;
        if let Some(output) = read.output {
            sample.output = Some(bench.blobs.put(output.into_bytes()).await?);
        }
        record.samples.push(sample);
    }
    for read in reading.details {
        let output = match read.output.is_empty() {
            true => None,
            false => Some(bench.blobs.put(read.output.into_bytes()).await?),
        };
        record.details.push(TestDetail { test: read.test, output, changes: read.changes });
    }
    if !matches!(record.end, AttemptEnd::Completed) && !stray_output.is_empty() {
        record.output = Some(bench.blobs.put(stray_output.into_bytes()).await?);
    }
    Ok(record)
}

/// Counts an attempt among those running, for as long as it lives.
struct Running<'a> {
    count: &'a AtomicU16,
    peak: u16,
}

impl<'a> Running<'a> {
    fn enter(count: &'a AtomicU16) -> Self {
        let peak = count.fetch_add(1, Ordering::Relaxed) + 1;
        Self { count, peak }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
