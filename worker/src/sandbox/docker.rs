//! The container level: each attempt is a fresh, hardened container of the prepared image.
//!
//! The tree of the project lies read-only in the image and is copied into a memory file system that
//! only this container sees, so attempts share nothing that they can write to.

use super::engine::{ContainerGuard, Engine, Role, infra, is_missing};
use super::hosts::{HOSTNAME, Hosts};
use super::output::{BoundedOutput, Lines};
use super::{SandboxExit, SandboxRequest};
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, ResourcesUlimits};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, KillContainerOptionsBuilder,
    StartContainerOptions, WaitContainerOptionsBuilder,
};
use flakefarm_shared::project::Network;
use flakefarm_shared::{InfraError, InfraStage};
use futures::future::pending;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

const LINE_CAP: usize = 1 << 20;
const ERROR_HALF: usize = 64 << 10;
/// Beyond the attempt's own limit, before the container is killed from here.
const LAST_RESORT: Duration = Duration::from_secs(5);
/// For a killed container to be gone, or for the rest of an ended container's output.
const SETTLING: Duration = Duration::from_secs(30);
/// Beyond which a container found by label is nobody's.
const EXPIRY_MARGIN: Duration = Duration::from_secs(300);

const REMOVED: &str = "a container was removed by somebody else while it ran";

/// Copies the tree, then becomes the program. The base image itself (no tree) is fine, too.
const ENTRY: &str = r#"mkdir -p "$HOME"
if [ -d /flakefarm/tree ]; then
  cp -a /flakefarm/tree/. /work/ || { echo "flakefarm: the project's tree does not fit into /work" >&2; exit 125; }
fi
exec "$@""#;

/// Runs attempts in containers. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct DockerSandbox {
    engine: Engine,
    hosts: Arc<Hosts>,
}

