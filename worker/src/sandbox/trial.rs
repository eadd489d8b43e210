//! Whether a runtime starts anything here. Being registered says nothing about it, so a container is started: of an
//! image that is made for it, since an engine may have none, whose one program ends at once.

use super::engine::{Engine, Role, infra};
use super::hardening::{Measures, Wall, hardened};
use super::nest::PROGRAM;
use bollard::body_full;
use bollard::errors::Error;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, RemoveImageOptionsBuilder, StartContainerOptions,
};
use flakefarm_shared::{InfraError, InfraStage};
use futures::StreamExt;
use std::time::Duration;
use uuid::Uuid;

const REPOSITORY: &str = "flakefarm/trial";
const NAME: &str = "ends-at-once";
/// A container that was not started by then is taken for one that cannot be: a virtual machine takes seconds.
const BOUND: Duration = Duration::from_secs(30);

/// What containers are tried with on one engine. It must be ended by [`Trial::end`].
#[derive(Debug)]
pub struct Trial {
    engine: Engine,
    image: String,
}

impl Trial {
    /// Makes the image.
    pub async fn begin(engine: &Engine) -> Result<Self, InfraError> {
        let tag = Uuid::now_v7().simple().to_string();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(PROGRAM.len() as u64);
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_data(&mut header, NAME, PROGRAM).expect("writing to memory, a relative name");
        let archive = archive.into_inner().expect("writing to memory");
        let options = CreateImageOptionsBuilder::default().from_src("-").repo(REPOSITORY).tag(&tag).build();
        let mut said = engine.docker().create_image(Some(options), Some(body_full(archive.into())), None);
        let mut last = None;
        while let Some(line) = said.next().await {
            let failed =
                |error: Error| infra(InfraStage::Sandbox, "failed to make an image to try with", &error);
            last = line.map_err(failed)?.status.or(last);
        }
        // By its id, which comes last: Podman would look for the name in a registry.
        let message = "the engine has made an image to try with and does not say which".to_owned();
        let image = last.ok_or(InfraError { stage: InfraStage::Sandbox, message })?.trim().to_owned();
        Ok(Self { engine: engine.clone(), image })
    }

    /// Starts a container with `runtime` (`None`: the engine's default) and removes it.
    pub async fn of(&self, runtime: Option<&str>) -> Result<(), InfraError> {
        let tried = tokio::time::timeout(BOUND, self.start(runtime)).await;
        tried.unwrap_or_else(|_| {
            let message = format!("it has started no container within {} s", BOUND.as_secs());
            Err(InfraError { stage: InfraStage::Sandbox, message })
        })
    }

    async fn start(&self, runtime: Option<&str>) -> Result<(), InfraError> {
        let mut guard = self.engine.guard();
        let measures = Measures { memory_bytes: 64 << 20, cpu_millis: None, pids: 16, network: None };
        let mut closed = hardened(&measures, Wall::Nothing);
        if let Some(host) = &mut closed.host_config {
            host.runtime = runtime.map(str::to_owned);
        }
        let body = ContainerCreateBody {
            image: Some(self.image.clone()),
            entrypoint: Some(vec![format!("/{NAME}")]),
            labels: Some(self.engine.labels(&Role::Trial, BOUND * 2)),
            ..closed
        };
        let failed = |what: &'static str| move |error: Error| infra(InfraStage::Sandbox, what, &error);
        self.engine.create(&mut guard, body).await.map_err(failed("failed to create a container"))?;
        let started = self.engine.docker().start_container(guard.name(), None::<StartContainerOptions>).await;
        guard.remove().await;
        started.map_err(failed("failed to start a container"))
    }

    /// Removes the image.
    pub async fn end(self) {
        let options = RemoveImageOptionsBuilder::default().force(true).build();
        let removed = self.engine.docker().remove_image(&self.image, Some(options), None).await;
        if let Err(error) = removed {
            tracing::warn!("failed to remove image {}: {error}", self.image);
        }
    }
}
