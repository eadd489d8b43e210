//! Embedded mode: the coordinator's loops and one worker in this process, over SQLite, an
//! in-process queue and a directory. The same code as a farm; only the adapters differ.

use crate::exit::{Complaint, Exit};
use crate::progress::Progress;
use crate::role_settings::retention_here;
use crate::stores;
use flakefarm_coordinator::db::{Db, SweepRow, SweepState};
use flakefarm_coordinator::events::Event;
use flakefarm_coordinator::plan::SandboxChoice;
use flakefarm_coordinator::report::Report;
use flakefarm_coordinator::{Coordinator, Submission, engine};
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::queue::{Queue, Role};
use flakefarm_shared::{SandboxLevel, SweepId, WorkerId};
use flakefarm_worker::ceilings::Ceilings;
use flakefarm_worker::environment::{Environments, LocalPlaces};
use flakefarm_worker::sandbox::{DockerSandbox, Engine, LocalSandbox, RuntimeChoice, Sandbox};
use flakefarm_worker::{Ending, WorkerParts};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long the stores of this process may fail before it gives up: there is nobody who would mend
/// them while it waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// Embedded farms that this process has opened.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// A coordinator and a worker over a state directory, not yet moving.
pub(crate) struct Embedded {
    pub(crate) coordinator: Coordinator,
    pub(crate) blobs: Blobs,
    worker: WorkerParts,
}

