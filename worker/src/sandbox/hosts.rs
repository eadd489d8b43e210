//! Where attempts without a network find the name `localhost`.
//!
//! A container whose network is disabled gets an empty /etc/hosts, whatever its image brings; network
//! `none` would fill it, at twice the price of a container. So one container per worker with network
//! `none` is started once, ends at once, and lends its hosts file, read-only, to every attempt.

use super::engine::{ContainerGuard, Engine, Role, infra};
use super::hardening::{Measures, Wall, hardened};
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, Mount, MountType};
use bollard::query_parameters::StartContainerOptions;
use flakefarm_shared::{InfraError, InfraStage};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

pub(super) const HOSTNAME: &str = "flakefarm";
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
const RENEWAL: Duration = Duration::from_secs(12 * 3600);

/// The lender of the hosts file, made at its first use.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    lender: Mutex<Option<Lender>>,
}

#[derive(Debug)]
struct Lender {
    guard: ContainerGuard,
    path: String,
    made: Instant,
}

impl Hosts {
    /// The mount of the hosts file. `image` may be any that has a shell.
    pub(super) async fn mount(&self, engine: &Engine, image: &str) -> Result<Mount, InfraError> {
        // Held while the lender is made, so that there is one.
        let mut lender = self.lender.lock().await;
        let path = match lender.take() {
            Some(found) if found.made.elapsed() < RENEWAL => {
                let path = found.path.clone();
                *lender = Some(found);
                path
            }
            outdated => {
                if let Some(outdated) = outdated {
                    outdated.guard.remove().await;
                }
                let made = make(engine, image).await?;
                lender.insert(made).path.clone()
            }
        };
        Ok(Mount {
            target: Some("/etc/hosts".to_owned()),
            source: Some(path),
            typ: Some(MountType::BIND),
            read_only: Some(true),
            ..Mount::default()
        })
    }

    /// Gives the lender up; the next attempt makes a new one.
    pub(super) async fn forget(&self) {
        if let Some(lender) = self.lender.lock().await.take() {
            lender.guard.remove().await;
        }
    }
}

async fn make(engine: &Engine, image: &str) -> Result<Lender, InfraError> {
    let docker = engine.docker();
    let failed =
        |error: Error| infra(InfraStage::Sandbox, "failed to make a hosts file for sandboxes", &error);
    let mut guard = engine.guard();
    // The shell is the image's: it may be anything.
    let measures = Measures { memory_bytes: 32 << 20, cpu_millis: None, pids: 16, network: Some("none") };
    let mut closed = hardened(&measures, Wall::Nothing);
    if let Some(host) = &mut closed.host_config {
        host.extra_hosts = Some(vec![format!("{HOSTNAME}:127.0.0.1")]);
    }
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec!["/bin/sh".to_owned()]),
        cmd: Some(vec!["-c".to_owned(), "exit 0".to_owned()]),
        labels: Some(engine.labels(&Role::Hosts, LIFETIME)),
        ..closed
    };
    engine.create(&mut guard, body).await.map_err(failed)?;
    docker.start_container(guard.name(), None::<StartContainerOptions>).await.map_err(failed)?;
    let made = docker.inspect_container(guard.name(), None).await.map_err(failed)?;
    match made.hosts_path.filter(|path| !path.is_empty()) {
        Some(path) => Ok(Lender { guard, path, made: Instant::now() }),
        None => {
            guard.remove().await;
            let message = "the engine does not say where it keeps a container's hosts file".to_owned();
            Err(InfraError { stage: InfraStage::Sandbox, message })
        }
    }
}
