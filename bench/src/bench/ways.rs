//! The ways of running attempts that are compared: our levels, and what others do.

use super::payload::{Kind, Payload};
use crate::Unmeasured;
use flakefarm_project::{config::LoadedProject, snapshot};
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::{
    AttemptId, Detail, ImageSource, JobId, Order, ProjectSpec, SandboxLevel, SweepContext, SweepId,
    WIRE_VERSION, WorkerId, World,
};
use flakefarm_worker::conditions::USER;
use flakefarm_worker::environment::{Environments, LocalPlaces};
use flakefarm_worker::frameworks::{pytest, python};
use flakefarm_worker::sandbox::{
    DockerSandbox, Engine, JobSandbox, LocalSandbox, Preparation, Sandbox, SandboxRequest, ToCome,
};
use serde::Serialize;
use std::fmt;
use std::num::NonZeroU16;
use std::path::Path;
use std::process::Stdio;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::process::Command;

/// Runs in one container, or in one process, where that is the way.
const BATCH: u32 = 10;

/// Makes pytest run everything so many times in one process, as repeating plugins do.
const REPEAT: &str = "import os
import pytest


@pytest.fixture
def _repetition(request):
    return request.param


def pytest_generate_tests(metafunc):
    metafunc.fixturenames.append('_repetition')
    metafunc.parametrize('_repetition', range(int(os.environ['REPETITIONS'])), indirect=True)
";

/// A way of running attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// `docker run --rm --network none`, again and again.
    DockerRun,
    /// One container for ten runs.
    ContainerPerBatch,
    /// The program itself on this machine, again and again.
    BareProcess,
    /// Ten repetitions in one process.
    InProcess,
    /// One of ours.
    Level(SandboxLevel),
}

impl Way {
    /// All, what they are compared with first.
    pub(crate) fn all() -> Vec<Way> {
        let mut ways = vec![Way::DockerRun, Way::ContainerPerBatch, Way::BareProcess, Way::InProcess];
        ways.extend(SandboxLevel::ALL.map(Way::Level));
        ways
    }

    /// The word for it on the command line.
    fn word(self) -> &'static str {
        match self {
            Way::DockerRun => "docker-run",
            Way::ContainerPerBatch => "container-per-batch",
            Way::BareProcess => "bare-process",
            Way::InProcess => "in-process",
            Way::Level(level) => level.word(),
        }
    }
}

impl FromStr for Way {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::all().into_iter().find(|way| way.word() == text).ok_or_else(|| {
            let words: Vec<&str> = Self::all().into_iter().map(Way::word).collect();
            format!("there is no such way: choose among {}", words.join(", "))
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::DockerRun => f.write_str("`docker run` each"),
            Way::ContainerPerBatch => f.write_str("a container per ten runs"),
            Way::BareProcess => f.write_str("a bare process each"),
            Way::InProcess => f.write_str("repeated in one process"),
            Way::Level(level) => write!(f, "flakefarm, {level}"),
        }
    }
}

/// A payload with everything that any way needs to run it.
pub(crate) struct Stage<'a> {
    payload: &'a Payload,
    project: ProjectSpec,
    image: String,
    docker: JobSandbox,
    host: Option<Place>,
    process: Option<Place>,
    worker: WorkerId,
    sweep: SweepId,
    job: JobId,
    next: AtomicU32,
    python: &'a str,
    /// Where the repeating plugin lies.
    plugins: tempfile::TempDir,
}

/// A level on this machine, and what it runs in.
struct Place {
    sandbox: JobSandbox,
    directory: String,
}

/// Attempts that ended, and how long each took if that can be told.
pub(crate) struct Ran {
    pub(crate) attempts: u32,
    pub(crate) seconds: Option<f64>,
}