/// What to do with the embedded farm.
pub(crate) enum Task<'a> {
    /// A new sweep.
    Submit(&'a Submission),
    /// An interrupted one.
    Resume(&'a SweepRow),
}

impl Embedded {
    pub(crate) async fn open(
        state: &Path,
        slots: NonZeroU16,
        sandbox: SandboxChoice,
        runtime: &RuntimeChoice,
    ) -> Result<Self, Complaint> {
        // Several may be open in one process, and a worker that begins removes what another of its name has left.
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let id = WorkerId(match number {
            0 => format!("embedded-{process}"),
            number => format!("embedded-{process}-{number}"),
        });
        let ground = Ground::of(sandbox, runtime, &id, state).await?;
        let blobs = stores::open_blobs(&format!("file://{}", state.join("blobs").display()))?;
        let db = open_database(state).await?;
        let samples = stores::open_samples(
            &format!("embedded:{}", state.join("samples.db").display()),
            &retention_here()?,
        )
        .await?;
        let queue = stores::open_queue("embedded:", Role::Coordinator)?;
        let coordinator = Coordinator::embedded(db, queue.clone(), blobs.clone(), engine::DEFAULT_LEASE);
        let worker = match ground {
            Ground::Engine(docker) => {
                let ceilings = Ceilings::default();
                let parts = worker_parts(id, slots, queue, samples, blobs.clone(), docker, ceilings);
                WorkerParts { environments: environments_of(state, &blobs).await?, ..parts }
            }
            Ground::Machine(sandbox) => {
                let places = LocalPlaces::new(state.join("places"), blobs.clone());
                let (environments, sandbox) = (Environments::Local(places), Sandbox::Local(sandbox));
                WorkerParts {
                    id,
                    slots,
                    queue,
                    samples,
                    blobs: blobs.clone(),
                    environments,
                    sandbox,
                    spool: None,
                    health: None,
                    ceilings: Ceilings::default(),
                }
            }
        };
        Ok(Self { coordinator, blobs, worker })
    }

    /// Reports of the project's last sweeps, the newest first.
    pub(crate) async fn earlier_reports(&self, project: &str, most: usize) -> Vec<Report> {
        let rows = self.coordinator.db().sweeps(100).await.unwrap_or_default();
        let mut reports = Vec::new();
        for row in rows.iter().filter(|row| row.project == project && row.finished_at.is_some()).take(most) {
            reports.extend(self.coordinator.report(row.id).await);
        }
        reports
    }

    /// Works until the sweep has ended or `stop`, which leaves it ready to be resumed.
    pub(crate) async fn run(
        self,
        task: Task<'_>,
        progress: &mut Progress,
        stop: CancellationToken,
    ) -> Result<(SweepRow, Report), Complaint> {
        let Self { coordinator, worker, .. } = self;
        let mut events = coordinator.subscribe();
        let sweep = match task {
            Task::Submit(submission) => coordinator.submit(submission).await?,
            Task::Resume(row) => {
                coordinator.resume(row.id).await?;
                row.id
            }
        };
        let loops_end = CancellationToken::new();
        let ending = Ending::default();
        let loops = tokio::spawn({
            let (coordinator, end) = (coordinator.clone(), loops_end.clone());
            async move { coordinator.run(end).await }
        });
        let working = tokio::spawn(flakefarm_worker::run(worker, ending.clone()));

        let outcome = watch(&coordinator, &mut events, sweep, progress, &stop).await;
        if matches!(outcome, Watched::Interrupted) {
            progress.note("stopping; a second Ctrl-C stops at once");
        }
        ending.stop.cancel();
        let ended = async move {
            if let Err(error) = working.await {
                tracing::error!("the worker has failed: {error}");
            }
        };
        let looped = async move {
            loops_end.cancel();
            if let Err(error) = loops.await {
                tracing::error!("the coordinator has failed: {error}");
            }
        };
        let report = match outcome {
            // The answer is there, and somebody may wait for it: what is left behind goes meanwhile.
            Watched::Finished => {
                let report = coordinator.report(sweep).await.map_err(Complaint::from);
                leave(async move {
                    ended.await;
                    looped.await;
                });
                report
            }
            Watched::Interrupted => {
                ended.await;
                let report = coordinator.stop_sweep(sweep, SweepState::Interrupted).await;
                looped.await;
                report.map_err(Complaint::from)
            }
            Watched::StandsStill(message) => {
                ended.await;
                looped.await;
                Err(Complaint::farm(message).hint(
                    "nothing that was recorded is lost: once this is mended, the same command with --resume goes on",
                ))
            }
        };
        progress.clear();
        Ok((row(&coordinator, sweep).await?, report?))
    }
}

/// Where attempts find what they run in, by state directory: for all that this process asks, so that equal questions at
/// the same time make it once, and those after them find it.
static ENVIRONMENTS: tokio::sync::Mutex<Vec<(PathBuf, Engine, Environments)>> =
    tokio::sync::Mutex::const_new(Vec::new());

async fn environments_of(state: &Path, blobs: &Blobs) -> Result<Environments, Complaint> {
    let mut known = ENVIRONMENTS.lock().await;
    if let Some((_, _, environments)) = known.iter().find(|(of, ..)| of == state) {
        return Ok(environments.clone());
    }
    let engine = connect_engine(WorkerId(format!("embedded-{}-environments", std::process::id()))).await?;
    let environments =
        Environments::new(engine.clone(), blobs.clone()).with_setup(Ceilings::default().setup.clone());
    known.push((state.to_owned(), engine, environments.clone()));
    Ok(environments)
}

/// Workers and coordinators of this process whose sweeps have ended, and which are still putting things away.
static LEAVING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

fn leave(leaving: impl Future<Output = ()> + Send + 'static) {
    LEAVING.lock().expect("no holder panics").push(tokio::spawn(leaving));
}

/// Waits until nothing of embedded sweeps is left. To be called before the process ends.
pub(crate) async fn all_left() {
    let leaving = std::mem::take(&mut *LEAVING.lock().expect("no holder panics"));
    for one in leaving {
        if let Err(error) = one.await {
            tracing::error!("putting away after a sweep has failed: {error}");
        }
    }
    for (_, engine, _) in std::mem::take(&mut *ENVIRONMENTS.lock().await) {
        engine.close().await;
    }
}

/// How watching a sweep ended.
enum Watched {
    Finished,
    Interrupted,
    /// The stores of this process have failed for too long.
    StandsStill(String),
}

/// Shows what happens to a sweep until it ends or cannot go on.
async fn watch(
    coordinator: &Coordinator,
    events: &mut Receiver<Event>,
    sweep: SweepId,
    progress: &mut Progress,
    stop: &CancellationToken,
) -> Watched {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = stop.cancelled() => return Watched::Interrupted,
        };
        let event = match event {
            Ok(event) if event.concerns(sweep) => event,
            Ok(_) => continue,
            Err(RecvError::Lagged(_)) if has_ended(coordinator, sweep).await => return Watched::Finished,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return Watched::Finished,
        };
        progress.show(&event);
        match event {
            Event::Finished { .. } => return Watched::Finished,
            Event::Trouble { message, seconds } if seconds >= PATIENCE.as_secs() => {
                return Watched::StandsStill(message);
            }
            Event::Trouble { .. }
            | Event::Preparing { .. }
            | Event::Listed { .. }
            | Event::Progress { .. }
            | Event::Submitted { .. }
            | Event::VerdictChanged { .. }
            | Event::JobDead { .. }
            | Event::QuarantineChanged { .. }
            | Event::FiringFailed { .. }
            | Event::FarmDoubted { .. }
            | Event::RepairTold { .. }
            | Event::RepairChanged { .. }
            | Event::WorkerGone { .. } => {}
        }
    }
}

