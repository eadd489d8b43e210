//! How one attempt is isolated: one fresh sandbox each, removed on every path.
//!
//! A sandbox reports what it saw (lines, exit code, memory verdict). It never says whether a test
//! passed, and whatever it could not observe is an [`InfraError`], never an exit code.

mod docker;
mod engine;
mod hosts;
mod output;

pub use docker::{DockerSandbox, RunningContainer};
pub(crate) use engine::{CONTAINER_LABELS, Role, infra, is_missing, label};
pub use engine::{ContainerGuard, Engine, EngineFacts, EngineUnavailable};
pub use output::BoundedOutput;

use flakefarm_shared::{AttemptId, InfraError, Limits, SweepId, WorkerId};
use std::collections::BTreeMap;

/// A level of isolation.
#[derive(Debug, Clone)]
pub enum Sandbox {
    /// A fresh container of a Docker-compatible engine.
    Docker(DockerSandbox),
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
}

impl Sandbox {
    /// Creates and starts a fresh sandbox. Cancel safe: what was created is removed.
    pub async fn start(&self, request: SandboxRequest) -> Result<RunningSandbox, InfraError> {
        match self {
            Sandbox::Docker(docker) => {
                docker.start(request).await.map(|running| RunningSandbox::Docker(Box::new(running)))
            }
        }
    }

    /// Removes sandboxes of this worker that this process does not know, and anyone's whose time
    /// has long passed. Returns how many. Call it at start and every minute.
    pub async fn reap(&self) -> Result<usize, InfraError> {
        match self {
            Sandbox::Docker(docker) => docker.engine().reap().await,
        }
    }

    /// Removes what dropped sandboxes left behind and stops the clean-up. Call it last.
    pub async fn close(&self) {
        match self {
            Sandbox::Docker(docker) => docker.close().await,
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
        }
    }

    /// Ends every process in it at once. [`RunningSandbox::finish`] still has to be called.
    pub async fn kill(&mut self) {
        match self {
            RunningSandbox::Docker(container) => container.kill().await,
        }
    }

    /// Waits for its end, removes it and says how it ended. Unread lines are dropped.
    pub async fn finish(self) -> Result<SandboxExit, InfraError> {
        match self {
            RunningSandbox::Docker(container) => container.finish().await,
        }
    }
}
