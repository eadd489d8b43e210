//! How one attempt is isolated: one fresh sandbox each, removed on every path.
//!
//! A sandbox reports what it saw (lines, exit code, memory verdict). It never says whether a test
//! passed, and whatever it could not observe is an [`InfraError`], never an exit code.

mod docker;
mod engine;
mod hardening;
mod hosts;
mod nest;
mod output;
mod owner;
mod place;
mod podman;
mod process;
mod scripted;
mod seccomp;
mod session;
mod trial;

pub use docker::{DockerSandbox, RunningContainer, ToCome};
pub(crate) use engine::{CONTAINER_LABELS, Role, infra, is_missing, label};
pub use engine::{ContainerGuard, Engine, EngineFacts, EngineUnavailable, RuntimeChoice};
pub(crate) use hardening::{Measures, Wall, hardened};
pub use nest::{INTERPRETERS, LocalSandbox, Preparation, RunningNested};
pub use output::BoundedOutput;
pub(crate) use place::{Place, interpreter};
pub use process::RunningProcess;
pub use scripted::{RunningScript, ScriptedSandbox};
pub use session::{JobSandbox, Started};
pub use trial::Trial;

use flakefarm_shared::{AttemptId, InfraError, Limits, SandboxLevel, SweepId, WorkerId};
use std::collections::BTreeMap;
use std::num::NonZeroU16;

/// Where a worker runs attempts, which decides what levels of isolation it offers.
#[derive(Debug, Clone)]
pub enum Sandbox {
    /// In containers of a Docker-compatible engine, or nested in them.
    Docker(DockerSandbox),
    /// On this machine, without an engine.
    Local(LocalSandbox),
    /// Nothing at all: canned answers at once, to measure and test what is around sandboxes.
    Scripted(ScriptedSandbox),
}

/// What to run in a fresh sandbox.
#[derive(Debug, Clone)]
pub struct SandboxRequest {
    /// The prepared image, by id.
    pub image: String,
    /// Program and arguments, run in `/work`, a private writable copy of the project's tree.
    pub argv: Vec<String>,
    /// Delivered on standard input, which is then closed.
    pub stdin: Vec<u8>,
    /// Environment variables, over those of the image.
    pub variables: BTreeMap<String, String>,
    /// User and group it runs as.
    pub user: u32,
    /// Limits of the attempt.
    pub limits: Limits,
    /// Which attempt, for labels.
    pub attempt: AttemptId,
    /// Of which sweep, for labels.
    pub sweep: SweepId,
    /// By which worker, for labels: the one the engine was connected for.
    pub worker: WorkerId,
}

/// How a sandbox ended.
#[derive(Debug, Clone)]
pub struct SandboxExit {
    /// Exit code of the program; 128 + n for signal n. 125 without a line on standard output: the
    /// project's tree did not fit into the scratch space (standard error says so).
    pub exit_code: i64,
    /// Whether the memory limit ended the program or a child of it. A child's end leaves the
    /// program its own exit code: look here, not for 137.
    pub oom_killed: bool,
    /// Whether the last-resort deadline (the attempt's time limit and a few seconds) ended it.
    pub timed_out: bool,
    /// Standard error, head and tail.
    pub output: BoundedOutput,
    /// CPU time of the whole attempt, where the level can tell; the engine cannot once a container
    /// has ended.
    pub cpu_us: Option<u64>,
}

/// A sandbox that was started. Dropping it hands it to the clean-up queue of its level.
#[derive(Debug)]
pub enum RunningSandbox {
    /// A container.
    Docker(Box<RunningContainer>),
    /// Namespaces of its own, in a container or on this machine.
    Nested(Box<RunningNested>),
    /// A plain process.
    Process(Box<RunningProcess>),
    /// An answer.
    Scripted(RunningScript),
}

impl Sandbox {
    /// Whether attempts may ask for `level`. A farm's worker never runs them on its own machine
    /// because a submitter wants it.
    pub fn offers(&self, level: SandboxLevel) -> bool {
        match (self, level) {
            (Sandbox::Docker(_), SandboxLevel::Container | SandboxLevel::Nested | SandboxLevel::Forked) => {
                true
            }
            (Sandbox::Docker(_), SandboxLevel::Host | SandboxLevel::Process) => false,
            (Sandbox::Local(local), level) => local.level() == level,
            (Sandbox::Scripted(_), _) => true,
        }
    }

    /// The level at which an attempt shares nothing with others of its job.
    pub fn own_level(&self) -> SandboxLevel {
        match self {
            Sandbox::Docker(_) | Sandbox::Scripted(_) => SandboxLevel::Container,
            Sandbox::Local(local) => local.level(),
        }
    }