impl DockerSandbox {
    /// Containers on `engine`.
    pub fn new(engine: Engine) -> Self {
        Self { engine, hosts: Arc::default() }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// See [`super::Sandbox::close`].
    pub async fn close(&self) {
        self.hosts.forget().await;
        self.engine.close().await;
    }

    /// See [`super::Sandbox::start`].
    pub async fn start(&self, request: SandboxRequest) -> Result<RunningContainer, InfraError> {
        let facts = self
            .engine
            .check()
            .await
            .map_err(|error| InfraError { stage: InfraStage::Engine, message: error.to_string() })?;
        let docker = self.engine.docker();
        let timeout = Duration::from_millis(request.limits.attempt_timeout_ms);
        let role = Role::Attempt {
            worker: request.worker.to_string(),
            sweep: request.sweep.to_string(),
            job: request.attempt.job.to_string(),
            attempt: request.attempt.index.to_string(),
        };
        let labels = self.engine.labels(&role, timeout + EXPIRY_MARGIN);
        let hosts = match request.limits.network {
            Network::None => Some(self.hosts.mount(&self.engine, &request.image).await?),
            Network::Bridge => None,
        };
        let body = container_body(&request, labels, facts.runtime, hosts);
        let mut guard = self.engine.guard();
        let options = CreateContainerOptionsBuilder::default().name(guard.name()).build();
        let failed = |what: &'static str| move |error: Error| infra(InfraStage::Sandbox, what, &error);
        if let Err(error) = docker.create_container(Some(options), body).await {
            if error.to_string().contains("bind source path does not exist") {
                self.hosts.forget().await;
            }
            return Err(failed("failed to create a container")(error));
        }
        guard.created();
        // Attached before the start, or the first lines would be lost: nothing is logged.
        let options = AttachContainerOptionsBuilder::default()
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .stream(true)
            .build();
        let AttachContainerResults { output, input } = docker
            .attach_container(guard.name(), Some(options))
            .await
            .map_err(failed("failed to attach to a container"))?;
        docker
            .start_container(guard.name(), None::<StartContainerOptions>)
            .await
            .map_err(failed("failed to start a container"))?;
        // Held open while it runs: an engine that goes away breaks this stream, so that the end it
        // gave its containers is not taken for theirs.
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let exit = docker.wait_container(guard.name(), Some(options)).map(exit_code).boxed();
        Ok(RunningContainer {
            engine: self.engine.clone(),
            guard,
            output: Some(output),
            stdin: Some(Stdin { writer: input, bytes: request.stdin, sent: 0 }),
            exit_stream: exit,
            lines: Lines::new(LINE_CAP),
            errors: BoundedOutput::new(ERROR_HALF),
            exit: None,
            deadline: Instant::now() + timeout + LAST_RESORT,
            timed_out: false,
        })
    }
}

/// The client library reports a non-zero exit code as an error.
fn exit_code(result: Result<bollard::models::ContainerWaitResponse, Error>) -> Result<i64, Error> {
    match result {
        Ok(response) => Ok(response.status_code),
        Err(Error::DockerContainerWaitError { code, error }) if error.is_empty() => Ok(code),
        Err(error) => Err(error),
    }
}

fn container_body(
    request: &SandboxRequest,
    labels: HashMap<String, String>,
    runtime: Option<String>,
    hosts: Option<Mount>,
) -> ContainerCreateBody {
    let (limits, user) = (&request.limits, request.user);
    let bytes = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let writable =
        |size: u64, mode: &str| format!("rw,exec,nosuid,nodev,size={size},mode={mode},uid={user},gid={user}");
    let tmpfs = HashMap::from([
        ("/work".to_owned(), writable(limits.scratch_bytes, "0755")),
        ("/tmp".to_owned(), writable(limits.scratch_bytes, "1777")),
        ("/run".to_owned(), writable(16 << 20, "0755")),
    ]);
    let mut variables = HashMap::from([("HOME", "/tmp/home")]);
    variables.extend(request.variables.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let mut env: Vec<String> = variables.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    env.sort();
    let mut cmd = vec!["-c".to_owned(), ENTRY.to_owned(), "sh".to_owned()];
    cmd.extend(request.argv.iter().cloned());
    let host_config = HostConfig {
        memory: Some(bytes(limits.memory_bytes)),
        memory_swap: Some(bytes(limits.memory_bytes)),
        nano_cpus: Some(bytes(limits.cpu_millis.saturating_mul(1_000_000))),
        pids_limit: Some(i64::from(limits.pids)),
        ulimits: Some(vec![ResourcesUlimits { name: Some("core".to_owned()), soft: Some(0), hard: Some(0) }]),
        oom_score_adj: Some(500),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        readonly_rootfs: Some(true),
        tmpfs: Some(tmpfs),
        mounts: hosts.map(|hosts| vec![hosts]),
        // `none` would take /dev/shm away, which semaphores of multiprocessing need.
        ipc_mode: Some("private".to_owned()),
        shm_size: Some(64 << 20),
        // Without an init the program is process 1: it ignores signals it has no handler for.
        init: Some(true),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        network_mode: match limits.network {
            Network::None => None,
            Network::Bridge => Some("bridge".to_owned()),
        },
        runtime,
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(request.image.clone()),
        hostname: Some(HOSTNAME.to_owned()),
        user: Some(format!("{user}:{user}")),
        working_dir: Some("/work".to_owned()),
        entrypoint: Some(vec!["/bin/sh".to_owned()]),
        cmd: Some(cmd),
        env: Some(env),
        labels: Some(labels),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        stdin_once: Some(true),
        // An empty network namespace with loopback, without the price of network `none`.
        network_disabled: Some(match limits.network {
            Network::None => true,
            Network::Bridge => false,
        }),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    }
}

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

/// A running container of one attempt.
pub struct RunningContainer {
    engine: Engine,
    guard: ContainerGuard,
    /// `None` once it has ended.
    output: Option<Output>,
    /// `None` once it is closed.
    stdin: Option<Stdin>,
    exit_stream: BoxStream<'static, Result<i64, Error>>,
    lines: Lines,
    errors: BoundedOutput,
    exit: Option<Result<i64, InfraError>>,
    deadline: Instant,
    timed_out: bool,
}

struct Stdin {
    writer: Pin<Box<dyn AsyncWrite + Send>>,
    bytes: Vec<u8>,
    sent: usize,
}

impl std::fmt::Debug for RunningContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningContainer").field("name", &self.guard.name()).finish_non_exhaustive()
    }
}

enum Step {
    Output(Option<Result<LogOutput, Error>>),
    Fed,
    Exit(Option<Result<i64, Error>>),
    Deadline,
}

