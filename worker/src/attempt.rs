//! One attempt: a fresh sandbox, the framework's events as they happen, deadlines, and the record.

use crate::ceilings::Ceiling;
use crate::conditions::{self, Surroundings};
use crate::frameworks::python::{self, RunRequest};
use crate::frameworks::reader::{Asked, AttemptReader, AttemptReading, ExitSeen};
use crate::frameworks::seal::Nonce;
use crate::frameworks::{self, Adapter};
use crate::sandbox::{JobSandbox, Preparation, SandboxRequest, Started};
use flakefarm_shared::capabilities::Starts;
use flakefarm_shared::metrics::catalogue::PHASE;
use flakefarm_shared::{
    AttemptEnd, AttemptId, AttemptSpec, Detail, InfraError, JobId, Limits, Order, ProjectSpec, SandboxLevel,
    Selection, SweepId, WorkerId, World,
};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Collection gets this much longer than one test before the attempt is given up.
const COLLECTION_GRACE: u32 = 3;

/// Everything about an attempt that does not change within a job.
#[derive(Debug)]
pub(crate) struct AttemptSetting<'a> {
    pub(crate) sandbox: &'a JobSandbox,
    pub(crate) image: &'a str,
    pub(crate) project: &'a ProjectSpec,
    pub(crate) sweep: SweepId,
    pub(crate) worker: &'a WorkerId,
    /// The world of attempts that ask for no other.
    pub(crate) under: World,
    pub(crate) ceiling: &'a Ceiling,
    /// Attempts of the job that are to be forked.
    pub(crate) forked: usize,
}

impl AttemptSetting<'_> {
    /// The framework of the project.
    pub(crate) fn framework(&self) -> &'static Adapter {
        frameworks::of(self.project.framework)
    }

    /// Why an attempt does not get its world here; `None` if it does.
    fn not_given(&self, level: SandboxLevel, world: World) -> Option<String> {
        conditions::not_given(level, world).or_else(|| self.ceiling.not_given(world))
    }
}

/// What came of watching one sandbox to its end.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) reading: AttemptReading,
    /// What the sandbox wrote beside its results; head and tail.
    pub(crate) stray_output: String,
    /// How it was isolated.
    pub(crate) level: SandboxLevel,
    /// Why its level is a stricter one than was asked for.
    pub(crate) instead: Option<String>,
}

/// Why a watch ended without a reading.
#[derive(Debug)]
pub(crate) enum Unwatched {
    /// The attempt was told to stop.
    Stopped,
    /// Something of ours failed.
    Infrastructure(InfraError),
}

impl From<InfraError> for Unwatched {
    fn from(error: InfraError) -> Self {
        Unwatched::Infrastructure(error)
    }
}

/// Lists the project's tests in a fresh sandbox.
pub(crate) async fn list(
    setting: &AttemptSetting<'_>,
    attempt: AttemptId,
    stop: &CancellationToken,
) -> Result<Watched, Unwatched> {
    let planned = plan(setting, attempt, RunRequest::List, setting.sandbox.own_level());
    run(setting, planned, None, stop).await
}

/// Opens what `planned`, which is to come after others, will share with those like it.
pub(crate) fn open_ahead(setting: &AttemptSetting<'_>, planned: &Planned<'_>) {
    if setting.not_given(planned.level, planned.world).is_none() {
        setting.sandbox.open_ahead(&planned.request, planned.level, planned.preparation.as_ref());
    }
}

/// An attempt that is to be run.
#[derive(Debug)]
pub(crate) struct Planned<'a> {
    request: SandboxRequest,
    level: SandboxLevel,
    /// How to prepare an interpreter that it can be forked from.
    preparation: Option<Preparation>,
    asked: Asked<'a>,
    nonce: Nonce,
    world: World,
}

/// What `spec` asks for, ready to be run.
pub(crate) fn plan_run<'a>(setting: &AttemptSetting<'_>, job: JobId, spec: &'a AttemptSpec) -> Planned<'a> {
    let expected = match &spec.tests {
        Selection::All => None,
        Selection::Only(tests) => Some(&**tests),
    };
    let asked = spec.treatment.world;
    let world = if asked.is_plain() { setting.under } else { asked };
    let request = RunRequest::Run { tests: expected, order: spec.order, detail: spec.detail, world };
    plan(setting, AttemptId { job, index: spec.index }, request, spec.level)
}

