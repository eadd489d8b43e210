//! A container that is running one attempt: its output, its input, its end.

use super::super::SandboxExit;
use super::super::engine::{ContainerGuard, Engine, infra, is_missing};
use super::super::output::{BoundedOutput, Lines};
use super::Launched;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::KillContainerOptionsBuilder;
use flakefarm_shared::{InfraError, InfraStage};
use futures::future::pending;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

const LINE_CAP: usize = 1 << 20;
const ERROR_HALF: usize = 64 << 10;
/// Beyond the attempt's own limit, before the container is killed from here.
const LAST_RESORT: Duration = Duration::from_secs(5);
/// For a killed container to be gone, or for the rest of an ended container's output.
const SETTLING: Duration = Duration::from_secs(30);

/// What is kept of the output that comes while a container is being killed.
const LAST_OUTPUT: usize = 4 << 20;

const REMOVED: &str = "a container was removed by somebody else while it ran";

pub(super) type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

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
    /// Watches over a container that was just started, or given its program; `input` is delivered and
    /// its `timeout` begins now.
    pub(super) fn new(engine: Engine, launched: Launched, input: Vec<u8>, timeout: Duration) -> Self {
        let Launched { guard, output, stdin, exit } = launched;
        Self {
            engine,
            guard,
            output: Some(output),
            stdin: Some(Stdin { writer: stdin, bytes: input, sent: 0 }),
            exit_stream: exit,
            lines: Lines::new(LINE_CAP),
            errors: BoundedOutput::new(ERROR_HALF),
            exit: None,
            deadline: Instant::now() + timeout + LAST_RESORT,
            timed_out: false,
        }
    }

    /// See [`crate::sandbox::RunningSandbox::next_line`].
    pub async fn next_line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(line) = self.lines.pop() {
                return Some(line);
            }
            self.output.as_ref()?;
            self.advance().await;
        }
    }

    /// See [`crate::sandbox::RunningSandbox::kill`].
    pub async fn kill(&mut self) {
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        let name = self.guard.name().to_owned();
        let engine = self.engine.clone();
        let mut killing = std::pin::pin!(engine.docker().kill_container(&name, Some(options)));
        let mut kept = 0;
        // An engine that cannot get rid of a container's output does not answer before its client gives up.
        let killed = loop {
            tokio::select! {
                killed = &mut killing => break killed,
                item = next_output(&mut self.output) => match item {
                    Some(Ok(output)) if kept > LAST_OUTPUT => drop(output),
                    item => {
                        kept += item.as_ref().map_or(0, |item| item.as_ref().map_or(0, |output| output.as_ref().len()));
                        self.take(item);
                    }
                },
            }
        };
        match killed {
            // 404 and 409: it has ended already.
            Ok(()) | Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => {}
            Err(error) => tracing::warn!("failed to kill container {name}: {error}"),
        }
        self.deadline = self.deadline.min(Instant::now() + SETTLING);
    }

    /// See [`crate::sandbox::RunningSandbox::abandon`].
    pub async fn abandon(self) {
        // Removal ends it first.
        self.guard.remove_soon().await;
    }

    /// See [`crate::sandbox::RunningSandbox::finish`].
    pub async fn finish(mut self) -> Result<SandboxExit, InfraError> {
        while self.exit.is_none() || (self.output.is_some() && !matches!(self.exit, Some(Err(_)))) {
            self.advance().await;
            self.lines.clear();
        }
        let verdict = self.verdict().await;
        let Self { guard, errors, timed_out, .. } = self;
        guard.remove_soon().await;
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
            Step::Output(item) => self.take(item),
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

    fn take(&mut self, item: Option<Result<LogOutput, Error>>) {
        match item {
            Some(Ok(LogOutput::StdErr { message })) => self.errors.push(&message),
            Some(Ok(LogOutput::StdOut { message })) => self.lines.push(&message),
            Some(Ok(LogOutput::Console { .. } | LogOutput::StdIn { .. })) => {}
            Some(Err(error)) => {
                self.output = None;
                self.exit = Some(Err(infra(InfraStage::Sandbox, "lost the output of a container", &error)));
            }
            None => {
                self.lines.end();
                self.output = None;
            }
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