impl RunningContainer {
    /// See [`super::RunningSandbox::next_line`].
    pub async fn next_line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(line) = self.lines.pop() {
                return Some(line);
            }
            self.output.as_ref()?;
            self.advance().await;
        }
    }

    /// See [`super::RunningSandbox::kill`].
    pub async fn kill(&mut self) {
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        match self.engine.docker().kill_container(self.guard.name(), Some(options)).await {
            // 404 and 409: it has ended already.
            Ok(()) | Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => {}
            Err(error) => tracing::warn!("failed to kill container {}: {error}", self.guard.name()),
        }
        self.deadline = self.deadline.min(Instant::now() + SETTLING);
    }

    /// See [`super::RunningSandbox::finish`].
    pub async fn finish(mut self) -> Result<SandboxExit, InfraError> {
        while self.exit.is_none() || (self.output.is_some() && !matches!(self.exit, Some(Err(_)))) {
            self.advance().await;
            self.lines.clear();
        }
        let verdict = self.verdict().await;
        let Self { guard, errors, timed_out, .. } = self;
        guard.remove().await;
        let (exit_code, oom_killed) = verdict?;
        Ok(SandboxExit { exit_code, oom_killed, timed_out, output: errors, cpu_us: None })
    }

    /// One step of everything that goes on at once. Cancel safe: each branch is, and what a branch
    /// yields is taken up before the next await.
    async fn advance(&mut self) {
        let Self { output, stdin, exit_stream, exit, deadline, .. } = self;
        let step = tokio::select! {
            item = next_output(output) => Step::Output(item),
            () = feed(stdin) => Step::Fed,
            item = exit_stream.next(), if exit.is_none() => Step::Exit(item),
            () = tokio::time::sleep_until(*deadline) => Step::Deadline,
        };
        match step {
            Step::Output(Some(Ok(LogOutput::StdErr { message }))) => self.errors.push(&message),
            Step::Output(Some(Ok(LogOutput::StdOut { message }))) => self.lines.push(&message),
            Step::Output(Some(Ok(LogOutput::Console { .. } | LogOutput::StdIn { .. }))) => {}
            Step::Output(Some(Err(error))) => {
                self.output = None;
                self.exit = Some(Err(infra(InfraStage::Sandbox, "lost the output of a container", &error)));
            }
            Step::Output(None) => {
                self.lines.end();
                self.output = None;
            }
            Step::Fed => {}
            Step::Exit(Some(Ok(code))) => {
                self.exit = Some(Ok(code));
                self.deadline = Instant::now() + SETTLING;
            }
            Step::Exit(Some(Err(error))) if is_missing(&error) => {
                self.exit = Some(Err(lost(REMOVED)));
                self.deadline = Instant::now();
            }
            Step::Exit(Some(Err(error))) => {
                self.exit = Some(Err(infra(InfraStage::Sandbox, "lost sight of a container", &error)));
                self.deadline = Instant::now();
            }
            Step::Exit(None) => {
                self.exit = Some(Err(lost("the engine ended the wait for a container")));
                self.deadline = Instant::now();
            }
            Step::Deadline => self.deadline_passed().await,
        }
    }

    async fn deadline_passed(&mut self) {
        if self.exit.is_some() {
            self.output = None;
        } else if self.timed_out {
            self.output = None;
            self.exit = Some(Err(lost("a container did not end after it was killed")));
        } else {
            self.kill().await;
            self.timed_out = true;
            self.deadline = Instant::now() + SETTLING;
        }
    }

    /// The exit code and the memory verdict, from the engine's record of the ended container: one
    /// that was removed under us, or whose engine is going down, has no record.
    async fn verdict(&mut self) -> Result<(i64, bool), InfraError> {
        let waited = match self.exit.take() {
            Some(exit) => exit?,
            None => return Err(lost("a container was not waited for")),
        };
        // The memory verdict is an event of its own and may come a moment after the exit.
        for pause_ms in [0, 20, 80] {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            let found = self.engine.docker().inspect_container(self.guard.name(), None).await;
            let state = match found {
                Ok(container) => container.state.unwrap_or_default(),
                Err(error) if is_missing(&error) => {
                    return Err(lost(REMOVED));
                }
                Err(error) => {
                    return Err(infra(InfraStage::Sandbox, "failed to inspect a container", &error));
                }
            };
            if state.running.unwrap_or(false) || state.restarting.unwrap_or(false) {
                return Err(lost("a container was restarted by somebody else"));
            }
            if state.exit_code.is_some_and(|code| code != waited) {
                return Err(lost("the engine reports two exit codes of one container"));
            }
            if state.oom_killed.unwrap_or(false) {
                return Ok((waited, true));
            }
            if waited != 137 || self.timed_out {
                break;
            }
        }
        Ok((waited, false))
    }
}

async fn next_output(output: &mut Option<Output>) -> Option<Result<LogOutput, Error>> {
    match output {
        Some(stream) => stream.next().await,
        None => pending().await,
    }
}

/// Writes the next piece, then closes. A program that does not read its input is no error.
async fn feed(stdin: &mut Option<Stdin>) {
    let Some(Stdin { writer, bytes, sent }) = stdin else { return pending().await };
    if *sent < bytes.len() {
        match writer.write(&bytes[*sent..]).await {
            Ok(written) if written > 0 => *sent += written,
            Ok(_) | Err(_) => *stdin = None,
        }
    } else {
        let _ = writer.shutdown().await;
        *stdin = None;
    }
}

fn lost(message: &str) -> InfraError {
    InfraError { stage: InfraStage::Sandbox, message: message.to_owned() }
}
