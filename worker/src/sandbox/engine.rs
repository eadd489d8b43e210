//! The container engine: its connection, the containers this process has made, and their removal.
//!
//! Owns every container from before its creation to its removal. A container is removed by its
//! guard, by the clean-up queue if the guard was dropped, and by label if the process died.

use super::{owner, podman};
use bollard::Docker;
use bollard::container::AttachContainerResults;
use bollard::errors::Error;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions,
};
use flakefarm_shared::{InfraError, InfraStage, WorkerId, now_micros};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use uuid::Uuid;

const LABEL_PREFIX: &str = "dev.flakefarm.";
/// Keys that mark a container; images made from one carry them empty (see `environment`).
pub(crate) const CONTAINER_LABELS: [&str; 8] =
    ["role", "instance", "worker", "owner", "sweep", "job", "attempt", "expires"];
const OLDEST_API: (u32, u32) = (1, 41);
const REMOVAL_TRIES: u32 = 6;
/// More at once only make the engine slower.
const REMOVALS_AT_ONCE: usize = 2;
/// Ended containers that wait for their removal; whoever ends another one waits with them.
const REMOVALS_WAITING: usize = 16;

/// A connection to a Docker-compatible engine. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    docker: Docker,
    address: String,
    worker: WorkerId,
    instance: Uuid,
    known: Mutex<HashSet<String>>,
    leftovers: mpsc::UnboundedSender<Leftover>,
    cleaner: Mutex<Option<JoinHandle<()>>>,
    removals: Arc<Semaphore>,
    facts: OnceCell<EngineFacts>,
    /// Where an engine that takes them by path finds profiles of system calls.
    profiles: Mutex<Option<TempDir>>,
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFacts {
    /// What tells it from other engines; empty if it does not say.
    pub id: String,
    /// Its version.
    pub version: String,
    /// The kernel of its machine.
    pub kernel: String,
    /// The newest API it speaks.
    pub api_version: String,
    /// The runtimes that are registered, sorted.
    pub runtimes: Vec<String>,
    /// The one that is taken unless another is asked for.
    pub default_runtime: String,
    /// Whether it is Podman, which takes some words of Docker's API otherwise.
    pub is_podman: bool,
    /// CPUs of its machine; 0 if it does not say.
    pub cpus: u64,
    /// Where it keeps its images and containers, a path on its machine.
    pub data_root: String,
    /// The version of control groups that it limits by, `1` or `2`; empty if it does not say.
    pub cgroups: String,
    /// Whether it runs as an ordinary user.
    pub rootless: bool,
}

impl EngineFacts {
    /// The runtime that `choice` comes to here, as long as it can start something.
    pub fn runtime(&self, choice: &RuntimeChoice) -> String {
        // Podman starts every container with the one that its service was started with.
        let may_be_chosen = |runtime: &&String| !self.is_podman && *runtime == LEAN_RUNTIME;
        let lean = || self.runtimes.iter().find(may_be_chosen);
        match choice {
            RuntimeChoice::Named(name) => name.clone(),
            RuntimeChoice::Default => self.default_runtime.clone(),
            RuntimeChoice::Auto => lean().unwrap_or(&self.default_runtime).clone(),
        }
    }
}

/// Registered under this name, it is taken by itself: it starts a container in half runc's time.
pub(crate) const LEAN_RUNTIME: &str = "crun";

/// No usable engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineUnavailable {
    /// Nothing answers.
    #[error("no container engine answers at `{address}`")]
    Silent {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: Error,
    },
    /// It is too old.
    #[error("the container engine at `{address}` speaks API {found}, but 1.41 is needed")]
    TooOld {
        /// Where.
        address: String,
        /// Its newest API.
        found: String,
    },
    /// It does not know the runtime that was asked for.
    #[error("the container engine at `{address}` has no runtime `{runtime}`, only {}", .registered.join(", "))]
    NoRuntime {
        /// Where.
        address: String,
        /// What was asked for.
        runtime: String,
        /// What there is.
        registered: Vec<String>,
    },
    /// It starts every container with the same one, whatever a client asks for.
    #[error("Podman at `{address}` starts every container with `{takes}`, not with `{runtime}`")]
    OneRuntime {
        /// Where.
        address: String,
        /// What was asked for.
        runtime: String,
        /// What it takes.
        takes: String,
    },
}

