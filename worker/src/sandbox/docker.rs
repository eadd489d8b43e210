//! The container level: each attempt is a fresh, hardened container of the prepared image.
//!
//! The tree of the project lies read-only in the image and is copied into a memory file system that
//! only this container sees, so attempts share nothing that they can write to. Most of what a
//! container costs is the engine's: so nothing is set up that an attempt does not need, and removal
//! and, for those somebody waits for, the start happen beside the attempts.

mod lean;
mod pool;
mod running;

pub use running::RunningContainer;

use super::SandboxRequest;
use super::engine::{
    ContainerGuard, Engine, EngineFacts, EngineUnavailable, Place, Role, RuntimeChoice, infra, start_attached,
};
use super::hardening::{Measures, Wall, hardened};
use super::hosts::Hosts;
use super::nest::{Nest, NotStarted, Use};
use crate::user::{USER, user_name};
use bollard::container::AttachContainerResults;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, Mount};
use bollard::query_parameters::WaitContainerOptionsBuilder;
use flakefarm_nest::HOME;
use flakefarm_shared::project::Network;
use flakefarm_shared::{InfraError, InfraStage, Limits};
use futures::StreamExt;
use futures::stream::BoxStream;
use lean::Lean;
pub use pool::ToCome;
use pool::{Pool, Shape};
use running::Output;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWrite;

/// Beyond which a container found by label is nobody's.
const EXPIRY_MARGIN: Duration = Duration::from_secs(300);

