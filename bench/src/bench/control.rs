//! The control plane alone: planner, rows, queue, workers and stores around attempts that take no
//! time. Coordinator and workers have threads of their own, so that their CPU time can be told apart.

use super::meter;
use super::stats::rounded;
use super::stores;
use crate::Unmeasured;
use flakefarm_coordinator::db::{Db, NewJob, NewSweep, SweepState};
use flakefarm_coordinator::events::Event;
use flakefarm_coordinator::plan::{Question, Runs, ScopeChoice};
use flakefarm_coordinator::{Coordinator, Submission, engine};
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::project::Framework;
use flakefarm_shared::queue::{Queue, Role};
use flakefarm_shared::samples::Samples;
use flakefarm_shared::{
    AttemptSpec, Class, JobId, JobSpec, Listing, Order, ProjectSpec, Scope, Selection, SweepContext, SweepId,
    TestId, WIRE_VERSION, Work, WorkerId, World, now_micros,
};
use flakefarm_worker::ceilings::Ceilings;
use flakefarm_worker::environment::{Environments, PreparedImage};
use flakefarm_worker::sandbox::{Sandbox, ScriptedSandbox};
use flakefarm_worker::{Ending, WorkerParts};
use futures::future::try_join_all;
use serde::Serialize;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Attempts of a worker at once: they take no time, so more than cores.
const SLOTS: NonZeroU16 = NonZeroU16::new(16).expect("not zero");
/// Begins the names of the coordinator's threads, SQLite's among them.
const COORDINATOR_THREADS: [&str; 2] = ["coordinator", "sqlx-sqlite"];
/// Beyond which a run is given up.
const PATIENCE: Duration = Duration::from_secs(600);

/// Attempts of a job in the measurement of what waits.
const JOB_ATTEMPTS: u32 = 50;

/// Where the stores are.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Addresses {
    /// Words for people: `embedded`, or the three services.
    pub(crate) name: String,
    #[serde(skip)]
    pub(crate) database: String,
    #[serde(skip)]
    pub(crate) queue: String,
    #[serde(skip)]
    pub(crate) samples: String,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Jobs of one attempt on one test.
    pub(crate) jobs: u32,
    /// Attempts on a suite of [`Size::tests`].
    pub(crate) suite_attempts: NonZeroU32,
    /// Tests of the suite.
    pub(crate) tests: NonZeroU32,
    /// Attempts queued for the memory measurement.
    pub(crate) queued: u32,
}

/// What one configuration of the control plane did.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ControlResult {
    /// Which stores.
    pub(crate) stores: String,
    /// Worker processes' worth of consumers.
    pub(crate) workers: u16,
    /// Jobs of one attempt, from insertion to settled rows.
    pub(crate) jobs_per_second: f64,
    /// Samples of whole sweeps over a suite, from submission to report.
    pub(crate) samples_per_second: f64,
    /// CPU seconds of the coordinator and its database client per 1,000 attempts in such jobs.
    pub(crate) coordinator_cpu_per_1000_attempts: f64,
    /// Growth of this process's memory per attempt that is planned and not yet run.
    pub(crate) bytes_per_queued_attempt: Option<f64>,
}

/// One set of stores with a coordinator, ready for workers.
struct Farm {
    coordinating: Runtime,
    working: Runtime,
    coordinator: Coordinator,
    db: Db,
    blobs: Blobs,
    queue: Queue,
    samples: Samples,
    addresses: Addresses,
    tests: NonZeroU32,
    state: tempfile::TempDir,
}

impl ControlResult {
    pub(crate) fn cells(&self) -> Vec<String> {
        let bytes = self.bytes_per_queued_attempt;
        vec![
            self.stores.clone(),
            self.workers.to_string(),
            rounded(self.jobs_per_second),
            rounded(self.samples_per_second),
            format!("{:.2}", self.coordinator_cpu_per_1000_attempts),
            bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.0}")),
        ]
    }
}

/// Refuses stores on which sweeps are under way: their jobs would be measured with ours, or wait for ever for what
/// only another farm has.
pub(crate) async fn refuse_busy(addresses: &Addresses) -> Result<(), Unmeasured> {
    if addresses.database.starts_with("embedded:") {
        return Ok(());
    }
    let db = stores::open_database(&addresses.database).await?;
    let under_way = db.sweeps_to_advance().await?.len();
    db.close().await;
    if under_way == 0 {
        return Ok(());
    }
    Err(Unmeasured::usage(format!(
        "sweeps are under way in the database ({under_way}): nothing is measured there"
    ))
    .hint("give it a database of its own, and a queue of its own: --queue amqp://…?prefix=NAME"))
}