    /// The sandboxes of one job, whatever their levels.
    pub fn open_job(&self) -> JobSandbox {
        JobSandbox::new(self.clone())
    }

    /// Creates and starts a fresh sandbox at [`Sandbox::own_level`]. Cancel safe: what was created is
    /// removed.
    pub async fn start(&self, request: SandboxRequest) -> Result<RunningSandbox, InfraError> {
        match self {
            Sandbox::Docker(docker) => {
                docker.start(request).await.map(|running| RunningSandbox::Docker(Box::new(running)))
            }
            Sandbox::Local(local) => local.start(request).await,
            Sandbox::Scripted(scripted) => scripted.start(&request).map(RunningSandbox::Scripted),
        }
    }

    /// Attempts in `image` within `limits` are to come: has some `count` sandboxes ready for
    /// them, for a while and within bounds. A hint; levels that start fast enough ignore it.
    pub fn keep_ready(&self, image: &str, limits: &Limits, count: NonZeroU16, to_come: ToCome) {
        match self {
            Sandbox::Docker(docker) => docker.keep_ready(image, limits, count, to_come),
            Sandbox::Local(_) | Sandbox::Scripted(_) => {}
        }
    }

    /// Attempts within `limits` are to come, in an image that is not known yet: makes what does not depend on
    /// it, with `image`, which may be any. A hint: what is missing is made when it is needed.
    pub async fn furnish_ahead(&self, image: &str, limits: &Limits) {
        match self {
            Sandbox::Docker(docker) => docker.furnish_ahead(image, limits).await,
            Sandbox::Local(_) | Sandbox::Scripted(_) => {}
        }
    }

    /// Whether what it stands on answers now.
    pub async fn check(&self) -> Result<(), InfraError> {
        match self {
            Sandbox::Docker(docker) => docker.engine().ping().await,
            // It stands on this machine alone, which was asked at the start.
            Sandbox::Local(_) | Sandbox::Scripted(_) => Ok(()),
        }
    }

    /// Removes sandboxes of this worker that this process does not know, those of processes of this
    /// machine that are gone, and anyone's whose time has long passed. Returns how many. Call it at start and every minute.
    pub async fn reap(&self) -> Result<usize, InfraError> {
        match self {
            Sandbox::Docker(docker) => docker.engine().reap().await,
            // What runs on this machine ends with its worker.
            Sandbox::Local(_) | Sandbox::Scripted(_) => Ok(0),
        }
    }

    /// Removes what dropped sandboxes left behind and stops the clean-up. Call it last.
    pub async fn close(&self) {
        match self {
            Sandbox::Docker(docker) => docker.close().await,
            Sandbox::Local(_) | Sandbox::Scripted(_) => {}
        }
    }
}

impl RunningSandbox {
    /// The next line of standard output, without its newline, cut after 1 MiB; `None` at its end.
    /// Cancel safe. Standard input is fed and standard error is read while this is awaited, so keep
    /// calling it.
    pub async fn next_line(&mut self) -> Option<Vec<u8>> {
        match self {
            RunningSandbox::Docker(container) => container.next_line().await,
            RunningSandbox::Nested(nested) => nested.next_line().await,
            RunningSandbox::Process(process) => process.next_line().await,
            RunningSandbox::Scripted(script) => script.next_line().await,
        }
    }

    /// Ends every process in it at once. [`RunningSandbox::finish`] still has to be called.
    pub async fn kill(&mut self) {
        match self {
            RunningSandbox::Docker(container) => container.kill().await,
            RunningSandbox::Nested(nested) => nested.kill().await,
            RunningSandbox::Process(process) => process.kill().await,
            RunningSandbox::Scripted(script) => script.kill(),
        }
    }

    /// Ends it: how it ended and what it wrote is nothing to anybody. It may be there for a moment longer.
    pub async fn abandon(self) {
        match self {
            RunningSandbox::Docker(container) => container.abandon().await,
            RunningSandbox::Nested(nested) => nested.abandon().await,
            RunningSandbox::Process(mut process) => {
                process.kill().await;
                let _ending = process.finish().await;
            }
            RunningSandbox::Scripted(mut script) => script.kill(),
        }
    }

    /// Waits for its end, has it removed and says how it ended. Unread lines are dropped.
    pub async fn finish(self) -> Result<SandboxExit, InfraError> {
        match self {
            RunningSandbox::Docker(container) => container.finish().await,
            RunningSandbox::Nested(nested) => nested.finish().await,
            RunningSandbox::Process(process) => process.finish().await,
            RunningSandbox::Scripted(script) => Ok(script.finish()),
        }
    }
}
