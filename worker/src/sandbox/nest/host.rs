//! Attempts on this machine, without a container engine: in a nest of user namespaces (level host) or
//! as plain processes (level process, see [`super::super::process`]).

use super::{Asked, Carrier, Nest, NotStarted, PROGRAM, RunningNested};
use crate::sandbox::place::{Place, SYSTEM_PATH, search_path};
use crate::sandbox::{RunningProcess, RunningSandbox, SandboxRequest};
use flakefarm_nest::{Bind, Ground, SetUp};
use flakefarm_shared::project::Network;
use flakefarm_shared::{InfraError, InfraStage, SandboxLevel};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};
use std::process::Stdio;
use std::sync::Arc;
use tempfile::TempPath;

/// Passed on to attempts from this process's own environment: the rest may hold secrets.
const KEPT_VARIABLES: [&str; 4] = ["LANG", "LC_ALL", "LC_CTYPE", "TZ"];

/// Runs attempts on this machine. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct LocalSandbox {
    level: SandboxLevel,
    /// The nest, where a program can be started from.
    program: Arc<TempPath>,
}

impl LocalSandbox {
    /// Attempts at `level`, which is host or process.
    pub fn new(level: SandboxLevel) -> Result<Self, InfraError> {
        let written = || {
            let mut file = tempfile::Builder::new().prefix("flakefarm-nest-").tempfile()?;
            io::Write::write_all(&mut file, PROGRAM)?;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o755))?;
            Ok::<_, io::Error>(file.into_temp_path())
        };
        let program = written().map_err(|error| failed(&format!("failed to write the nest: {error}")))?;
        Ok(Self { level, program: Arc::new(program) })
    }

    /// The level of its attempts.
    pub fn level(&self) -> SandboxLevel {
        self.level
    }

    /// Whether this machine lets an ordinary user make the namespaces that the level takes.
    pub async fn check(&self) -> Result<(), String> {
        if self.level == SandboxLevel::Process {
            return Ok(());
        }
        match self.open(Vec::new(), SYSTEM_PATH, Network::None).await {
            Ok(nest) => {
                nest.close().await;
                Ok(())
            }
            Err(NotStarted::Unsupported(why)) => Err(why),
            Err(NotStarted::Infrastructure(error)) => Err(error.message),
        }
    }

    /// See [`crate::sandbox::Sandbox::start`].
    pub(crate) async fn start(&self, request: SandboxRequest) -> Result<RunningSandbox, InfraError> {
        if self.level == SandboxLevel::Process {
            return Ok(RunningSandbox::Process(Box::new(RunningProcess::start(request)?)));
        }
        let nest = self.open_nest(&request).await.map_err(|error| match error {
            NotStarted::Unsupported(why) => failed(&why),
            NotStarted::Infrastructure(error) => error,
        })?;
        match RunningNested::start(nest, None, &request, None).await? {
            Asked::Runs(running) => Ok(RunningSandbox::Nested(running)),
            Asked::NotForked(_, why) => Err(failed(&why)),
        }
    }

    /// Opens a nest for attempts in `request`'s place. Cancel safe.
    pub(crate) async fn open_nest(&self, request: &SandboxRequest) -> Result<Nest, NotStarted> {
        let directory = Path::new(&request.image);
        let place = Place::read(directory)?;
        let own = |name: &str| Bind {
            source: directory.join(name).display().to_string(),
            target: format!("/flakefarm/{name}"),
        };
        let needs = place.needs.iter().filter(|path| hidden(path));
        let needs = needs.map(|path| Bind { source: path.clone(), target: inside(path) });
        let binds = [own("tree"), own("plugin")].into_iter().chain(needs).collect();
        self.open(binds, &search_path(place.path.iter().map(|path| inside(path))), request.limits.network)
            .await
    }

    async fn open(&self, binds: Vec<Bind>, path: &str, network: Network) -> Result<Nest, NotStarted> {
        if PROGRAM.is_empty() {
            return Err(NotStarted::Unsupported("namespaces are Linux's".to_owned()));
        }
        let program: &Path = &self.program;
        let mut command = tokio::process::Command::new(program);
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command.envs(KEPT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var(name).ok()?))));
        command.env("PATH", path).current_dir("/").kill_on_drop(true);
        let spawned = command.spawn();
        let mut child = spawned.map_err(|error| failed(&format!("failed to start the nest: {error}")))?;
        let streams = child.stdin.take().zip(child.stdout.take());
        let (input, output) = streams.expect("both are piped");
        let process = NestProcess { child };
        let mut nest =
            Nest::over(Carrier::Host { output: Box::pin(output), input: Box::pin(input), process });
        let shared_network = network == Network::Bridge;
        nest.set_up(SetUp { ground: Ground::Host { binds }, shared_network }).await?;
        Ok(nest)
    }
}

/// Whether attempts would not see a path unless it is bound: its beginning is left empty for them.
fn hidden(path: &str) -> bool {
    begins_with(path, &["home", "root", "boot", "mnt", "media"]) || covered(path)
}

/// Whether attempts have something of their own over it.
fn covered(path: &str) -> bool {
    begins_with(path, &["tmp", "run", "work"])
}

fn begins_with(path: &str, names: &[&str]) -> bool {
    let first = Path::new(path).components().nth(1).map(Component::as_os_str);
    first.is_some_and(|first| names.iter().any(|name| first == *name))
}

/// Where attempts see a path of this machine. A virtual environment works there, too: it is found by
/// where its interpreter is.
fn inside(path: &str) -> String {
    if covered(path) { format!("/flakefarm/machine{path}") } else { path.to_owned() }
}

/// Owns the nest's first process; with it, all of it ends.
#[derive(Debug)]
pub(crate) struct NestProcess {
    child: tokio::process::Child,
}

impl NestProcess {
    pub(super) async fn end(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!("failed to end a nest: {error}");
        }
    }
}

fn failed(message: &str) -> InfraError {
    InfraError { stage: InfraStage::Sandbox, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_left_empty_must_be_bound() {
        assert!(hidden("/root/.pyenv/versions/3.11"));
        assert!(hidden("/home/me/venv"));
        assert!(!hidden("/usr"));
        assert!(!hidden("/opt/python"));
        assert_eq!(inside("/tmp/state/venv"), "/flakefarm/machine/tmp/state/venv");
        assert_eq!(inside("/home/me/venv"), "/home/me/venv");
    }
}