/// Whether a sweep's row says that it has ended: the event may be among those that were missed.
async fn has_ended(coordinator: &Coordinator, sweep: SweepId) -> bool {
    let row = coordinator.db().sweep(sweep).await;
    row.is_ok_and(|row| row.is_some_and(|row| !matches!(row.state, SweepState::Running)))
}

/// What attempts run on.
enum Ground {
    Engine(DockerSandbox),
    Machine(LocalSandbox),
}

impl Ground {
    async fn of(
        sandbox: SandboxChoice,
        runtime: &RuntimeChoice,
        worker: &WorkerId,
        state: &Path,
    ) -> Result<Self, Complaint> {
        let level = match sandbox {
            SandboxChoice::Container
            | SandboxChoice::Nested
            | SandboxChoice::Forked
            | SandboxChoice::ForkedOnly
            | SandboxChoice::Auto => {
                let network = Ceilings::default();
                let docker = connect_docker(worker.clone(), runtime, network.network_name()).await?;
                return Ok(Ground::Engine(docker.remembering(state.join("runtime"))));
            }
            SandboxChoice::Host => SandboxLevel::Host,
            SandboxChoice::Process => SandboxLevel::Process,
        };
        let local = LocalSandbox::new(level).map_err(|error| Complaint::farm(error.to_string()))?;
        local.check().await.map_err(|why| {
            Complaint::farm(format!("this machine cannot isolate attempts without a container engine: {why}"))
                .hint(
                    "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
                     kernel.apparmor_restrict_unprivileged_userns), or start Docker and leave --sandbox out",
                )
        })?;
        Ok(Ground::Machine(local))
    }
}

/// The embedded farm's database.
pub(crate) async fn open_database(state: &Path) -> Result<Db, Complaint> {
    stores::open_database(&format!("sqlite:{}", state.join("farm.db").display())).await
}

async fn row(coordinator: &Coordinator, sweep: SweepId) -> Result<SweepRow, Complaint> {
    coordinator
        .db()
        .sweep(sweep)
        .await?
        .ok_or_else(|| Complaint::farm(format!("sweep {sweep} has disappeared")))
}

/// Connects to the container engine and checks that it will do.
pub(crate) async fn connect_engine(worker: WorkerId) -> Result<Engine, Complaint> {
    let engine = Engine::connect(worker).map_err(|error| unavailable(&error))?;
    engine.check().await.map_err(|error| unavailable(&error))?;
    Ok(engine)
}

pub(crate) fn unavailable(error: &flakefarm_worker::sandbox::EngineUnavailable) -> Complaint {
    Complaint::new(Exit::FarmFailed, flakefarm_shared::chain(error)).hint(error.hint())
}

/// Connects to the container engine and checks that it has the runtime that attempts are to run on.
pub(crate) async fn connect_docker(
    worker: WorkerId,
    runtime: &RuntimeChoice,
    network: &str,
) -> Result<DockerSandbox, Complaint> {
    let engine = connect_engine(worker).await?;
    engine.check_runtime(runtime).await.map_err(|error| unavailable(&error))?;
    Ok(DockerSandbox::in_network(engine, runtime.clone(), network.to_owned()))
}

/// Puts a worker together.
pub(crate) fn worker_parts(
    id: WorkerId,
    slots: NonZeroU16,
    queue: Queue,
    samples: flakefarm_shared::samples::Samples,
    blobs: Blobs,
    docker: DockerSandbox,
    ceilings: Ceilings,
) -> WorkerParts {
    let environments = Environments::new(docker.engine().clone(), blobs.clone());
    let environments = environments.with_setup(ceilings.setup.clone());
    let sandbox = Sandbox::Docker(docker);
    WorkerParts {
        id,
        slots,
        queue,
        samples,
        blobs,
        environments,
        sandbox,
        spool: None,
        ceilings,
        health: None,
    }
}

/// Attempts this machine makes at once unless told otherwise: more than it has cores makes all of
/// them slower.
pub(crate) fn slots_of_this_machine() -> NonZeroU16 {
    let cores = std::thread::available_parallelism()
        .map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX));
    NonZeroU16::new(cores).expect("there is at least one core")
}