impl<'a> Stage<'a> {
    /// Prepares images and directories; `image` takes the place of the project's own.
    pub(crate) async fn set(
        payload: &'a Payload,
        engine: &Engine,
        sandbox: &DockerSandbox,
        state: &Path,
        python: &'a str,
        worker: WorkerId,
        image: Option<&str>,
    ) -> Result<Self, Unmeasured> {
        let mut loaded = LoadedProject::load(&payload.root, None, &[])?;
        if let Some(image) = image {
            loaded.spec.environment.image = ImageSource::Reference(image.to_owned());
        }
        let blobs = Blobs::open(&format!("file://{}", state.join("blobs").display()))?;
        let archive = snapshot::archive(&payload.root)?;
        let snapshot = blobs.put(archive.bytes).await?;
        let context = SweepContext {
            v: WIRE_VERSION,
            project: loaded.spec.clone(),
            snapshot,
            revision: None,
            under: World::Plain,
            typed: flakefarm_shared::Typed::default(),
        };
        let prepare = async |environments: Environments| {
            let prepared =
                environments.prepare(&context, &context.snapshot, &pytest::ADAPTER.files(), |_| {}).await;
            prepared.map(|prepared| prepared.image_id).map_err(|error| Unmeasured::of(&error))
        };
        let image = prepare(Environments::new(engine.clone(), blobs.clone())).await?;
        let local = async |level| {
            let sandbox = LocalSandbox::new(level).ok()?;
            sandbox.check().await.ok()?;
            let places = Environments::Local(LocalPlaces::new(state.join("places"), blobs.clone()));
            let directory = prepare(places).await.ok()?;
            Some(Place { sandbox: Sandbox::Local(sandbox).open_job(), directory })
        };
        let plugins = tempfile::tempdir()?;
        std::fs::write(plugins.path().join("flakefarm_bench_repeat.py"), REPEAT)?;
        Ok(Self {
            payload,
            project: loaded.spec,
            image,
            docker: Sandbox::Docker(sandbox.clone()).open_job(),
            host: local(SandboxLevel::Host).await,
            process: local(SandboxLevel::Process).await,
            worker,
            sweep: SweepId::new(),
            job: JobId::new(),
            next: AtomicU32::new(0),
            python,
            plugins,
        })
    }

    /// Asks for what a job of `level` asks for at its beginning.
    pub(crate) fn as_jobs_begin(&self, level: SandboxLevel, lanes: NonZeroU16) {
        if level == SandboxLevel::Container {
            self.docker.keep_ready(&self.image, &self.project.limits, lanes, ToCome::Many);
        }
    }

    /// Removes what jobs keep.
    pub(crate) async fn strike(self) {
        self.docker.close().await;
        for place in [self.host, self.process].into_iter().flatten() {
            place.sandbox.close().await;
        }
    }

    /// A number for an attempt.
    pub(crate) fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs one attempt that nothing is to follow. See [`Stage::run_in_turn`].
    pub(crate) async fn run(&self, way: Way) -> Result<Ran, String> {
        self.run_in_turn(way, self.number(), None).await
    }

    /// Runs the attempt of this number, or a batch where the way has batches, that the one numbered `next`
    /// is to follow. The error is why this way cannot be gone here.
    pub(crate) async fn run_in_turn(&self, way: Way, number: u32, next: Option<u32>) -> Result<Ran, String> {
        let begun = Instant::now();
        let one = |()| Ran { attempts: 1, seconds: Some(begun.elapsed().as_secs_f64()) };
        let batch = |()| Ran { attempts: BATCH, seconds: None };
        match way {
            Way::DockerRun => checked(self.docker_run(&self.program("python3"))).await.map(one),
            Way::ContainerPerBatch => {
                let program = shell_words::join(self.program("python3"));
                let script = format!("for n in $(seq {BATCH}); do {program} || exit 1; done");
                let words = ["sh".to_owned(), "-c".to_owned(), script];
                checked(self.docker_run(&words)).await.map(batch)
            }
            Way::BareProcess => checked(self.bare(&self.program(self.python))).await.map(one),
            Way::InProcess => {
                if self.payload.kind == Kind::Nothing {
                    return Err("there is nothing to repeat in a process".to_owned());
                }
                let mut program = self.program(self.python);
                // A test's id would not match its repetitions: its file has no other tests.
                if let Kind::Test(test) = &self.payload.kind {
                    program.pop();
                    program.push(test.as_str().split("::").next().unwrap_or_default().to_owned());
                }
                program.extend(["-p".to_owned(), "flakefarm_bench_repeat".to_owned()]);
                let mut command = self.bare(&program);
                command.env("PYTHONPATH", self.plugins.path()).env("REPETITIONS", BATCH.to_string());
                checked(command).await.map(batch)
            }
            Way::Level(level) => self.attempt(level, number, next).await.map(one),
        }
    }

    /// Plain, as somebody would script it.
    fn program(&self, python: &str) -> Vec<String> {
        match self.payload.kind {
            Kind::Nothing => vec!["/bin/true".to_owned()],
            Kind::Test(_) | Kind::Suite => {
                let mut words = vec![python.to_owned(), "-m".to_owned(), "pytest".to_owned()];
                words.extend(self.payload.arguments());
                words
            }
        }
    }

    fn docker_run(&self, program: &[String]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(["run", "--rm", "--network", "none", "--workdir", "/flakefarm/tree"])
            .arg(&self.image)
            .args(program);
        command
    }