fn plan<'a>(
    setting: &AttemptSetting<'_>,
    attempt: AttemptId,
    request: RunRequest<'a>,
    level: SandboxLevel,
) -> Planned<'a> {
    let (asked, world) = match request {
        RunRequest::List => (Asked::List, World::Plain),
        RunRequest::Run { tests, world, .. } => (Asked::Run(tests), world),
    };
    let nonce = Nonce::new();
    let Surroundings { limits, variables, user } = conditions::surroundings(setting.project, world);
    let can_fork = setting.framework().capabilities().starts == Starts::FreshOrForked;
    let preparation = (level == SandboxLevel::Forked && can_fork && forks(&request)).then(|| Preparation {
        argv: python::fork_server(setting.project),
        input: python::fork_server_request(setting.project),
        attempts: setting.forked,
    });
    let request = SandboxRequest {
        image: setting.image.to_owned(),
        argv: python::argv(setting.project),
        stdin: python::request(setting.project, &request, &nonce),
        variables,
        user,
        limits,
        attempt,
        sweep: setting.sweep,
        worker: setting.worker.clone(),
    };
    Planned { request, level, preparation, asked, nonce, world }
}

/// Whether an interpreter that was prepared beforehand can give what is asked for.
fn forks(request: &RunRequest<'_>) -> bool {
    match request {
        RunRequest::List => false,
        RunRequest::Run { order, detail, world, .. } => {
            world.is_plain() && *order != Order::AsListed && *detail == Detail::Outcomes
        }
    }
}

/// Runs one attempt in a fresh sandbox; `next` is the one after it.
pub(crate) async fn run(
    setting: &AttemptSetting<'_>,
    planned: Planned<'_>,
    next: Option<&Planned<'_>>,
    stop: &CancellationToken,
) -> Result<Watched, Unwatched> {
    let Planned { request, level, preparation, asked, nonce, world } = planned;
    let mut reader = AttemptReader::new(setting.framework().name, nonce, asked, Instant::now());
    if let Some(why) = setting.not_given(level, world) {
        let reading = reader.conclude_not_given(why);
        return Ok(Watched { reading, stray_output: String::new(), level, instead: None });
    }
    let limits = request.limits.clone();
    let starting = Instant::now();
    let Started { mut running, level, instead } =
        setting.sandbox.start(request, level, preparation.as_ref()).await?;
    PHASE.observe(&["sandbox_start"], starting.elapsed());
    if let Some(next) = next
        && setting.not_given(next.level, next.world).is_none()
    {
        setting.sandbox.announce(&mut running, &next.request, next.level, next.preparation.as_ref()).await;
    }
    let begun = Instant::now();
    let mut exceeded = None;
    loop {
        let (deadline, limit) = deadline(&limits, begun, &reader);
        tokio::select! {
            line = running.next_line() => match line {
                Some(line) => {
                    reader.feed(&line, Instant::now());
                    if reader.is_over() {
                        running.kill().await;
                        break;
                    }
                }
                None => break,
            },
            () = tokio::time::sleep_until(deadline.into()) => {
                exceeded = Some(limit);
                running.kill().await;
                // What was written before the kill still counts.
                while let Some(line) = running.next_line().await {
                    reader.feed(&line, Instant::now());
                }
                break;
            }
            () = stop.cancelled() => {
                running.abandon().await;
                return Err(Unwatched::Stopped);
            }
        }
    }
    let exit = running.finish().await?;
    PHASE.observe(&["run"], begun.elapsed());
    let stray_output = exit.output.to_text();
    let seen = ExitSeen { exit_code: exit.exit_code, oom: exit.oom_killed, timed_out: exceeded };
    Ok(Watched { reading: reader.conclude(seen, &stray_output), stray_output, level, instead })
}

/// The nearest deadline and the limit it stands for: a test's own, collection's, or the attempt's.
fn deadline(limits: &Limits, begun: Instant, reader: &AttemptReader) -> (Instant, Duration) {
    let whole = Duration::from_millis(limits.attempt_timeout_ms);
    let test = Duration::from_millis(limits.test_timeout_ms);
    let nearest = match reader.test_started_at() {
        Some(started) => (started + test, test),
        None => {
            let since = reader.last_event_at().unwrap_or(begun);
            (since + test * COLLECTION_GRACE, test * COLLECTION_GRACE)
        }
    };
    if begun + whole < nearest.0 { (begun + whole, whole) } else { nearest }
}

/// Whether an ending lets the planner count on the attempt's samples.
pub(crate) fn is_infrastructure(end: &AttemptEnd) -> bool {
    match end {
        AttemptEnd::Infrastructure(_) => true,
        AttemptEnd::Completed | AttemptEnd::Interrupted { .. } | AttemptEnd::NothingRan { .. } => false,
    }
}
