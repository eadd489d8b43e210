//! Repairs that the farm carries out: which of them are worked on, begun again after a coordinator's end, given up, and
//! on probation. How one is carried out is for whoever was put in as [`Repairer`]: it asks its questions as sweeps of
//! this farm, each under an id derived from the repair and the question, so that a repair that is begun again finds
//! the answers that it had. One coordinator works on them, under a lease.

use super::beside::Beside;
use super::trouble::Step;
use super::{Coordinator, EngineError, Submission, SubmitError};
use crate::db::{NewEvent, RepairRow, SweepFilter, SweepRow, SweepState};
use crate::events::Event;
use crate::plan::{Question, QuestionKind};
use crate::repairs::{
    OF_REPAIR, Probation, RepairEnd, RepairRequest, RepairState, is_of_repair, probation_question,
};
use crate::report::{TestReport, Verdict};
use flakefarm_shared::{Class, Digest, Refusal, SweepContext, SweepId, WIRE_VERSION, now_micros};
use futures::future::BoxFuture;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

/// How often repairs are polled.
const PAUSE: Duration = Duration::from_secs(1);
/// A repair that failed for a reason of ours is begun again after this.
const AFTER_TROUBLE: Duration = Duration::from_secs(10);
/// Repairs of one project that are worked on at the same time.
const OF_A_PROJECT: usize = 1;
/// Repairs of one project that may wait or run.
const WAITING: u64 = 20;
/// A repair that was begun so often and never ended is given up: perhaps it ends the coordinator itself.
const TRIES: i64 = 5;
/// What is kept of a repair, in bytes: more is refused rather than cut, half a patch is none.
const KEPT_BYTES: usize = 8 << 20;

/// Who carries repairs out.
pub trait Repairer: Send + Sync + fmt::Debug {
    /// Carries out a repair to its end, until `stop`. An error means that nothing is wrong with the repair: it is
    /// begun again.
    fn repair(
        &self,
        job: RepairJob,
        coordinator: Coordinator,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<RepairEnd, RepairTrouble>>;
}

/// A repair to be carried out.
#[derive(Debug, Clone)]
pub struct RepairJob {
    /// Its id.
    pub id: Uuid,
    /// What is asked.
    pub request: RepairRequest,
}

/// Why a repair does not go on now.
#[derive(Debug, thiserror::Error)]
pub enum RepairTrouble {
    /// This process is ending, or the repair was cancelled.
    #[error("it was stopped")]
    Stopped,
    /// Something of ours failed.
    #[error("{0}")]
    Ours(String),
}

/// Who carries out repairs here, and how many at the same time.
#[derive(Debug, Clone)]
pub(super) struct Repairing {
    repairer: Arc<dyn Repairer>,
    at_once: usize,
}

/// Why a repair is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RepairRefused {
    /// This coordinator carries out none.
    #[error("this farm carries out no repairs")]
    NoRepairer,
    /// The project has as many as it may have.
    #[error(
        "the project `{project}` has {WAITING} repairs that have not ended, which is all that it may have"
    )]
    TooMany {
        /// Whose.
        project: String,
    },
    /// It could not be asked as a sweep.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// A repair that this coordinator works on.
#[derive(Debug)]
struct AtWork {
    repair: Uuid,
    project: String,
    stop: CancellationToken,
}

/// Works on repairs until `stop`. One coordinator does.
pub(super) async fn run(coordinator: Coordinator, stop: CancellationToken) {
    let mut working = Beside::new("repairing");
    loop {
        let stepped = coordinator.step_repairs(&mut working, &stop).await;
        coordinator.note(Step::Repairing, &stepped);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = coordinator.wake_repairs.notified() => {}
            () = working.one_ends() => {}
            () = stop.cancelled() => break,
        }
    }
    // Their tokens are children of `stop`: they leave what they do, and another coordinator takes it up.
    working.all_end().await;
}

impl Coordinator {
    /// The same that carries out repairs, so many at the same time.
    pub fn with_repairer(self, repairer: Arc<dyn Repairer>, at_once: usize) -> Self {
        Self { repairing: Some(Repairing { repairer, at_once }), ..self }
    }

    /// Records a repair; it is worked on from now on, by whoever runs the loops.
    pub async fn ask_repair(&self, request: &RepairRequest) -> Result<Uuid, RepairRefused> {
        let id = Uuid::now_v7();
        self.ask_repair_as(id, request).await?;
        Ok(id)
    }

