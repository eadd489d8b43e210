//! Sweeps: submit, advance, finish. Advancing reads the recorded jobs, folds new reports into the
//! ledger, asks the planner, and records what it wants; nothing else decides.

use super::trouble::Step;
use super::{Coordinator, EngineError, next_round};
use crate::db::{JobState, NewJob, NewSweep, Settlement, SweepRow, SweepState};
use crate::diagnose::bisect;
use crate::events::Event;
use crate::plan::{self, History, Ledger, Planning, Question};
use crate::report::{self, Report, Stopped, SweepMeta};
use flakefarm_shared::{
    Class, Control, Digest, JobId, JobReport, JobSpec, Listing, Refusal, SweepContext, SweepId, TestId,
    WIRE_VERSION, Work, now_micros,
};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between two rounds of planning, however long the first took.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
pub(super) const LIST_KEY: &str = "list";
/// A worker silent for this long is not counted in estimates.
const WORKER_SILENCE_MICROS: i64 = 45_000_000;

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
    /// Ours failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Coordinator {
    /// Records a sweep; it is worked on from now on, by whoever runs the loops.
    pub async fn submit(&self, submission: &Submission) -> Result<SweepId, SubmitError> {
        let context = &submission.context;
        if context.v != WIRE_VERSION {
            return Err(SubmitError::Version(context.v));
        }
        if !self.blobs.contains(&context.snapshot).await.map_err(EngineError::from)? {
            return Err(SubmitError::NoSnapshot(context.snapshot.clone()));
        }
        let context_digest = self.blobs.put_json(context).await.map_err(EngineError::from)?;
        let id = SweepId::new();
        let sweep = NewSweep {
            id,
            project: context.project.name.clone(),
            revision: context.revision.clone(),
            question: serde_json::to_string(&submission.question).expect("a question serialises"),
            context: context_digest,
            class: submission.class,
            seed: submission.question.seed,
            source: submission.source.clone(),
            created_at: now_micros(),
        };
        self.take_up(id);
        self.db.create_sweep(&sweep).await.map_err(EngineError::from)?;
        info!(sweep.id = %id, project = %sweep.project, "sweep submitted");
        self.wake.notify_one();
        Ok(id)
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
        if matches!(self.realm, super::Realm::One(_)) {
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

    /// Ends a sweep early. What is known is reported; an interrupted one may be resumed.
    pub async fn stop_sweep(&self, sweep: SweepId, state: SweepState) -> Result<Report, EngineError> {
        let Some(row) = self.db.sweep(sweep).await? else {
            return Err(crate::db::DbError::NotFound(format!("sweep {sweep}")).into());
        };
        if !matches!(row.state, SweepState::Running) {
            return self.report(sweep).await;
        }
        if let Err(error) = self.queue.broadcast(&Control::Cancel { sweep }).await {
            warn!(sweep.id = %sweep, error = %error, "workers were not told; they find out by themselves");
        }
        if matches!(state, SweepState::Cancelled) {
            self.db.cancel_jobs(sweep, now_micros()).await?;
        }
        self.fold(&row).await?;
        self.finish(&row, state, Spent::Enough).await?;
        self.report(sweep).await
    }

    /// The report of a sweep: final if it has ended, else of what is known.
    pub async fn report(&self, sweep: SweepId) -> Result<Report, EngineError> {
        let Some(row) = self.db.sweep(sweep).await? else {
            return Err(crate::db::DbError::NotFound(format!("sweep {sweep}")).into());
        };
        if let Some(report) = &row.report {
            return Ok(self.blobs.get_json(report, "a report").await?);
        }
        self.fold(&row).await?;
        self.build_report(&row, &row.state, Spent::Enough).await
    }

    pub(super) async fn listing(&self, row: &SweepRow) -> Result<Option<Listing>, EngineError> {
        match &row.listing {
            Some(digest) => Ok(Some(self.blobs.get_json(digest, "a listing").await?)),
            None => Ok(None),
        }
    }

    async fn build_report(
        &self,
        row: &SweepRow,
        state: &SweepState,
        spent: Spent,
    ) -> Result<Report, EngineError> {
        let question = question_of(row);
        let listing = self.listing(row).await?;
        let memory = self.memory.lock().await;
        let nothing = (Ledger::new(Vec::new()), History::default());
        let (ledger, history) =
            memory.get(&row.id).map_or((&nothing.0, &nothing.1), |memory| (&memory.ledger, &memory.history));
        let meta = SweepMeta {
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
            root: None,
            collection_errors: listing
                .map(|listing| listing.collection_errors)
                .unwrap_or_default()
                .into_iter()
                .map(|error| report::model::CollectionError { path: error.path, message: error.message })
                .collect(),
            notes: Vec::new(),
        };
        Ok(report::build(meta, &question, ledger, history))
    }

    /// The next step of one running sweep.
    async fn advance(&self, row: &SweepRow) -> Result<(), EngineError> {
        if row.listing.is_none() {
            return self.advance_listing(row).await;
        }
        self.fold(row).await?;
        let question = question_of(row);
        let (planned, progress) = {
            let memory = self.memory.lock().await;
            let Some(memory) = memory.get(&row.id) else { return Ok(()) };
            let elapsed =
                Duration::from_micros(now_micros().saturating_sub(row.created_at).max(0).unsigned_abs());
            let planned = plan::plan(&question, &memory.ledger, &memory.history, elapsed);
            let progress = progress(row.id, &memory.ledger, &planned);
            (planned, progress)
        };
        self.events.send(self.with_slots(progress).await?);
        let wanted = planned.jobs.into_iter().map(|job| (job.key, Work::Run { attempts: job.attempts }));
        let new_jobs = self.new_jobs(row, wanted).await?;
        if !new_jobs.is_empty() {
            self.db.insert_jobs(row.id, &new_jobs, now_micros()).await?;
            self.wake_outbox.notify_one();
            return Ok(());
        }
        let spent = if planned.limited { Spent::Everything } else { Spent::Enough };
        match planned.state {
            Planning::Working => {}
            Planning::Complete => self.finish(row, SweepState::Answered, spent).await?,
            Planning::Overdue => {
                // Once the sweep has ended, nobody hands its jobs out; workers are only told sooner.
                self.finish(row, SweepState::Answered, spent).await?;
                if let Err(error) = self.queue.broadcast(&Control::Cancel { sweep: row.id }).await {
                    warn!(sweep.id = %row.id, error = %error, "workers were not told; they find out by themselves");
                }
                self.db.cancel_jobs(row.id, now_micros()).await?;
            }
        }
        Ok(())
    }

    async fn advance_listing(&self, row: &SweepRow) -> Result<(), EngineError> {
        let Some(job) = self.db.job(JobId::derive(row.id, LIST_KEY)).await? else {
            let jobs = self.new_jobs(row, [(LIST_KEY.to_owned(), Work::List)]).await?;
            self.db.insert_jobs(row.id, &jobs, now_micros()).await?;
            self.wake_outbox.notify_one();
            return Ok(());
        };
        let JobState::Settled { settlement, .. } = &job.state else { return Ok(()) };
        let refusal = match settlement {
            Settlement::Done { report } => {
                let report: JobReport = self.blobs.unpack(report, "a job report").await?;
                let listing = report.listing.expect("a list job reports a listing");
                let question = question_of(row);
                let unmatched = question.unmatched(&listing.tests);
                let selected =
                    if unmatched.is_empty() { question.targets(&listing.tests) } else { Vec::new() };
                let digest = self.blobs.put_json(&listing).await?;
                self.db.set_listing(row.id, &digest).await?;
                if let Err(error) = self.affords_one_round(row, &question, &selected, &listing).await? {
                    let refusal = Refusal {
                        message: error.to_string(),
                        log: String::new(),
                        hint: Some("raise --budget, or select fewer tests with --tests".to_owned()),
                    };
                    return self.finish(row, SweepState::Failed(refusal), Spent::Enough).await;
                }
                let selected = selected.len();
                if selected > 0 {
                    self.events.send(Event::Listed {
                        sweep: row.id,
                        tests: selected,
                        collection_errors: listing.collection_errors.len(),
                    });
                    self.wake.notify_one();
                    return Ok(());
                }
                no_such_test(&question, &listing.tests)
            }
            Settlement::Refused(refusal) => refusal.clone(),
            Settlement::Dead { reason } => Refusal {
                message: "the farm could not list the tests".to_owned(),
                log: reason.clone(),
                hint: Some("flakefarm doctor says what is wrong with this machine".to_owned()),
            },
            Settlement::Cancelled => return Ok(()),
        };
        self.finish(row, SweepState::Failed(refusal), Spent::Enough).await
    }

    async fn new_jobs(
        &self,
        row: &SweepRow,
        wanted: impl IntoIterator<Item = (String, Work)>,
    ) -> Result<Vec<NewJob>, EngineError> {
        let question = question_of(row);
        let (mut keys, mut specs) = (Vec::new(), Vec::new());
        for (key, work) in wanted {
            specs.push(JobSpec {
                v: WIRE_VERSION,
                id: JobId::derive(row.id, &key),
                sweep: row.id,
                class: row.class,
                context: self.context_of(row, &question, &key).await?,
                work,
            });
            keys.push(key);
        }
        let stored = self.blobs.pack_all(&specs).await?;
        let jobs = keys.into_iter().zip(&specs).zip(stored).map(|((key, spec), stored)| NewJob {
            id: spec.id,
            key,
            class: spec.class,
            spec: stored,
            attempts: match &spec.work {
                Work::List => 0,
                Work::Run { attempts } => u32::try_from(attempts.len()).expect("a job is bounded"),
            },
        });
        Ok(jobs.collect())
    }

    /// The context that attempts of the job `key` run in: the sweep's own, but for the snapshot where a
    /// bisection asks another revision.
    async fn context_of(
        &self,
        row: &SweepRow,
        question: &Question,
        key: &str,
    ) -> Result<Digest, EngineError> {
        let Some(snapshot) = bisect::snapshot_of(question, key) else { return Ok(row.context.clone()) };
        let own = self.context(row).await?;
        Ok(self.blobs.put_json(&SweepContext { snapshot: snapshot.clone(), ..own }).await?)
    }

    pub(super) async fn context(&self, row: &SweepRow) -> Result<SweepContext, EngineError> {
        Ok(self.blobs.get_json(&row.context, "a sweep's context").await?)
    }

    async fn with_slots(&self, mut event: Event) -> Result<Event, EngineError> {
        if let Event::Progress { slots, .. } = &mut event {
            let now = now_micros();
            *slots = self
                .db
                .workers()
                .await?
                .iter()
                .filter(|worker| now - worker.seen_at < WORKER_SILENCE_MICROS)
                .map(|worker| u32::from(worker.slots))
                .sum();
        }
        Ok(event)
    }

    async fn finish(&self, row: &SweepRow, state: SweepState, spent: Spent) -> Result<(), EngineError> {
        let report = self.build_report(row, &state, spent).await?;
        let finished_at = now_micros();
        if let Some(listing) = self.listing(row).await? {
            self.remember(row, &listing, &report, finished_at).await?;
        }
        // An interrupted sweep has no final report: it may go on.
        let digest = match &state {
            SweepState::Interrupted | SweepState::Running => None,
            SweepState::Answered | SweepState::Cancelled | SweepState::Failed(_) => {
                Some(self.blobs.put_json(&report).await?)
            }
        };
        self.db.finish_sweep(row.id, &state, finished_at, digest.as_ref()).await?;
        if digest.is_some() {
            self.memory.lock().await.remove(&row.id);
        }
        info!(sweep.id = %row.id, sweep.state = state.word(), "sweep ended");
        self.events.send(Event::Finished { sweep: row.id, state: state.word().to_owned() });
        Ok(())
    }
}

pub(super) async fn run(coordinator: Coordinator, stop: CancellationToken) {
    loop {
        let begun = Instant::now();
        let advanced = advance_all(&coordinator).await;
        coordinator.note(Step::Planning, &advanced);
        // Ends come faster than a large sweep is planned: at most half of the time goes into planning.
        tokio::time::sleep(begun.elapsed().min(LONGEST_PAUSE)).await;
        if !next_round(&coordinator.wake, &stop).await {
            return;
        }
    }
}

/// One step of every running sweep. A sweep that cannot take its step does not hold up the others.
async fn advance_all(coordinator: &Coordinator) -> Result<(), EngineError> {
    let rows = coordinator.db.unfinished_sweeps().await?;
    let ours = |row: &&SweepRow| matches!(row.state, SweepState::Running) && coordinator.works_on(row.id);
    let mut advanced = Ok(());
    for row in rows.iter().filter(ours) {
        if let Err(error) = coordinator.advance(row).await {
            warn!(sweep.id = %row.id, "sweep could not advance");
            advanced = Err(error);
        }
    }
    advanced
}

/// Whether the budget left something unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spent {
    Enough,
    Everything,
}

