//! The outer wall of the nested level: one hardened container per job, in which the nest runs as an
//! ordinary user without capabilities. The engine's filter of system calls opens exactly the five
//! that making namespaces takes, and one for joining them where attempts are forked; the nest closes
//! them again for every attempt.

use super::{Carrier, Nest, NotStarted, PROGRAM};
use crate::sandbox::engine::{ContainerGuard, Engine, Place, Role, infra, start_attached};
use crate::sandbox::hardening::{Measures, Wall, hardened};
use crate::sandbox::{SandboxRequest, seccomp};
use bollard::body_full;
use bollard::container::AttachContainerResults;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, Mount, MountType};
use bollard::query_parameters::UploadToContainerOptionsBuilder;
use flakefarm_nest::{Ground, SetUp};
use flakefarm_shared::project::Network;
use flakefarm_shared::{InfraError, InfraStage};
use std::sync::LazyLock;
use std::time::Duration;

const DIRECTORY: &str = "/flakefarm/nest";
const NAME: &str = "nest";
/// What the nest needs and Docker's profile refuses.
const OPENED: [&str; 5] = ["clone", "mount", "pivot_root", "sethostname", "umount2"];
/// What prepared interpreters need beside: they join the namespaces of the attempts they fork.
const OPENED_TO_FORK: &str = "setns";
/// A job may take long; beyond this a nest found by label is nobody's.
const LIFETIME: Duration = Duration::from_secs(6 * 3600);
/// For the nest itself, beside the attempt's limit.
const OWN_MEMORY: u64 = 8 << 20;
/// For prepared interpreters, which share most of it with what is forked from them.
const ZYGOTES_MEMORY: u64 = 512 << 20;
/// Processes of the nest and of a cell that are not the attempt's.
const OWN_PIDS: u32 = 8;
const ZYGOTES_PIDS: u32 = 64;

static PROFILE: LazyLock<String> = LazyLock::new(|| seccomp::compiled(&OPENED));
static FORKING_PROFILE: LazyLock<String> =
    LazyLock::new(|| seccomp::compiled(&[&OPENED[..], &[OPENED_TO_FORK]].concat()));

/// Owns the container of a nest.
#[derive(Debug)]
pub(crate) struct Outer {
    guard: ContainerGuard,
}

impl Outer {
    pub(super) async fn remove(self) {
        self.guard.remove_soon().await;
    }
}

/// What one nest serves: attempts that differ in it need another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Attempts that start their program.
    Starting,
    /// Attempts forked from prepared interpreters, which need room of their own.
    Forking,
}

impl Nest {
    /// Opens a nest in a container of `request`'s image and limits, of this runtime. Cancel safe.
    pub(crate) async fn in_container(
        engine: &Engine,
        place: Place<'_>,
        request: &SandboxRequest,
        used_for: Use,
        runtime: Option<String>,
    ) -> Result<Self, NotStarted> {
        if PROGRAM.is_empty() {
            return Err(NotStarted::Unsupported("this flakefarm was not built on Linux".to_owned()));
        }
        let docker = engine.docker();
        let failed = |what: &'static str| move |error: Error| infra(InfraStage::Sandbox, what, &error);
        let mut guard = engine.guard();
        engine
            .create(&mut guard, body(engine, place, request, used_for, runtime))
            .await
            .map_err(failed("failed to create a container"))?;
        upload(engine, guard.name()).await?;
        let AttachContainerResults { output, input } = start_attached(docker, guard.name()).await?;
        let mut nest = Nest::over(Carrier::Container { output, input, outer: Outer { guard } });
        let shared_network = request.limits.network == Network::Bridge;
        nest.set_up(SetUp { ground: Ground::Container, shared_network }).await?;
        Ok(nest)
    }
}

/// The program goes into a volume: the container's own root is read-only from the start.
async fn upload(engine: &Engine, container: &str) -> Result<(), InfraError> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(PROGRAM.len() as u64);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, NAME, PROGRAM).expect("writing to memory, a relative name");
    let archive = archive.into_inner().expect("writing to memory");
    let options = UploadToContainerOptionsBuilder::default().path(DIRECTORY).build();
    engine
        .docker()
        .upload_to_container(container, Some(options), body_full(archive.into()))
        .await
        .map_err(|error| infra(InfraStage::Sandbox, "failed to put the nest into a container", &error))
}

fn body(
    engine: &Engine,
    place: Place<'_>,
    request: &SandboxRequest,
    used_for: Use,
    runtime: Option<String>,
) -> ContainerCreateBody {
    let (memory, pids, profile) = match used_for {
        Use::Starting => (OWN_MEMORY, OWN_PIDS, PROFILE.as_str()),
        Use::Forking => (OWN_MEMORY + ZYGOTES_MEMORY, OWN_PIDS + ZYGOTES_PIDS, FORKING_PROFILE.as_str()),
    };
    let role = Role::Attempt {
        worker: request.worker.to_string(),
        sweep: request.sweep.to_string(),
        job: request.attempt.job.to_string(),
        attempt: "all".to_owned(),
    };
    let program =
        Mount { target: Some(DIRECTORY.to_owned()), typ: Some(MountType::VOLUME), ..Mount::default() };
    let measures = Measures::of_attempt(&request.limits, place.cpus, place.network).and(memory, pids);
    let mut body = hardened(&measures, Wall::Nest { profile, program });
    if let Some(host) = &mut body.host_config {
        host.runtime = runtime;
    }
    ContainerCreateBody {
        image: Some(request.image.clone()),
        entrypoint: Some(vec![format!("{DIRECTORY}/{NAME}")]),
        cmd: Some(Vec::new()),
        labels: Some(engine.labels(&role, LIFETIME)),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        stdin_once: Some(true),
        ..body
    }
}