    fn bare(&self, program: &[String]) -> Command {
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]).current_dir(&self.payload.root).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// One attempt as a job would make it, results read to their end.
    async fn attempt(&self, level: SandboxLevel, number: u32, next: Option<u32>) -> Result<(), String> {
        let (sandbox, image) = match level {
            SandboxLevel::Container | SandboxLevel::Nested | SandboxLevel::Forked => {
                (&self.docker, &self.image)
            }
            SandboxLevel::Host | SandboxLevel::Process => {
                let place = if level == SandboxLevel::Host { &self.host } else { &self.process };
                let place = place.as_ref().ok_or("this machine does not allow it, or lacks pytest")?;
                (&place.sandbox, &place.directory)
            }
        };
        let selected: Vec<_> = match &self.payload.kind {
            Kind::Test(test) => vec![test.clone()],
            Kind::Nothing | Kind::Suite => Vec::new(),
        };
        let tests = (!selected.is_empty()).then_some(selected.as_slice());
        let (argv, stdin) = match self.payload.kind {
            Kind::Nothing => (vec!["/bin/true".to_owned()], Vec::new()),
            Kind::Test(_) | Kind::Suite => (
                python::argv(&self.project),
                python::request(
                    &self.project,
                    &python::RunRequest::Run {
                        tests,
                        order: Order::Given,
                        detail: Detail::Outcomes,
                        world: World::Plain,
                    },
                    &flakefarm_worker::frameworks::seal::Nonce::new(),
                ),
            ),
        };
        let forks = level == SandboxLevel::Forked;
        if forks && self.payload.kind == Kind::Nothing {
            return Err("only an interpreter can be forked".to_owned());
        }
        let preparation = forks.then(|| Preparation {
            argv: python::fork_server(&self.project),
            input: python::fork_server_request(&self.project),
            attempts: usize::MAX,
        });
        let request = |index| SandboxRequest {
            image: image.clone(),
            argv: argv.clone(),
            stdin: stdin.clone(),
            variables: self.project.variables.clone(),
            user: USER,
            limits: self.project.limits.clone(),
            attempt: AttemptId { job: self.job, index },
            sweep: self.sweep,
            worker: self.worker.clone(),
        };
        let started = sandbox
            .start(request(number), level, preparation.as_ref())
            .await
            .map_err(|error| error.to_string())?;
        if started.level != level {
            return Err(started.instead.unwrap_or_else(|| format!("{} took its place", started.level)));
        }
        let mut running = started.running;
        if let Some(next) = next {
            sandbox.announce(&mut running, &request(next), level, preparation.as_ref()).await;
        }
        let mut last = Vec::new();
        while let Some(line) = running.next_line().await {
            last = line;
        }
        let exit = running.finish().await.map_err(|error| error.to_string())?;
        let finished =
            self.payload.kind == Kind::Nothing || String::from_utf8_lossy(&last).contains("\"finish\"");
        if finished {
            Ok(())
        } else {
            Err(format!(
                "an attempt ended early with exit code {}: {}",
                exit.exit_code,
                exit.output.to_text()
            ))
        }
    }
}

/// Runs a command whose success is expected; tests of a real project may fail, which is 1.
async fn checked(mut command: Command) -> Result<(), String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let said = command.output().await.map_err(|error| format!("it cannot be started: {error}"))?;
    match said.status.code() {
        Some(0 | 1) if !String::from_utf8_lossy(&said.stderr).contains("No module named") => Ok(()),
        _ => Err(format!("{}: {}", said.status, String::from_utf8_lossy(&said.stderr).trim_end())),
    }
}

/// How long the first instruction of an attempt takes to run when containers are kept ready.
pub(crate) async fn pool_latencies(stage: &Stage<'_>, sandbox: &DockerSandbox, count: usize) -> Vec<f64> {
    let two = NonZeroU16::new(2).expect("not zero");
    let mut seconds = Vec::new();
    for _ in 0..count {
        sandbox.keep_ready(&stage.image, &stage.project.limits, two, ToCome::Many);
        let patience = Instant::now();
        while sandbox.ready() == 0 && patience.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What made the last one is still busy for a moment.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let index = stage.number();
        let request = SandboxRequest {
            image: stage.image.clone(),
            argv: vec!["echo".to_owned(), "first".to_owned()],
            stdin: Vec::new(),
            variables: stage.project.variables.clone(),
            user: USER,
            limits: stage.project.limits.clone(),
            attempt: AttemptId { job: stage.job, index },
            sweep: stage.sweep,
            worker: stage.worker.clone(),
        };
        let begun = Instant::now();
        let Ok(mut running) = sandbox.start(request).await else { continue };
        if running.next_line().await.is_some() {
            seconds.push(begun.elapsed().as_secs_f64());
        }
        if let Err(error) = running.finish().await {
            tracing::warn!(error = %error, "a container that was kept ready ended badly");
        }
    }
    seconds
}