/// Copies the tree. The base image itself (no tree) is fine, too. Where /work is not the attempt's own (see
/// `sandbox::podman`) what is in the tree is copied: /work itself cannot be given its times.
const ENTRY: &str = r#"mkdir -p "$HOME"
copy_tree() {
  if [ -O /work ]; then cp -a /flakefarm/tree/. /work/; return; fi
  for found in /flakefarm/tree/* /flakefarm/tree/.[!.]* /flakefarm/tree/..?*; do
    if [ -e "$found" ] || [ -L "$found" ]; then cp -a "$found" /work/ || return; fi
  done
}
if [ -d /flakefarm/tree ]; then
  copy_tree || { echo "flakefarm: the project's tree does not fit into /work" >&2; exit 125; }
fi
"#;
/// The shell stays as process 1, so that the program is not: there it would ignore signals that it has
/// no handler for. The shell reaps orphans while it waits; the engine's own init would cost a mount and
/// a program more.
const RUN: &str = r#""$@"; exit $?"#;
/// The program comes as a line of quoted words. A closed input means that nobody wants this container
/// any more. The shell reads byte by byte, so the rest of the input is the program's.
const AWAIT: &str = r#"IFS= read -r words || exit 0
eval "$words"; exit $?"#;

/// Runs attempts in containers. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct DockerSandbox {
    launcher: Arc<Launcher>,
    pool: Arc<Pool>,
}

impl DockerSandbox {
    /// Containers on `engine`, of the leanest runtime that works there.
    pub fn new(engine: Engine) -> Self {
        Self::with_runtime(engine, RuntimeChoice::Auto)
    }

    /// Containers on `engine`, of this runtime.
    pub fn with_runtime(engine: Engine, runtime: RuntimeChoice) -> Self {
        Self::in_network(engine, runtime, "bridge".to_owned())
    }

    /// The same; attempts that may reach a network are in the engine's network of this name.
    pub fn in_network(engine: Engine, runtime: RuntimeChoice, network: String) -> Self {
        let launcher =
            Arc::new(Launcher { engine, hosts: Hosts::default(), lean: Lean::default(), runtime, network });
        Self { pool: Arc::new(Pool::new(launcher.clone())), launcher }
    }

    /// The same; that the lean runtime does not work here is remembered in `file` for other processes.
    pub fn remembering(self, file: PathBuf) -> Self {
        self.launcher.lean.remember_in(file);
        self
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.launcher.engine
    }

    /// The runtime that starts its containers, as far as is known: being registered does not mean that
    /// it works here, which the first container tells.
    pub async fn runtime(&self) -> Result<String, EngineUnavailable> {
        let facts = self.launcher.engine.check().await?;
        Ok(self.launcher.chosen_runtime(&facts).unwrap_or(facts.default_runtime))
    }

    /// See [`super::Sandbox::close`].
    pub async fn close(&self) {
        self.pool.close().await;
        self.launcher.hosts.forget().await;
        self.launcher.engine.close().await;
    }

    /// See [`super::Sandbox::keep_ready`].
    pub fn keep_ready(&self, image: &str, limits: &Limits, count: NonZeroU16, to_come: ToCome) {
        self.pool.wish(Shape { image: image.to_owned(), limits: limits.clone(), user: USER }, count, to_come);
    }

    /// See [`super::Sandbox::furnish_ahead`].
    pub async fn furnish_ahead(&self, image: &str, limits: &Limits) {
        if limits.network != Network::None || !self.launcher.facts().await.is_ok_and(|facts| !facts.is_podman)
        {
            return;
        }
        // If it cannot be done with this image it is done with the one that attempts run in, or fails there.
        let _ = self.launcher.hosts.mounts(&self.launcher.engine, image).await;
    }

    /// How many containers are started and wait for an attempt.
    pub fn ready(&self) -> usize {
        self.pool.ready()
    }

    /// Opens a nest in a container of `request`'s image and limits. Cancel safe.
    pub(super) async fn open_nest(
        &self,
        request: &SandboxRequest,
        used_for: Use,
    ) -> Result<Nest, NotStarted> {
        let engine = &self.launcher.engine;
        let runtime = self.launcher.chosen().await?;
        let place = Place { cpus: self.launcher.facts().await?.cpus, network: &self.launcher.network };
        match Nest::in_container(engine, place, request, used_for, runtime.clone()).await {
            Err(NotStarted::Infrastructure(error))
                if self.launcher.gives_up(runtime.as_deref(), &error).await =>
            {
                Nest::in_container(engine, place, request, used_for, None).await
            }
            result => result,
        }
    }

    /// See [`super::Sandbox::start`].
    pub async fn start(&self, request: SandboxRequest) -> Result<RunningContainer, InfraError> {
        let timeout = Duration::from_millis(request.limits.attempt_timeout_ms);
        let shape =
            Shape { image: request.image.clone(), limits: request.limits.clone(), user: request.user };
        let engine = self.launcher.engine.clone();
        if let Some(mut input) = words(&request)
            && let Some(launched) = self.pool.take(&shape)
        {
            input.extend(request.stdin);
            return Ok(RunningContainer::new(engine, launched, input, timeout));
        }
        let role = Role::Attempt {
            worker: request.worker.to_string(),
            sweep: request.sweep.to_string(),
            job: request.attempt.job.to_string(),
            attempt: request.attempt.index.to_string(),
        };
        let program = Program::Given { argv: &request.argv, variables: &request.variables };
        let launched = self.launcher.launch(&shape, &role, program, timeout).await?;
        Ok(RunningContainer::new(engine, launched, request.stdin, timeout))
    }
}

/// What a container is to run.
#[derive(Debug, Clone, Copy)]
enum Program<'a> {
    Given {
        argv: &'a [String],
        variables: &'a BTreeMap<String, String>,
    },
    /// What it will be told on its standard input.
    Awaited,
}

/// A container that was started, with both ends of its streams.
struct Launched {
    guard: ContainerGuard,
    output: Output,
    stdin: Pin<Box<dyn AsyncWrite + Send>>,
    exit: BoxStream<'static, Result<i64, Error>>,
}

#[derive(Debug)]
struct Launcher {
    engine: Engine,
    hosts: Hosts,
    runtime: RuntimeChoice,
    /// The engine's network for attempts that may reach one.
    network: String,
    lean: Lean,
}

impl Launcher {
    async fn launch(
        &self,
        shape: &Shape,
        role: &Role,
        program: Program<'_>,
        lifetime: Duration,
    ) -> Result<Launched, InfraError> {
        let runtime = self.chosen().await?;
        match self.launch_with(shape, role, program, lifetime, runtime.clone()).await {
            Err(error) if self.gives_up(runtime.as_deref(), &error).await => {
                self.launch_with(shape, role, program, lifetime, None).await
            }
            result => result,
        }
    }

    async fn chosen(&self) -> Result<Option<String>, InfraError> {
        Ok(self.chosen_runtime(&self.facts().await?))
    }

    async fn facts(&self) -> Result<EngineFacts, InfraError> {
        let facts = self.engine.check().await;
        facts.map_err(|error| InfraError { stage: InfraStage::Engine, message: error.to_string() })
    }

    /// Whether `error` says that the runtime we chose by ourselves does not work here: then the engine's
    /// default takes its place from now on.
    async fn gives_up(&self, runtime: Option<&str>, error: &InfraError) -> bool {
        let lean = self.runtime == RuntimeChoice::Auto && runtime.is_some();
        let broken = lean && error.message.contains("OCI runtime");
        if broken && let Ok(facts) = self.facts().await {
            self.lean.note_failure(&facts, error);
        }
        broken
    }

    /// `None`: the engine's default.
    fn chosen_runtime(&self, facts: &EngineFacts) -> Option<String> {
        match &self.runtime {
            RuntimeChoice::Named(name) => Some(name.clone()),
            RuntimeChoice::Default => None,
            RuntimeChoice::Auto => {
                let chosen = facts.runtime(&RuntimeChoice::Auto) == lean::RUNTIME && !facts.is_podman;
                (chosen && !self.lean.fails(facts)).then(|| lean::RUNTIME.to_owned())
            }
        }
    }

    async fn launch_with(
        &self,
        shape: &Shape,
        role: &Role,
        program: Program<'_>,
        lifetime: Duration,
        runtime: Option<String>,
    ) -> Result<Launched, InfraError> {
        let docker = self.engine.docker();
        let facts = self.facts().await?;
        let names = match shape.limits.network {
            // Podman's network `none` brings a hosts file.
            Network::None if facts.is_podman => Vec::new(),
            Network::None => self.hosts.mounts(&self.engine, &shape.image).await?,
            Network::Bridge => Vec::new(),
        };
        let labels = self.engine.labels(role, lifetime + EXPIRY_MARGIN);
        let place = Place { cpus: facts.cpus, network: &self.network };
        let body = container_body(shape, program, place, labels, runtime, names);
        let mut guard = self.engine.guard();
        let failed = |what: &'static str| move |error: Error| infra(InfraStage::Sandbox, what, &error);
        if let Err(error) = self.engine.create(&mut guard, body).await {
            if error.to_string().contains("bind source path does not exist") {
                self.hosts.forget().await;
            }
            return Err(failed("failed to create a container")(error));
        }
        let AttachContainerResults { output, input } = start_attached(docker, guard.name()).await?;
        // Held open while it runs: an engine that goes away breaks this stream, so that the end it
        // gave its containers is not taken for theirs.
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let exit = docker.wait_container(guard.name(), Some(options)).map(exit_code).boxed();
        Ok(Launched { guard, output, stdin: input, exit })
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

/// The line that tells a waiting container its program, if one line can say it.
fn words(request: &SandboxRequest) -> Option<Vec<u8>> {
    let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    let assigned = request.variables.iter().map(|(key, value)| quoted(&format!("{key}={value}")));
    let env = (!request.variables.is_empty()).then(|| "env".to_owned());
    let words: Vec<String> =
        env.into_iter().chain(assigned).chain(request.argv.iter().map(|word| quoted(word))).collect();
    let line = words.join(" ");
    (!line.contains('\n')).then(|| format!("{line}\n").into_bytes())
}

fn container_body(
    shape: &Shape,
    program: Program<'_>,
    place: Place<'_>,
    labels: HashMap<String, String>,
    runtime: Option<String>,
    names: Vec<Mount>,
) -> ContainerCreateBody {
    let name = user_name(shape.user);
    let mut environment =
        HashMap::from([("HOME", HOME), ("USER", name.as_str()), ("LOGNAME", name.as_str())]);
    let mut cmd = vec!["-c".to_owned()];
    match program {
        Program::Given { argv, variables } => {
            environment.extend(variables.iter().map(|(key, value)| (key.as_str(), value.as_str())));
            cmd.extend([format!("{ENTRY}{RUN}"), "sh".to_owned()]);
            cmd.extend(argv.iter().cloned());
        }
        Program::Awaited => cmd.push(format!("{ENTRY}{AWAIT}")),
    }
    let mut env: Vec<String> = environment.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    env.sort();
    let wall = Wall::Attempt { user: shape.user, scratch_bytes: shape.limits.scratch_bytes, names };
    let mut body = hardened(&Measures::of_attempt(&shape.limits, place.cpus, place.network), wall);
    if let Some(host) = &mut body.host_config {
        host.runtime = runtime;
    }
    ContainerCreateBody {
        image: Some(shape.image.clone()),
        entrypoint: Some(vec!["/bin/sh".to_owned()]),
        cmd: Some(cmd),
        env: Some(env),
        labels: Some(labels),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        // A container whose owner was killed loses its input, and ends.
        stdin_once: Some(true),
        ..body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_shared::{AttemptId, JobId, SweepId, WorkerId};

    fn check(argv: &[&str], variables: &[(&str, &str)], expect: Option<&str>) {
        let request = SandboxRequest {
            image: String::new(),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            stdin: Vec::new(),
            variables: variables
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            user: USER,
            limits: Limits::default(),
            attempt: AttemptId { job: JobId::new(), index: 0 },
            sweep: SweepId::new(),
            worker: WorkerId("w".to_owned()),
        };
        assert_eq!(words(&request).map(|line| String::from_utf8(line).unwrap()).as_deref(), expect);
    }

    #[test]
    fn a_program_is_told_in_one_line_or_not_at_all() {
        check(&["true"], &[], Some("'true'\n"));
        check(&["echo", "it's $HOME"], &[], Some("'echo' 'it'\\''s $HOME'\n"));
        check(&["true"], &[("A", "b c")], Some("env 'A=b c' 'true'\n"));
        check(&["sh", "-c", "a\nb"], &[], None);
        check(&["true"], &[("A", "b\nc")], None);
    }
}