    /// The same under an id that the caller has derived, so that asking twice makes one repair.
    pub async fn ask_repair_as(&self, id: Uuid, request: &RepairRequest) -> Result<(), RepairRefused> {
        if self.repairing.is_none() {
            return Err(RepairRefused::NoRepairer);
        }
        let context = &request.context;
        if context.v != WIRE_VERSION {
            return Err(SubmitError::Version(context.v).into());
        }
        if context.project.name == crate::control::CONTROL {
            return Err(SubmitError::Reserved.into());
        }
        let project = context.project.name.clone();
        let open = self.db.unfinished_repairs(&project).await.map_err(engine)?;
        if open >= WAITING {
            return Err(RepairRefused::TooMany { project });
        }
        let until = now_micros() + crate::garbage::LEASE_MICROS;
        let base = request.base.as_ref().map(|base| &base.snapshot);
        for snapshot in std::iter::once(&context.snapshot).chain(base) {
            // From here on nobody collects it, until a row refers to it.
            self.db.lease_blob(snapshot, until).await.map_err(engine)?;
            if !self.blobs.contains(snapshot).await.map_err(engine)? {
                return Err(SubmitError::NoSnapshot(snapshot.clone()).into());
            }
            self.charge(&project, snapshot).await.map_err(SubmitError::from)?.map_err(SubmitError::from)?;
        }
        let row = RepairRow {
            id,
            project,
            state: RepairState::Queued.word().to_owned(),
            class: request.class.word().to_owned(),
            request: serde_json::to_string(request).expect("a request serialises"),
            source: request.source.clone(),
            created_at: now_micros(),
            started_at: None,
            ended_at: None,
            tries: 0,
            told: None,
            patch: None,
            repaired: None,
            mended: None,
            refusal: None,
            probation: None,
            accepted_at: None,
            concluded_at: None,
        };
        self.db.create_repair(&row).await.map_err(engine)?;
        info!(repair.id = %id, project = row.project, "repair asked for");
        self.wake_repairs.notify_one();
        Ok(())
    }

    /// Ends a repair that has not ended, and its sweeps; gives whether there was something to end.
    pub async fn cancel_repair(&self, row: &RepairRow) -> Result<bool, EngineError> {
        let end = RepairEnd::without(RepairState::Cancelled, None);
        let ended = self.end_repair(row, &end).await?;
        self.end_sweeps_of(row.id).await?;
        self.wake_repairs.notify_one();
        Ok(ended)
    }

    /// Accepts what a repair proved: the mended tests run on in the background. Gives the sweep; none if nothing of it
    /// waits to be accepted.
    pub async fn accept_repair(&self, row: &RepairRow) -> Result<Option<SweepId>, RepairRefused> {
        let (Ok(RepairState::Proved), Some(repaired)) = (row.state(), &row.repaired) else { return Ok(None) };
        let request = request_of(row).map_err(SubmitError::from)?;
        let id = sweep_of(row.id, "probation");
        let snapshot: Digest = repaired.parse().map_err(|_| {
            SubmitError::from(EngineError::unusable("the repaired tree is not known".to_owned(), repaired))
        })?;
        let submission = Submission {
            context: SweepContext { snapshot, ..request.context },
            question: probation_question(request.question, &row.mended()),
            class: Class::Bulk,
            source: probation_of(row.id),
        };
        self.submit_as(id, &submission).await?;
        if !self.db.accept_repair(row.id, id, now_micros()).await.map_err(engine)? {
            return Ok(None);
        }
        self.tell_state(row, RepairState::Probation).await.map_err(SubmitError::from)?;
        Ok(Some(id))
    }

    /// How the project of a sweep is run, and its snapshot.
    pub async fn context_of(&self, row: &SweepRow) -> Result<SweepContext, EngineError> {
        self.context(row).await
    }

    /// The last revision before a sweep that was green: the newest sweep of the same project, older than this one and of
    /// another tree, in which tests ran and none was broken. Its name and its snapshot; none among the last `most`
    /// sweeps of the farm.
    pub async fn last_green(
        &self,
        than: &SweepRow,
        snapshot: &Digest,
        most: u32,
    ) -> Result<Option<(String, Digest)>, EngineError> {
        let filter = SweepFilter {
            projects: Some(vec![than.project.clone()]),
            state: Some("answered".to_owned()),
            before: Some(than.id),
        };
        for row in self.db.sweeps_page(&filter, most).await? {
            let question = serde_json::from_str::<Question>(&row.question);
            let detects = question.is_ok_and(|question| {
                question.kind == QuestionKind::Detect
                    && question.rerun.is_none()
                    && question.tests.0.is_empty()
            });
            if !detects || is_of_repair(&row.source) {
                continue;
            }
            let Ok(context) = self.context(&row).await else { continue };
            if context.snapshot == *snapshot || !self.blobs.contains(&context.snapshot).await? {
                continue;
            }
            let Ok(report) = self.report(row.id).await else { continue };
            let is_broken = |test: &TestReport| test.verdict == Verdict::Broken;
            if report.tests.is_empty() || report.tests.iter().any(is_broken) {
                continue;
            }
            let name = context.revision.unwrap_or_else(|| format!("sweep {}", row.id));
            return Ok(Some((name, context.snapshot)));
        }
        Ok(None)
    }