/// Measures jobs, samples, CPU and memory with so many workers.
pub(crate) async fn measure(
    addresses: &Addresses,
    workers: u16,
    size: Size,
) -> Result<ControlResult, Unmeasured> {
    let farm = Farm::open(addresses, size.tests).await?;
    let jobs = farm.carry(workers, size.jobs).await?;
    farm.close().await;
    let samples_per_second = samples_per_second(addresses, workers, size).await?;
    // What waits, waits in the same memory however many workers there are.
    let bytes_per_queued_attempt = if workers == 1 {
        let farm = Farm::open(addresses, size.tests).await?;
        let bytes = farm.queued_bytes(size.queued).await?;
        farm.close().await;
        Some(bytes)
    } else {
        None
    };
    Ok(ControlResult {
        stores: addresses.name.clone(),
        workers,
        jobs_per_second: jobs.per_second,
        samples_per_second,
        coordinator_cpu_per_1000_attempts: jobs.coordinator_cpu_per_1000,
        bytes_per_queued_attempt,
    })
}

/// Jobs of one attempt, from their specs to settled rows.
pub(crate) async fn jobs_per_second(
    addresses: &Addresses,
    workers: u16,
    size: Size,
) -> Result<f64, Unmeasured> {
    let farm = Farm::open(addresses, size.tests).await?;
    let carried = farm.carry(workers, size.jobs).await?;
    farm.close().await;
    Ok(carried.per_second)
}

/// Samples of a whole sweep, from its submission to its report.
pub(crate) async fn samples_per_second(
    addresses: &Addresses,
    workers: u16,
    size: Size,
) -> Result<f64, Unmeasured> {
    let farm = Farm::open(addresses, size.tests).await?;
    let per_second = farm.sweep(workers, size.suite_attempts).await?;
    farm.close().await;
    Ok(per_second)
}

struct Carried {
    per_second: f64,
    coordinator_cpu_per_1000: f64,
}