impl EngineUnavailable {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            EngineUnavailable::Silent { .. } => "start it, or point DOCKER_HOST at one",
            EngineUnavailable::TooOld { .. } => "upgrade Docker to 20.10 or newer",
            EngineUnavailable::NoRuntime { .. } => {
                "choose one of those, or `auto`; others are registered in the engine's own configuration"
            }
            EngineUnavailable::OneRuntime { .. } => {
                "start Podman's service with it: podman --runtime PATH system service, or `runtime` in containers.conf"
            }
        }
    }
}

/// Which runtime starts the containers of attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RuntimeChoice {
    /// crun if it is registered and works, else the engine's default.
    #[default]
    Auto,
    /// The engine's default.
    Default,
    /// This one, by the name it is registered under (`crun`, `runsc`, `kata`).
    Named(String),
}

impl std::str::FromStr for RuntimeChoice {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => RuntimeChoice::Auto,
            "default" => RuntimeChoice::Default,
            name => RuntimeChoice::Named(name.to_owned()),
        })
    }
}

/// What a container is for.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    Attempt {
        worker: String,
        sweep: String,
        job: String,
        attempt: String,
    },
    /// Started ahead, for an attempt to come.
    Ready,
    Setup,
    Hosts,
    /// Started to see whether it starts.
    Trial,
}

#[derive(Debug)]
enum Leftover {
    /// The permit, if there is one, bounds how many wait.
    Container {
        name: String,
        created: bool,
        waiting: Option<OwnedSemaphorePermit>,
    },
    Close,
}

/// What an engine has for a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// CPUs; 0 if it does not say.
    pub(crate) cpus: u64,
    /// Its network for what may reach one.
    pub(crate) network: &'a str,
}

impl Engine {
    /// Connects to the engine at `DOCKER_HOST`, else Docker's own socket, else Podman's. Spawns the
    /// clean-up task, so it needs a runtime. Whether anybody answers is told by [`Engine::check`].
    pub fn connect(worker: WorkerId) -> Result<Self, EngineUnavailable> {
        if let Ok(address) = std::env::var("DOCKER_HOST")
            && !address.is_empty()
        {
            return Self::connect_to(&address, worker);
        }
        let runtime_dir = std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(|_| "/run/user/0".to_owned());
        let sockets = [
            "/var/run/docker.sock".to_owned(),
            format!("{runtime_dir}/docker.sock"),
            format!("{runtime_dir}/podman/podman.sock"),
            "/run/podman/podman.sock".to_owned(),
        ];
        let socket = sockets.iter().find(|path| std::path::Path::new(path).exists()).unwrap_or(&sockets[0]);
        Self::connect_to(&format!("unix://{socket}"), worker)
    }

    /// Connects to the engine at `address` (`unix://…`, `tcp://…`).
    pub fn connect_to(address: &str, worker: WorkerId) -> Result<Self, EngineUnavailable> {
        let docker = Docker::connect_with_host(address)
            .map_err(|source| EngineUnavailable::Silent { address: address.to_owned(), source })?;
        let (leftovers, queue) = mpsc::unbounded_channel();
        let engine = Self {
            inner: Arc::new(Inner {
                docker: docker.clone(),
                address: address.to_owned(),
                worker,
                instance: Uuid::now_v7(),
                known: Mutex::default(),
                leftovers,
                cleaner: Mutex::default(),
                removals: Arc::new(Semaphore::new(REMOVALS_WAITING)),
                facts: OnceCell::new(),
                profiles: Mutex::default(),
            }),
        };
        let cleaner = tokio::spawn(clean_up(docker, queue));
        *engine.inner.cleaner.lock().expect("no holder panics") = Some(cleaner);
        Ok(engine)
    }