    /// How the further runs of an accepted repair stand.
    pub async fn probation(&self, row: &RepairRow) -> Result<Option<Probation>, EngineError> {
        let Some(sweep) = row.probation.map(SweepId) else { return Ok(None) };
        let Some(found) = self.db.sweep(sweep).await? else { return Ok(Some(Probation::Ended(0))) };
        let ended = !matches!(found.state, SweepState::Running);
        Ok(Some(Probation::of(&self.report(sweep).await?, &row.mended(), ended)))
    }

    /// Notes what a repair does or has found; the same place and line again changes nothing.
    pub async fn tell_repair(
        &self,
        repair: Uuid,
        project: &str,
        place: u64,
        line: &str,
    ) -> Result<(), EngineError> {
        let digest = Digest::of(line.as_bytes());
        let event = NewEvent {
            key: format!("repair/{repair}/{place}/{}", &digest.as_str()[..16]),
            at: now_micros(),
            project: Some(project.to_owned()),
            sweep: Some(SweepId(repair)),
            event: Event::RepairTold { repair, line: line.to_owned() },
        };
        Ok(self.db.record_events(&[event]).await?)
    }

    async fn tell_state(&self, row: &RepairRow, state: RepairState) -> Result<(), EngineError> {
        let event = NewEvent {
            key: format!("repair/{}/{state}", row.id),
            at: now_micros(),
            project: Some(row.project.clone()),
            sweep: Some(SweepId(row.id)),
            event: Event::RepairChanged {
                repair: row.id,
                state: state.word().to_owned(),
                about: row.source.clone(),
            },
        };
        self.db.record_events(&[event]).await?;
        self.wake_relay.notify_one();
        Ok(())
    }