fn stopped(state: &SweepState, spent: Spent) -> Option<Stopped> {
    match state {
        SweepState::Running => None,
        SweepState::Answered if spent == Spent::Everything => Some(Stopped::Budget),
        SweepState::Answered | SweepState::Failed(_) => Some(Stopped::Answered),
        SweepState::Interrupted | SweepState::Cancelled => Some(Stopped::Cancelled),
    }
}

pub(super) fn question_of(row: &SweepRow) -> Question {
    serde_json::from_str(&row.question).expect("a recorded question was serialised by this program's version")
}

fn progress(sweep: SweepId, ledger: &Ledger, planned: &plan::Plan) -> Event {
    let tally = ledger.tally();
    Event::Progress {
        sweep,
        attempts: ledger.attempts(),
        remaining: planned.remaining.attempts,
        remaining_seconds: planned.remaining.container_seconds,
        flaky: tally.both,
        failing: tally.only_failed,
        infrastructure_errors: ledger.infrastructure_errors(),
        slots: 0,
    }
}

fn no_such_test(question: &Question, tests: &[TestId]) -> Refusal {
    match question.unmatched(tests).as_slice() {
        [] => Refusal {
            message: "the selection matches no test".to_owned(),
            log: nearest_tests(&question.tests.describe(), tests),
            hint: Some("--tests takes ids, parts of ids or patterns with *".to_owned()),
        },
        unmatched => Refusal {
            message: format!("no test is called {}", unmatched.join(", ")),
            log: nearest_tests(&unmatched.join(", "), tests),
            hint: Some("a test is named by its id, a part of it or a pattern with *".to_owned()),
        },
    }
}

/// Up to five ids that share a word with the pattern, for people who mistyped one.
fn nearest_tests(wanted: &str, tests: &[TestId]) -> String {
    let mut ranked: Vec<_> =
        tests.iter().map(|test| (common_prefix(wanted, test.as_str()), test.as_str())).collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let nearest: Vec<_> = ranked.into_iter().take(5).map(|(_, test)| test).collect();
    format!("wanted: {wanted}\nthere are {} tests, such as:\n  {}", tests.len(), nearest.join("\n  "))
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}