    /// Asks the engine who it is; the answer is remembered.
    pub async fn check(&self) -> Result<EngineFacts, EngineUnavailable> {
        self.inner.facts.get_or_try_init(|| self.ask()).await.cloned()
    }

    async fn ask(&self) -> Result<EngineFacts, EngineUnavailable> {
        let address = self.inner.address.clone();
        let silent = |source| EngineUnavailable::Silent { address: address.clone(), source };
        let version = self.inner.docker.version().await.map_err(silent)?;
        let api_version = version.api_version.unwrap_or_default();
        let components = version.components.unwrap_or_default();
        let is_podman = components.iter().any(|component| component.name.starts_with("Podman"));
        if parse_api_version(&api_version).is_none_or(|found| found < OLDEST_API) {
            return Err(EngineUnavailable::TooOld { address, found: api_version });
        }
        let info = self.inner.docker.info().await.map_err(silent)?;
        let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        runtimes.sort();
        Ok(EngineFacts {
            id: info.id.unwrap_or_default(),
            kernel: info.kernel_version.unwrap_or_default(),
            version: version.version.unwrap_or_default(),
            api_version,
            runtimes,
            is_podman,
            cpus: info.ncpu.and_then(|cpus| u64::try_from(cpus).ok()).unwrap_or_default(),
            default_runtime: info.default_runtime.unwrap_or_default(),
            data_root: info.docker_root_dir.unwrap_or_default(),
            cgroups: info.cgroup_version.map(|version| version.to_string()).unwrap_or_default(),
            rootless: info
                .security_options
                .is_some_and(|options| options.iter().any(|option| option.contains("rootless"))),
        })
    }

    /// Whether the engine answers now.
    pub async fn ping(&self) -> Result<(), InfraError> {
        let answered = self.inner.docker.ping().await;
        answered.map(drop).map_err(|error| infra(InfraStage::Engine, "the engine does not answer", &error))
    }

    /// Asks whether the engine is there and has the runtime that `choice` names.
    pub async fn check_runtime(&self, choice: &RuntimeChoice) -> Result<(), EngineUnavailable> {
        let facts = self.check().await?;
        match choice {
            RuntimeChoice::Named(runtime) if facts.is_podman && *runtime != facts.default_runtime => {
                Err(EngineUnavailable::OneRuntime {
                    address: self.inner.address.clone(),
                    runtime: runtime.clone(),
                    takes: facts.default_runtime,
                })
            }
            RuntimeChoice::Named(runtime) if !facts.runtimes.contains(runtime) => {
                Err(EngineUnavailable::NoRuntime {
                    address: self.inner.address.clone(),
                    runtime: runtime.clone(),
                    registered: facts.runtimes,
                })
            }
            RuntimeChoice::Named(_) | RuntimeChoice::Auto | RuntimeChoice::Default => Ok(()),
        }
    }

    pub(crate) fn docker(&self) -> &Docker {
        &self.inner.docker
    }

    /// Creates a container under its guard's name, in the words that this engine understands.
    pub(crate) async fn create(
        &self,
        guard: &mut ContainerGuard,
        mut body: ContainerCreateBody,
    ) -> Result<(), Error> {
        if self.inner.facts.get().is_none() {
            // What cannot be asked fails below, as an engine that does not answer.
            let _ = self.check().await;
        }
        if self.inner.facts.get().is_some_and(|facts| facts.is_podman) {
            podman::translate(&mut body, &self.profiles()?)?;
        }
        let options = CreateContainerOptionsBuilder::default().name(guard.name()).build();
        self.inner.docker.create_container(Some(options), body).await?;
        guard.created();
        Ok(())
    }

    fn profiles(&self) -> Result<PathBuf, Error> {
        let mut profiles = self.inner.profiles.lock().expect("no holder panics");
        let made = match profiles.take() {
            Some(made) => made,
            None => tempfile::Builder::new().prefix("flakefarm-profiles-").tempdir()?,
        };
        Ok(profiles.insert(made).path().to_owned())
    }