    async fn step_repairs(
        &self,
        working: &mut Beside<AtWork>,
        stop: &CancellationToken,
    ) -> Result<(), EngineError> {
        let open = self.db.open_repairs().await?;
        for at_work in working.each().filter(|at_work| !open.iter().any(|row| row.id == at_work.repair)) {
            at_work.stop.cancel();
        }
        for row in &open {
            match row.state() {
                Ok(RepairState::Probation) => self.look_after(row).await?,
                Ok(_) => self.begin_repair(row, working, stop).await?,
                // Of a newer program.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Concludes a probation that is over.
    async fn look_after(&self, row: &RepairRow) -> Result<(), EngineError> {
        let Some(probation) = self.probation(row).await? else { return Ok(()) };
        let Some(state) = probation.conclusion() else { return Ok(()) };
        if self.db.conclude_repair(row.id, state, now_micros()).await? {
            info!(repair.id = %row.id, state = state.word(), "a probation is over");
            // One that has relapsed runs no further.
            self.end_sweeps(&probation_of(row.id)).await?;
            self.tell_state(row, state).await?;
        }
        Ok(())
    }

    /// Begins with a repair if there is room.
    async fn begin_repair(
        &self,
        row: &RepairRow,
        working: &mut Beside<AtWork>,
        stop: &CancellationToken,
    ) -> Result<(), EngineError> {
        let Some(Repairing { repairer, at_once }) = &self.repairing else { return Ok(()) };
        let others: Vec<&AtWork> = working.each().collect();
        let of_project = others.iter().filter(|other| other.project == row.project).count();
        if others.iter().any(|other| other.repair == row.id)
            || others.len() >= *at_once
            || of_project >= OF_A_PROJECT
        {
            return Ok(());
        }
        let request = match request_of(row) {
            Ok(_) if row.tries >= TRIES => {
                Err(refusal(format!("it was begun {TRIES} times, and no coordinator came to its end")))
            }
            Ok(request) => Ok(request),
            Err(error) => Err(refusal(error.to_string())),
        };
        let request = match request {
            Ok(request) => request,
            Err(refusal) => {
                let end = RepairEnd::without(RepairState::Failed, Some(refusal));
                self.end_repair(row, &end).await?;
                return self.end_sweeps_of(row.id).await;
            }
        };
        if !self.db.begin_repair(row.id, now_micros()).await? {
            return Ok(());
        }
        self.tell_state(row, RepairState::Running).await?;
        let token = stop.child_token();
        let job = RepairJob { id: row.id, request };
        let (coordinator, repairer, row, ending) =
            (self.clone(), repairer.clone(), row.clone(), token.clone());
        let at_work = AtWork { repair: row.id, project: row.project.clone(), stop: token };
        working.begin(at_work, async move {
            let carried = repairer.repair(job, coordinator.clone(), ending.clone()).await;
            if let Err(error) = coordinator.close_repair(&row, carried, &ending).await {
                // It stays open, and is begun again.
                warn!(repair.id = %row.id, error = flakefarm_shared::chain(&error), "a repair could not be ended");
            }
        });
        Ok(())
    }

    /// Records how a repair went.
    async fn close_repair(
        &self,
        row: &RepairRow,
        carried: Result<RepairEnd, RepairTrouble>,
        ending: &CancellationToken,
    ) -> Result<(), EngineError> {
        match carried {
            Ok(end) if kept_bytes(&end) > KEPT_BYTES => {
                let words = format!("what it found is larger than {} MiB", KEPT_BYTES >> 20);
                let end = RepairEnd::without(RepairState::Failed, Some(refusal(words)));
                self.end_repair(row, &end).await?;
            }
            Ok(end) => {
                self.end_repair(row, &end).await?;
            }
            Err(RepairTrouble::Stopped) => {
                self.db.leave_repair(row.id).await?;
            }
            Err(trouble @ RepairTrouble::Ours(_)) if row.tries + 1 >= TRIES => {
                let end = RepairEnd::without(RepairState::Failed, Some(refusal(trouble.to_string())));
                self.end_repair(row, &end).await?;
            }
            Err(trouble @ RepairTrouble::Ours(_)) => {
                warn!(repair.id = %row.id, error = %trouble, "a repair does not go on, and is begun again");
                tokio::select! {
                    () = tokio::time::sleep(AFTER_TROUBLE) => {}
                    () = ending.cancelled() => {}
                }
            }
        }
        // Of one that was cancelled, what it asked last may still run.
        let is_over = self.db.repair(row.id).await?.is_none_or(|row| row.ended_at.is_some());
        if is_over { self.end_sweeps_of(row.id).await } else { Ok(()) }
    }

    async fn end_repair(&self, row: &RepairRow, end: &RepairEnd) -> Result<bool, EngineError> {
        if !self.db.end_repair(row.id, end, now_micros()).await? {
            return Ok(false);
        }
        info!(repair.id = %row.id, state = end.state.word(), "repair ended");
        self.tell_state(row, end.state).await?;
        Ok(true)
    }

    /// Ends what a repair has asked and nobody waits for any more.
    async fn end_sweeps_of(&self, repair: Uuid) -> Result<(), EngineError> {
        self.end_sweeps(&source_of(repair)).await
    }

    async fn end_sweeps(&self, source: &str) -> Result<(), EngineError> {
        for sweep in self.db.unfinished_sweeps().await? {
            if sweep.source == source {
                self.cancel(&sweep).await?;
            }
        }
        Ok(())
    }
}

/// The sweep that answers a question of a repair.
pub fn sweep_of(repair: Uuid, question: &str) -> SweepId {
    SweepId(Uuid::new_v5(&repair, question.as_bytes()))
}

/// Where the sweeps of a repair say that they come from.
pub fn source_of(repair: Uuid) -> String {
    format!("{OF_REPAIR}{repair}")
}

fn probation_of(repair: Uuid) -> String {
    format!("{OF_REPAIR}on probation {repair}")
}

fn engine(error: impl Into<EngineError>) -> SubmitError {
    SubmitError::Engine(error.into())
}

fn request_of(row: &RepairRow) -> Result<RepairRequest, EngineError> {
    serde_json::from_str(&row.request).map_err(|error| {
        EngineError::unusable(format!("repair {} cannot be read", row.id), &error.to_string())
    })
}

fn refusal(message: String) -> Refusal {
    Refusal { message, log: String::new(), hint: Some("the coordinator's log says more".to_owned()) }
}

fn kept_bytes(end: &RepairEnd) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    length(&end.told) + length(&end.patch)
}