impl Farm {
    async fn open(addresses: &Addresses, tests: NonZeroU32) -> Result<Self, Unmeasured> {
        let runtime = |name: &str| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name(name)
                .enable_all()
                .build()
                .map_err(|error| Unmeasured::of(&error))
        };
        let (coordinating, working) = (runtime("coordinator")?, runtime("worker")?);
        let state = tempfile::tempdir().map_err(|error| Unmeasured::of(&error))?;
        let opened = coordinating.spawn(open_stores(addresses.clone(), state.path().to_owned())).await??;
        let Stores { db, blobs, queue, samples } = opened;
        let coordinator = if addresses.queue.starts_with("embedded:") {
            Coordinator::embedded(db.clone(), queue.clone(), blobs.clone(), engine::DEFAULT_LEASE)
        } else {
            Coordinator::new(db.clone(), queue.clone(), blobs.clone(), engine::DEFAULT_LEASE)
        };
        let addresses = addresses.clone();
        Ok(Self { coordinating, working, coordinator, db, blobs, queue, samples, addresses, tests, state })
    }

    async fn close(self) {
        let Self { coordinating, working, db, queue, .. } = self;
        queue.close().await;
        db.close().await;
        coordinating.shutdown_background();
        working.shutdown_background();
    }

    /// A worker with scripted sandboxes, on its own connections if the queue has any.
    async fn worker(&self, number: u16, ending: &Ending) -> Result<JoinHandle<()>, Unmeasured> {
        let embedded = self.addresses.queue.starts_with("embedded:");
        let queue = if embedded {
            self.queue.clone()
        } else {
            stores::open_queue(&self.addresses.queue, Role::Worker)?
        };
        let samples = if embedded {
            self.samples.clone()
        } else {
            stores::open_samples(&self.addresses.samples).await?
        };
        let image = PreparedImage { image_id: "scripted".to_owned() };
        let parts = WorkerParts {
            id: WorkerId(format!("bench-{number}")),
            slots: SLOTS,
            queue,
            samples,
            blobs: self.blobs.clone(),
            environments: Environments::Given(image),
            sandbox: Sandbox::Scripted(ScriptedSandbox::new(self.tests)),
            spool: None,
            ceilings: Ceilings::default(),
            health: None,
        };
        Ok(self.working.spawn(flakefarm_worker::run(parts, ending.clone())))
    }

    /// Jobs of one attempt each, through everything but the planner.
    async fn carry(&self, workers: u16, jobs: u32) -> Result<Carried, Unmeasured> {
        let ending = Ending::default();
        let working = try_join_all((0..workers).map(|number| self.worker(number, &ending))).await?;
        let context = self.context();
        let (coordinator, db, blobs) = (self.coordinator.clone(), self.db.clone(), self.blobs.clone());
        let cpu = meter::thread_seconds(&COORDINATOR_THREADS);
        let begun = Instant::now();
        let carrying = self.coordinating.spawn(async move {
            let sweep = record(&db, &blobs, &context, String::new(), jobs, 1).await?;
            coordinator.resume(sweep).await?;
            let end = CancellationToken::new();
            let loops = tokio::spawn({
                let (coordinator, end) = (coordinator.clone(), end.clone());
                async move { coordinator.carry(end).await }
            });
            while db.count_unsettled(sweep).await? > 0 {
                if begun.elapsed() > PATIENCE {
                    return Err(Unmeasured::farm(format!("{jobs} jobs were not done within {PATIENCE:?}")));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let seconds = begun.elapsed().as_secs_f64();
            db.finish_sweep(sweep, &SweepState::Cancelled, now_micros(), None).await?;
            end.cancel();
            loops.await?;
            Ok::<f64, Unmeasured>(seconds)
        });
        let seconds = carrying.await??;
        let cpu = meter::thread_seconds(&COORDINATOR_THREADS) - cpu;
        end_workers(&ending, working).await?;
        Ok(Carried {
            per_second: f64::from(jobs) / seconds,
            coordinator_cpu_per_1000: cpu * 1000.0 / f64::from(jobs),
        })
    }

    /// A whole sweep over the suite; gives samples per second.
    async fn sweep(&self, workers: u16, attempts: NonZeroU32) -> Result<f64, Unmeasured> {
        let ending = Ending::default();
        let working = try_join_all((0..workers).map(|number| self.worker(number, &ending))).await?;
        let submission = self.submission(ScopeChoice::Suite, attempts).await?;
        let coordinator = self.coordinator.clone();
        let begun = Instant::now();
        let sweeping = self.coordinating.spawn(async move {
            let mut events = coordinator.subscribe();
            let sweep = coordinator.submit(&submission).await?;
            let end = CancellationToken::new();
            let loops = tokio::spawn({
                let (coordinator, end) = (coordinator.clone(), end.clone());
                async move { coordinator.run(end).await }
            });
            loop {
                match tokio::time::timeout(PATIENCE, events.recv()).await? {
                    Ok(Event::Finished { sweep: ended, .. }) if ended == sweep => break,
                    Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(error) => return Err(Unmeasured::of(&error)),
                }
            }
            let report = coordinator.report(sweep).await?;
            let seconds = begun.elapsed().as_secs_f64();
            end.cancel();
            loops.await?;
            Ok::<(f64, u64), Unmeasured>((seconds, report.sweep.samples))
        });
        let (seconds, samples) = sweeping.await??;
        end_workers(&ending, working).await?;
        let wanted = u64::from(attempts.get()) * u64::from(self.tests.get());
        if samples != wanted {
            return Err(Unmeasured::farm(format!("{samples} samples came of {wanted}")));
        }
        Ok(samples as f64 / seconds)
    }

    /// Jobs that nobody runs: recorded, published as far as the queue takes them, and known to the
    /// planner's ledger. Gives bytes per attempt.
    async fn queued_bytes(&self, attempts: u32) -> Result<f64, Unmeasured> {
        let context = self.context();
        let submission = self.submission(ScopeChoice::Test, NonZeroU32::MIN).await?;
        let (coordinator, db, blobs) = (self.coordinator.clone(), self.db.clone(), self.blobs.clone());
        let tests = self.tests.get();
        let measuring = self.coordinating.spawn(async move {
            let question = serde_json::to_string(&submission.question)?;
            let jobs = attempts.div_ceil(JOB_ATTEMPTS);
            let sweep = record(&db, &blobs, &context, question, jobs, JOB_ATTEMPTS).await?;
            let listing =
                Listing { tests: (0..tests).map(test).collect(), parts: Vec::new(), ..Listing::default() };
            db.set_listing(sweep, &blobs.put_json(&listing).await?).await?;
            coordinator.resume(sweep).await?;
            let before = meter::resident_bytes();
            let end = CancellationToken::new();
            let loops = tokio::spawn({
                let (coordinator, end) = (coordinator.clone(), end.clone());
                async move { coordinator.carry(end).await }
            });
            // Reporting takes every planned attempt into the ledger.
            let report = coordinator.report(sweep).await?;
            // Without a worker only a few are sent ahead: the rest waits in its rows.
            let begun = Instant::now();
            while coordinator.queue().depth(Class::Bulk).await?.ready == 0 {
                if begun.elapsed() > PATIENCE {
                    return Err(Unmeasured::farm(format!("no job was published within {PATIENCE:?}")));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let bytes = meter::resident_bytes().saturating_sub(before);
            drop(report);
            db.finish_sweep(sweep, &SweepState::Cancelled, now_micros(), None).await?;
            end.cancel();
            loops.await?;
            Ok::<f64, Unmeasured>(bytes as f64 / f64::from(jobs * JOB_ATTEMPTS))
        });
        measuring.await?
    }

    fn context(&self) -> SweepContext {
        let snapshot = flakefarm_shared::Digest::of(b"scripted");
        SweepContext {
            v: WIRE_VERSION,
            project: project(),
            snapshot,
            revision: None,
            under: World::Plain,
            typed: flakefarm_shared::Typed::default(),
        }
    }

    async fn submission(&self, scope: ScopeChoice, runs: NonZeroU32) -> Result<Submission, Unmeasured> {
        let snapshot = self.blobs.put(&b"scripted"[..]).await?;
        let question = Question { runs: Runs::Fixed(runs), scope, workers: SLOTS, ..Question::detect(1) };
        Ok(Submission {
            context: SweepContext {
                v: WIRE_VERSION,
                project: project(),
                snapshot,
                revision: None,
                under: World::Plain,
                typed: flakefarm_shared::Typed::default(),
            },
            question,
            class: Class::Bulk,
            source: self.state.path().display().to_string(),
        })
    }
}

struct Stores {
    db: Db,
    blobs: Blobs,
    queue: Queue,
    samples: Samples,
}

async fn open_stores(addresses: Addresses, state: std::path::PathBuf) -> Result<Stores, Unmeasured> {
    let within = |address: &str, scheme: &str, file: &str| match address.strip_suffix("embedded:") {
        Some("") => format!("{scheme}:{}", Path::new(&state).join(file).display()),
        _ => address.to_owned(),
    };
    let db = stores::open_database(&within(&addresses.database, "sqlite", "farm.db")).await?;
    let queue = stores::open_queue(&addresses.queue, Role::Coordinator)?;
    queue.check().await?;
    let samples = stores::open_samples(&within(&addresses.samples, "embedded", "samples.db")).await?;
    let blobs = stores::open_blobs(&format!("file://{}", state.join("blobs").display()))?;
    Ok(Stores { db, blobs, queue, samples })
}

/// A running sweep with so many pending jobs of so many attempts.
async fn record(
    db: &Db,
    blobs: &Blobs,
    context: &SweepContext,
    question: String,
    jobs: u32,
    attempts: u32,
) -> Result<SweepId, Unmeasured> {
    let context = blobs.put_json(context).await?;
    let id = SweepId::new();
    let now = now_micros();
    let sweep = NewSweep {
        id,
        project: "bench".to_owned(),
        revision: None,
        question,
        context: context.clone(),
        class: Class::Bulk,
        seed: 1,
        source: "bench".to_owned(),
        created_at: now,
    };
    db.create_sweep(&sweep).await?;
    let (mut keys, mut specs) = (Vec::new(), Vec::new());
    for number in 0..jobs {
        let key = format!("{number}");
        let attempts = (0..attempts)
            .map(|index| AttemptSpec {
                index,
                ..AttemptSpec::plain(
                    Scope::Test,
                    Selection::only(vec![test((number + index) % 100)]),
                    Order::Given,
                )
            })
            .collect();
        let spec = JobSpec {
            v: WIRE_VERSION,
            id: JobId::derive(id, &key),
            sweep: id,
            class: Class::Bulk,
            context: context.clone(),
            origin: flakefarm_shared::RunOrigin::Sweep,
            work: Work::Run { attempts },
        };
        keys.push(key);
        specs.push(spec);
    }
    let stored = blobs.pack_all(&specs).await?;
    let new_jobs: Vec<NewJob> = keys
        .into_iter()
        .zip(&specs)
        .zip(stored)
        .map(|((key, spec), stored)| NewJob { id: spec.id, key, class: Class::Bulk, spec: stored, attempts })
        .collect();
    db.insert_jobs(id, &new_jobs, now).await?;
    Ok(id)
}

/// As the scripted sandbox names them.
fn test(number: u32) -> TestId {
    TestId(ScriptedSandbox::test_name(number))
}

async fn end_workers(ending: &Ending, working: Vec<JoinHandle<()>>) -> Result<(), Unmeasured> {
    ending.drain.cancel();
    for worker in working {
        worker.await?;
    }
    Ok(())
}

fn project() -> ProjectSpec {
    ProjectSpec::of_image("bench", Framework::Pytest, "scripted")
}