    /// Labels of a container that may live for `lifetime`.
    pub(crate) fn labels(&self, role: &Role, lifetime: Duration) -> HashMap<String, String> {
        let expires = now_micros() / 1_000_000 + i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX / 4);
        let mut labels = vec![
            ("instance", self.inner.instance.to_string()),
            ("owner", owner::this_process()),
            ("expires", expires.to_string()),
        ];
        match role {
            Role::Attempt { worker, sweep, job, attempt } => labels.extend([
                ("role", "attempt".to_owned()),
                ("worker", worker.clone()),
                ("sweep", sweep.clone()),
                ("job", job.clone()),
                ("attempt", attempt.clone()),
            ]),
            Role::Ready => labels.extend(self.shared_labels("ready")),
            Role::Setup => labels.extend(self.shared_labels("setup")),
            Role::Hosts => labels.extend(self.shared_labels("hosts")),
            Role::Trial => labels.extend(self.shared_labels("trial")),
        }
        labels.into_iter().map(|(key, value)| (label(key), value)).collect()
    }

    fn shared_labels(&self, role: &str) -> [(&'static str, String); 2] {
        [("role", role.to_owned()), ("worker", self.inner.worker.to_string())]
    }

    /// A name for a container about to be created, and its owner.
    pub(crate) fn guard(&self) -> ContainerGuard {
        let name = format!("flakefarm-{}", Uuid::now_v7().simple());
        self.inner.known.lock().expect("no holder panics").insert(name.clone());
        ContainerGuard { engine: self.clone(), name, created: false, removed: false }
    }

    /// See [`super::Sandbox::reap`].
    pub async fn reap(&self) -> Result<usize, InfraError> {
        let filters = HashMap::from([("label", vec![label("worker")])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let failed = |error| infra(InfraStage::Engine, "failed to list containers", &error);
        let found = self.inner.docker.list_containers(Some(options)).await.map_err(failed)?;
        let now = now_micros() / 1_000_000;
        let mut removed = 0;
        for container in found {
            let labels = container.labels.unwrap_or_default();
            let names = container.names.unwrap_or_default();
            let ours = labels.get(&label("worker")).is_some_and(|worker| *worker == self.inner.worker.0);
            let orphaned = labels.get(&label("owner")).is_some_and(|owner| owner::is_gone(owner));
            let known = names.iter().any(|name| self.knows(name.trim_start_matches('/')));
            let expires = labels.get(&label("expires")).and_then(|text| text.parse::<i64>().ok());
            let expired = expires.is_some_and(|expires| expires < now);
            let Some(id) = container.id else { continue };
            if known || !(ours || orphaned || expired) {
                continue;
            }
            match remove(&self.inner.docker, &id).await {
                Ok(Removal::Done) => {
                    removed += 1;
                    tracing::info!("removed leftover container {}", names.join(" "));
                }
                Ok(Removal::Absent) => {}
                Err(error) => tracing::warn!("failed to remove leftover container {id}: {error}"),
            }
        }
        Ok(removed)
    }

    fn knows(&self, name: &str) -> bool {
        self.inner.known.lock().expect("no holder panics").contains(name)
    }

    /// Removes what is in the clean-up queue and ends it.
    pub async fn close(&self) {
        let cleaner = self.inner.cleaner.lock().expect("no holder panics").take();
        if let Some(cleaner) = cleaner {
            let _ = self.inner.leftovers.send(Leftover::Close);
            if cleaner.await.is_err() {
                tracing::warn!(
                    "the clean-up of containers ended early: some may be left until the next start"
                );
            }
        }
    }
}

fn parse_api_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The full name of one of our labels.
pub(crate) fn label(key: &str) -> String {
    format!("{LABEL_PREFIX}{key}")
}

/// Owns one container. Dropped, it hands the container to the clean-up queue.
#[derive(Debug)]
pub struct ContainerGuard {
    engine: Engine,
    name: String,
    created: bool,
    removed: bool,
}

impl ContainerGuard {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The engine has answered that it exists.
    fn created(&mut self) {
        self.created = true;
    }

    /// Has the container removed soon, while others go on. Waits only while many are to be removed.
    pub(crate) async fn remove_soon(mut self) {
        let waiting = self.engine.inner.removals.clone().acquire_owned().await;
        self.hand_over(waiting.ok());
        self.removed = true;
    }

    fn hand_over(&self, waiting: Option<OwnedSemaphorePermit>) {
        let leftover = Leftover::Container { name: self.name.clone(), created: self.created, waiting };
        // After `close` nobody listens: the next start's `reap` finds it by label.
        let _ = self.engine.inner.leftovers.send(leftover);
    }

    /// Removes the container. If the engine refuses, the clean-up queue keeps trying.
    pub(crate) async fn remove(mut self) {
        match remove(&self.engine.inner.docker, &self.name).await {
            Ok(Removal::Done | Removal::Absent) => self.removed = true,
            Err(error) => tracing::warn!("failed to remove container {}, will try again: {error}", self.name),
        }
    }
}

impl Drop for ContainerGuard {
    fn drop(&mut self) {
        self.engine.inner.known.lock().expect("no holder panics").remove(&self.name);
        if !self.removed {
            self.hand_over(None);
        }
    }
}

async fn clean_up(docker: Docker, mut queue: mpsc::UnboundedReceiver<Leftover>) {
    let mut removing = FuturesUnordered::new();
    let mut more = true;
    while more || !removing.is_empty() {
        tokio::select! {
            leftover = queue.recv(), if more && removing.len() < REMOVALS_AT_ONCE => match leftover {
                Some(Leftover::Container { name, created, waiting }) => {
                    let docker = &docker;
                    removing.push(async move {
                        remove_stubbornly(docker, &name, created).await;
                        drop(waiting);
                    });
                }
                // What is in the queue already still comes.
                Some(Leftover::Close) => queue.close(),
                None => more = false,
            },
            Some(()) = removing.next(), if !removing.is_empty() => {}
        }
    }
}

/// A container whose creation was abandoned may appear a moment later, so absence counts only if
/// the engine had confirmed it before.
async fn remove_stubbornly(docker: &Docker, name: &str, created: bool) {
    let mut pause = Duration::from_millis(100);
    for _ in 0..REMOVAL_TRIES {
        match remove(docker, name).await {
            Ok(Removal::Done) => return,
            Ok(Removal::Absent) if created => return,
            Ok(Removal::Absent) => {}
            Err(error) => tracing::warn!("failed to remove container {name}: {error}"),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

enum Removal {
    Done,
    Absent,
}

async fn remove(docker: &Docker, name: &str) -> Result<Removal, Error> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    match docker.remove_container(name, Some(options)).await {
        Ok(()) => Ok(Removal::Done),
        Err(error) if is_missing(&error) => Ok(Removal::Absent),
        // Somebody else is removing it.
        Err(Error::DockerResponseServerError { status_code: 409, .. }) => Ok(Removal::Done),
        Err(error) => Err(error),
    }
}

/// Whether the engine answered that there is no such thing.
pub(crate) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

/// Starts a container that was created; gives both ends of its streams. Attached before the start, or the
/// first lines would be lost: nothing is logged.
pub(super) async fn start_attached(
    docker: &Docker,
    container: &str,
) -> Result<AttachContainerResults, InfraError> {
    let failed = |what: &'static str| move |error: Error| infra(InfraStage::Sandbox, what, &error);
    let options =
        AttachContainerOptionsBuilder::default().stdin(true).stdout(true).stderr(true).stream(true).build();
    let attached = docker
        .attach_container(container, Some(options))
        .await
        .map_err(failed("failed to attach to a container"))?;
    docker
        .start_container(container, None::<StartContainerOptions>)
        .await
        .map_err(failed("failed to start a container"))?;
    Ok(attached)
}

/// An engine's error as ours: `stage` if the engine answered, [`InfraStage::Engine`] if it did not.
pub(crate) fn infra(stage: InfraStage, what: &str, error: &Error) -> InfraError {
    let answered = matches!(error, Error::DockerResponseServerError { .. } | Error::DockerStreamError { .. });
    let stage = if answered { stage } else { InfraStage::Engine };
    InfraError { stage, message: format!("{what}: {}", flakefarm_shared::chain(error)) }
}
